//! `cargo xtask bench NAME`: builds a benchmark in the release profile, with its peers, and runs it. It writes `target/bench/NAME.json`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::recipes::{self, Recipe};
use crate::{progress, tools};

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench features                            all its cases, peers beside ours
  cargo xtask bench features --case keys20
  cargo xtask bench features --case encoding --quick    does it work? Its figures are worth little

Results: target/bench/NAME.json. Nothing else should run on the machine meanwhile.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The benchmark; an unknown name lists the known ones.
    name: String,
    /// Only this case of it.
    #[arg(long)]
    case: Option<String>,
    /// Small and short, to see that it works.
    #[arg(long)]
    quick: bool,
}

struct Bench {
    name: &'static str,
    about: &'static str,
    /// The package and its only binary.
    package: &'static str,
    cases: &'static [&'static str],
    /// Built before it runs.
    tools: &'static [Tool],
}

/// A program that a peer needs.
struct Tool {
    /// With which the benchmark is told its path.
    option: &'static str,
    recipe: fn() -> Recipe,
}

const BENCHES: &[Bench] = &[Bench {
    name: "features",
    about: "record and read of five entities in Redis, beside Lua counters and Feast",
    package: "bench-features",
    cases: &["keys20", "keys500", "encoding"],
    tools: &[Tool { option: "--feast-python", recipe: recipes::feast }],
}];

pub(crate) fn command(place: &Place, arguments: &Arguments) -> Result<()> {
    let bench = find(&arguments.name)?;
    check_case(bench, arguments.case.as_deref())?;
    progress::heading(&format!("{}: {}", bench.name, bench.about));
    let mut command = place.unprivileged(build(place, bench)?);
    for tool in bench.tools {
        command.arg(tool.option).arg(tools::ensure(place, &(tool.recipe)(), false)?);
    }
    let out = place.target.join("bench");
    place.make_folder(&out)?;
    command.arg("--out").arg(&out);
    if let Some(case) = &arguments.case {
        command.args(["--case", case]);
    }
    if arguments.quick {
        command.arg("--quick");
    }
    run(&mut command, bench.name)
}

fn find(name: &str) -> Result<&'static Bench> {
    BENCHES.iter().find(|bench| bench.name == name).with_context(|| {
        let known: Vec<String> = BENCHES.iter().map(|bench| format!("\n  {:10} {}", bench.name, bench.about)).collect();
        format!("no benchmark is called {name}: choose one of{}", known.concat())
    })
}

fn check_case(bench: &Bench, case: Option<&str>) -> Result<()> {
    match case {
        Some(case) if !bench.cases.contains(&case) => {
            bail!("benchmark {} has no case {case}: choose one of {}", bench.name, bench.cases.join(", "))
        }
        _ => Ok(()),
    }
}

/// Only the package that is needed: a release build of everything would take very long.
fn build(place: &Place, bench: &Bench) -> Result<PathBuf> {
    let mut cargo = place.cargo();
    cargo.args(["build", "--locked", "--release", "--package", bench.package]);
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{} does not build ({status}); the message of the compiler is above", bench.package);
    }
    Ok(place.target.join("release").join(bench.package))
}

/// Its output is the terminal's: progress on standard error, the result files on standard output.
fn run(command: &mut Command, name: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", progress::describe(command)))?;
    if !status.success() {
        bail!("benchmark {name} failed ({status}); why is above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_and_cases_list_the_known_ones() {
        let error = find("featurs").err().unwrap().to_string();
        assert!(error.contains("no benchmark is called featurs") && error.contains("features   record and read"), "{error}");
        let bench = find("features").unwrap();
        let error = check_case(bench, Some("keys5")).unwrap_err().to_string();
        assert_eq!(error, "benchmark features has no case keys5: choose one of keys20, keys500, encoding");
        assert!(check_case(bench, Some("encoding")).is_ok() && check_case(bench, None).is_ok());
    }
}
