//! Runs a command of a test stage: what it prints goes to the terminal and to a log file, and its results are counted on the way.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::progress;
use crate::results::{self, Counts, Format};

/// Errors only if the command cannot be run; a test that fails is a count.
pub(crate) fn run(command: &mut Command, format: Format, log: &Path) -> Result<Counts> {
    let mut file = File::options().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))?;
    eprintln!("   $ {}", progress::describe(command));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`: run `cargo xtask doctor`", command.get_program().to_string_lossy()))?;
    let mut counts = Counts::default();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).split(b'\n');
        // A test may print bytes that are not UTF-8; they are shown as they can be.
        while let Some(bytes) = lines.next().transpose().context("cannot read what the tests print")? {
            let line = String::from_utf8_lossy(&bytes);
            println!("{line}");
            writeln!(file, "{line}").with_context(|| format!("cannot write {}", log.display()))?;
            counts += results::count(format, &line);
        }
    }
    let status = child.wait().context("cannot wait for the tests")?;
    Ok(counts.of_stage(status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_and_what_was_printed_is_kept() {
        let log = std::env::temp_dir().join(format!("xtask-stage-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'ok one'; printf '\\377 noise\\n'; echo 'FAILED two'; exit 1"]);
        let counts = run(&mut command, Format::Checks, &log).unwrap();
        let kept = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert_eq!(counts, Counts { passed: 1, failed: 1 });
        assert!(kept.starts_with("ok one\n") && kept.ends_with("FAILED two\n"), "{kept}");
    }
}
