//! The decision service alone, as a developer starts it: a decision with the very command that it prints, a problem that names the field, an orderly end.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Run;
use crate::place::Place;
use crate::progress;

const START_MAX: Duration = Duration::from_secs(60);
const END_MAX: Duration = Duration::from_secs(15);

pub(super) fn run(run: &mut Run) -> Result<()> {
    let started = Instant::now();
    let mut service = Service::start(run.place)?;
    let decided = decision(&service.command).map(|verdict| format!("{verdict} {} after the start", progress::seconds(started.elapsed())));
    run.checks.check("standalone: the curl command that it prints gives a verdict", decided);
    run.checks.check("standalone: a wrong request gets a problem that names the field", problem(&service.command));
    run.checks.check("standalone: SIGTERM ends it with exit code 0", service.end());
    Ok(())
}

struct Service {
    child: Child,
    /// What it says to type.
    command: String,
}

impl Service {
    /// On ports that are free, so that nothing else on the machine matters.
    fn start(place: &Place) -> Result<Self> {
        let mut command = place.unprivileged(place.binary("scoring-decision"));
        let any = "127.0.0.1:0";
        command.args(["--standalone", "--grpc", any, "--rest", any, "--admin", any]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("its standard output is not there")?;
        let mut service = Self { child, command: String::new() };
        service.command = greeting(stdout)?;
        Ok(service)
    }

    fn end(&mut self) -> Result<String> {
        progress::output(Command::new("kill").args(["-TERM", &self.child.id().to_string()]))?;
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.code() == Some(0), "{status}");
                return Ok(format!("after {}", progress::seconds(asked.elapsed())));
            }
            ensure!(asked.elapsed() < END_MAX, "it still runs {} s later", END_MAX.as_secs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads on in the background, so that the service never writes to a closed pipe.
fn greeting(stdout: impl Read + Send + 'static) -> Result<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    let deadline = Instant::now() + START_MAX;
    let mut said = String::new();
    while let Ok(line) = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        said.push_str(&line);
        said.push('\n');
        if let Some(command) = curl_command(&said) {
            return Ok(command);
        }
    }
    bail!("it printed no curl command within {} s, but:\n{said}", START_MAX.as_secs())
}

/// From `curl` to the quote that closes the payment.
fn curl_command(said: &str) -> Option<String> {
    let begin = said.find("curl ")?;
    let end = said[begin..].find("}'")? + begin + 2;
    Some(said[begin..end].to_string())
}

fn decision(command: &str) -> Result<String> {
    let said = progress::output(Command::new("sh").args(["-c", command]))?;
    let answer: Value = serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))?;
    let verdict = answer["verdict"].as_str().with_context(|| format!("no verdict: {said}"))?;
    ensure!(["APPROVE", "REVIEW", "DECLINE"].contains(&verdict), "the verdict is {verdict}");
    Ok(verdict.to_string())
}

fn problem(command: &str) -> Result<String> {
    let wrong = command.replacen("\"USD\"", "\"dollars\"", 1);
    ensure!(wrong != command, "the printed command has no currency to spoil");
    let said = progress::output(Command::new("sh").args(["-c", &format!("{wrong} --include")]))?;
    let lower = said.to_ascii_lowercase();
    ensure!(lower.contains("content-type: application/problem+json"), "no problem details: {said}");
    let status = said.split_whitespace().nth(1).unwrap_or_default();
    ensure!(status.starts_with('4'), "status {status}");
    let body = said.split("\r\n\r\n").nth(1).unwrap_or_default();
    ensure!(body.contains("\"currency\""), "it does not name the field: {body}");
    Ok(format!("{status}, {body}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_command_is_taken_as_it_stands() {
        let said = "Ready.\n\n  curl -s http://h/v1 -d '{\n    \"card\": {\"number\": \"4\"},\n    \"a\": 1\n";
        assert_eq!(curl_command(said), None);
        let whole = format!("{said}  }}'\n\nSend it\n");
        assert_eq!(curl_command(&whole).unwrap(), "curl -s http://h/v1 -d '{\n    \"card\": {\"number\": \"4\"},\n    \"a\": 1\n  }'");
    }
}
