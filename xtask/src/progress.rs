//! Long steps: a line that says what runs, for how long and how long it is expected to take; a log file with all of it; and the end of that log when it fails.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const POLL: Duration = Duration::from_millis(100);
const LOG_LINES_SHOWN: usize = 20;

/// A heading on stderr, so that standard output stays for results.
pub(crate) fn heading(text: &str) {
    eprintln!("\n== {text}");
}

pub(crate) fn note(text: &str) {
    eprintln!("   {text}");
}

/// Runs `command` with both of its outputs going to `log`, and shows progress on stderr meanwhile.
///
/// Errors: the command cannot be started or fails; the message ends with the last lines of the log and with `advice`.
pub(crate) fn run_logged(label: &str, expected: Duration, command: &mut Command, log: &Path, advice: &str) -> Result<()> {
    let mut out = File::options().create(true).append(true).open(log).with_context(|| format!("cannot write the log {}", log.display()))?;
    writeln!(out, "$ {}", describe(command)).context("cannot write the log")?;
    let errors = out.try_clone().context("cannot write the log")?;
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn();
    let child = child.with_context(|| format!("cannot start `{program}`: run `cargo xtask doctor` to see what this machine lacks"))?;
    let status = watch(label, expected, child)?;
    if !status.success() {
        bail!("{label} failed ({status}). {}\nThe whole log: {}\n{advice}", log_tail(log), log.display());
    }
    Ok(())
}

fn watch(label: &str, expected: Duration, mut child: Child) -> Result<ExitStatus> {
    let started = Instant::now();
    let live = std::io::stderr().is_terminal();
    // A terminal line is redrawn every second; a log of CI gets a line now and then.
    let every = Duration::from_secs(if live { 1 } else { 15 });
    let mut next = every;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child process")? {
            if live {
                eprint!("\r\x1b[K");
            }
            let mark = if status.success() { "done" } else { "FAILED" };
            eprintln!("   {label}: {mark} after {}", seconds(started.elapsed()));
            return Ok(status);
        }
        if started.elapsed() >= next {
            next += every;
            let line = format!("   {label}: {} of about {}", seconds(started.elapsed()), seconds(expected));
            if live {
                eprint!("\r\x1b[K{line}");
            } else {
                eprintln!("{line}");
            }
        }
        std::thread::sleep(POLL);
    }
}

/// The command as one could type it.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
    words.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() }).collect::<Vec<_>>().join(" ")
}

fn log_tail(log: &Path) -> String {
    let Ok(bytes) = std::fs::read(log) else { return "Its log cannot be read.".to_string() };
    format!("It said last:\n{}", last_lines(&String::from_utf8_lossy(&bytes), LOG_LINES_SHOWN))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n")
}

/// `4.2 s`, `3 min 07 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 60 { format!("{:.1} s", duration.as_secs_f64()) } else { format!("{} min {:02} s", whole / 60, whole % 60) }
}

/// Runs a quick command and returns what it wrote to standard output.
///
/// Errors: it cannot be started, or fails; the message carries what it wrote to standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let result =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", command.get_program().to_string_lossy()))?;
    if !result.status.success() {
        let said = String::from_utf8_lossy(&result.stderr);
        bail!("`{}` failed ({}):\n{}", describe(command), result.status, last_lines(said.trim_end(), LOG_LINES_SHOWN));
    }
    String::from_utf8(result.stdout).context("its output is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_shows_the_end_of_its_log_and_the_advice() {
        let log = std::env::temp_dir().join(format!("xtask-progress-{}.log", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "for i in $(seq 30); do echo line $i; done; exit 3"]);
        let error = run_logged("count", Duration::from_secs(1), &mut command, &log, "Count again.").unwrap_err().to_string();
        std::fs::remove_file(&log).unwrap();
        assert!(error.contains("line 30") && error.contains("line 11\n") && !error.contains("line 10\n"), "{error}");
        assert!(error.contains("exit status: 3") && error.ends_with("Count again."), "{error}");
    }

    #[test]
    fn durations_read_like_a_clock() {
        assert_eq!(seconds(Duration::from_millis(4230)), "4.2 s");
        assert_eq!(seconds(Duration::from_secs(187)), "3 min 07 s");
    }
}
