//! What a person sees while the stream runs: one screen, drawn anew each second, and a line to type commands into. Without a terminal: a line every ten seconds.

use std::io::{BufRead, IsTerminal};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::ready::{self, Seen};
use super::regions::Sandbox;
use super::stream::{Progress, Stream};
use crate::{interrupt, progress};

const REDRAW: Duration = Duration::from_secs(1);
/// kubectl costs a tenth of a second of a core each time.
const LOOK_AT_CLUSTERS: Duration = Duration::from_secs(5);
const LINE_WITHOUT_TERMINAL: Duration = Duration::from_secs(10);
const HELP: &str = "type: kill REGION | heal REGION | quit (Ctrl-C also ends; the sandbox stays up)";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Kill(String),
    Heal(String),
    Quit,
    Unknown(String),
}

/// Until the stream ends, somebody types `quit`, or a signal comes.
pub(super) fn watch(sandbox: &Sandbox, stream: &mut Stream, headless: bool) -> Result<()> {
    let drawn = std::io::stderr().is_terminal() && !headless;
    let wishes = if headless { None } else { Some(typed_lines()) };
    let mut seen = if headless { Vec::new() } else { ready::look(sandbox) };
    let (mut looked, mut printed) = (Instant::now(), Instant::now());
    let mut message = String::new();
    while !stream.has_ended()? && !interrupt::asked_to_end() {
        std::thread::sleep(REDRAW);
        if looked.elapsed() >= LOOK_AT_CLUSTERS && !headless {
            seen = ready::look(sandbox);
            looked = Instant::now();
        }
        if drawn {
            eprint!("\x1b[2J\x1b[H{}", screen(&seen, &stream.latest(), &message));
        } else if printed.elapsed() >= LINE_WITHOUT_TERMINAL {
            printed = Instant::now();
            progress::note(&rate_line(&stream.latest()));
        }
        for line in wishes.iter().flat_map(Receiver::try_iter) {
            match wish(&line) {
                Wish::Quit => return Ok(()),
                Wish::Kill(region) => message = run(sandbox, "kill", &region),
                Wish::Heal(region) => message = run(sandbox, "heal", &region),
                Wish::Unknown(line) => message = format!("'{line}' is no command"),
            }
        }
    }
    Ok(())
}

/// Starts the command and does not wait for it: the screen shows what comes of it.
fn run(sandbox: &Sandbox, verb: &str, region: &str) -> String {
    if let Err(error) = sandbox.region(region) {
        return format!("{error:#}");
    }
    match sandbox.verb(&[verb, region]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
        Ok(mut child) => {
            std::thread::spawn(move || child.wait());
            format!("{verb} {region}: under way")
        }
        Err(error) => format!("{verb} {region}: {error}"),
    }
}

fn typed_lines() -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || std::io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    receiver
}

fn wish(line: &str) -> Wish {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["kill", region] => Wish::Kill((*region).to_string()),
        ["heal", region] => Wish::Heal((*region).to_string()),
        ["quit" | "q" | "exit"] => Wish::Quit,
        _ => Wish::Unknown(line.trim().to_string()),
    }
}

fn screen(seen: &[(String, Seen)], stream: &Progress, message: &str) -> String {
    let mut text = format!("FraudPipeline demo, {:.0} s\n\n{:10} {:8} {:6} {:12} READY\n", stream.t_s, "REGION", "ROLE", "EPOCH", "PHASE");
    for (region, seen) in seen {
        let role = match &seen.active_region {
            Some(active) if active == region => "active",
            Some(_) => "standby",
            None => "-",
        };
        let epoch = seen.epoch.map_or_else(|| "-".to_string(), |epoch| epoch.to_string());
        let ready = if seen.ready { "yes" } else { &seen.why_not };
        text.push_str(&format!("{region:10} {role:8} {epoch:6} {:12} {ready}\n", seen.phase.as_deref().unwrap_or("-")));
    }
    text.push_str(&format!("\n{}\n\n{message}\n{HELP}\n> ", rate_line(stream)));
    text
}

fn rate_line(stream: &Progress) -> String {
    format!(
        "{:.0} s: {:.1} decisions/s, p50 {:.1} ms, p99 {:.1} ms, {} decisions, {} errors, {} unanswered",
        stream.t_s, stream.decisions_per_s, stream.p50_ms, stream.p99_ms, stream.decisions, stream.errors, stream.unanswered
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_becomes_a_wish() {
        assert_eq!(wish(" kill us-east "), Wish::Kill("us-east".to_string()));
        assert_eq!(wish("heal eu-west"), Wish::Heal("eu-west".to_string()));
        assert_eq!(wish("q"), Wish::Quit);
        assert_eq!(wish("kill"), Wish::Unknown("kill".to_string()));
    }

    #[test]
    fn the_screen_shows_who_is_active_and_why_a_region_is_not_ready() {
        let seen = |ready: bool, why: &str| Seen {
            ready,
            active_region: Some("us-east".to_string()),
            epoch: Some(4),
            phase: None,
            why_not: why.to_string(),
        };
        let regions = [("us-east".to_string(), seen(true, "")), ("eu-west".to_string(), seen(false, "ShardsNotReady: 1 of 2 shards"))];
        let text = screen(&regions, &Progress { decisions_per_s: 249.96, ..Progress::default() }, "");
        assert!(text.contains("us-east    active   4      -            yes\n"), "{text}");
        assert!(text.contains("eu-west    standby  4      -            ShardsNotReady: 1 of 2 shards\n"), "{text}");
        assert!(text.contains("250.0 decisions/s"), "{text}");
    }
}
