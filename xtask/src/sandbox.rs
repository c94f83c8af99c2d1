//! `cargo xtask sandbox …`: makes sure that the tools and the sandbox program are there, and hands over to it with the rights it needs.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::place::Place;
use crate::{images, tools};

/// Global flags of the sandbox program that take a value; what stands after them is no verb.
const FLAGS_WITH_VALUE: &[&str] = &["--instance", "--state"];
/// The verbs that start processes, and so need to know where the programs are.
const VERBS_WITH_TOOLS: &[&str] = &["up", "selftest"];

/// Returns only if the hand-over fails: the sandbox takes the place of this process, so that signals and the exit code are its own.
pub(crate) fn command(place: &Place, arguments: &[OsString]) -> Result<()> {
    let verb = verb(arguments);
    if let Some(index) = verb.filter(|index| arguments[*index] == "drill") {
        return drill(place, &arguments[..index], &arguments[index + 1..]);
    }
    let needs_tools = verb.is_some_and(|index| VERBS_WITH_TOOLS.iter().any(|verb| arguments[index] == *verb));
    // A running sandbox is looked at and taken down with the program that there is, even when the checkout does not compile just now.
    if needs_tools || !place.binary("sandbox").exists() {
        let tools = tools::ensure_sandbox_tools(place, false)?;
        images::ensure_sandbox_only(place, &tools)?;
    }
    let mut command = program(place);
    match verb.filter(|_| needs_tools) {
        Some(index) => {
            command.args(&arguments[..=index]).arg("--tools").arg(images::toolbox_path(place)).args(&arguments[index + 1..]);
        }
        None => {
            command.args(arguments);
        }
    }
    Err(command.exec()).context("cannot start the sandbox")
}

/// Drills are carried out by a program of their own, which uses the sandbox from outside. `flags` say which sandbox.
fn drill(place: &Place, flags: &[OsString], arguments: &[OsString]) -> Result<()> {
    images::build_programs(place)?;
    place.make_folder(&place.target.join("drill"))?;
    let mut command = place.privileged(place.binary("fraud-chaos"));
    command.arg("drill").args(arguments).args(flags);
    command.arg("--sandbox").arg(place.binary("sandbox")).arg("--payments").arg(place.binary("fraud-payments"));
    command.arg("--out").arg(place.target.join("drill"));
    Err(command.exec()).context("cannot start the drill")
}

/// The sandbox program, run with root's rights.
pub(crate) fn program(place: &Place) -> Command {
    place.privileged(place.binary("sandbox"))
}

/// Where the verb stands among the arguments.
fn verb(arguments: &[OsString]) -> Option<usize> {
    let is_flag = |argument: &OsStr| argument.to_string_lossy().starts_with('-');
    let mut index = 0;
    while index < arguments.len() && is_flag(&arguments[index]) {
        index += if FLAGS_WITH_VALUE.iter().any(|flag| arguments[index] == *flag) { 2 } else { 1 };
    }
    (index < arguments.len()).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verb_is_found_behind_global_flags() {
        let find = |line: &str| verb(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(find("up --fresh"), Some(0));
        assert_eq!(find("--instance up down"), Some(2));
        assert_eq!(find("--instance=x --state dir up"), Some(3));
        assert_eq!(find("--help"), None);
    }
}
