//! The stage `e2e` of `cargo xtask test`: a demo in a sandbox of its own, and then, on the pipeline that it leaves, what clusters, drills and tear-down have to show.
//! Each part is a file; a part that cannot go on is one failed check and does not stop the next. Runs programs.

mod checks;
mod cluster;
mod crash;
mod deletion;
mod drift;
mod drill;
mod region_loss;
mod shown;
mod standalone;
mod writes;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::checks::Checks;
use crate::demo::regions::{Region, Sandbox};
use crate::demo::stream::{Ended, Files, Stream};
use crate::place::Place;
use crate::results::{Counts, Format};
use crate::{images, progress, sandbox, stages, tools};

/// Letters and digits only, as the sandbox wants names.
const INSTANCE: &str = "endtoend";
/// Shorter streams hold too few frauds to judge recall by.
const DEMO_LASTS: &str = "60s";

pub(crate) struct Options<'a> {
    pub(crate) keep: bool,
    pub(crate) part: Option<&'a str>,
}

/// What a part may use.
struct Run<'a> {
    place: &'a Place,
    sandbox: Sandbox<'a>,
    /// For files of the parts.
    folder: PathBuf,
    checks: Checks,
}

struct Part {
    name: &'static str,
    run: fn(&mut Run) -> Result<()>,
}

/// In this order: what needs the pipeline undisturbed comes first, what takes everything down last.
const PARTS: &[Part] = &[
    Part { name: "shown", run: shown::run },
    Part { name: "standalone", run: standalone::run },
    Part { name: "writes", run: writes::run },
    Part { name: "drift", run: drift::run },
    Part { name: "region-loss", run: region_loss::run },
    Part { name: "drill", run: drill::run },
    Part { name: "deletion", run: deletion::run },
    Part { name: CRASH, run: crash::run },
];
/// Ends with the sandbox gone.
const CRASH: &str = "crash";

pub(crate) fn run(place: &Place, log: &Path, options: &Options) -> Result<Counts> {
    let parts = choose(options)?;
    // Tools and images are built before the clock of the demo runs.
    let tools = tools::ensure_sandbox_tools(place, false)?;
    images::ensure(place, &tools)?;
    if !options.keep {
        take_down(place, INSTANCE).context("cannot remove what an earlier run left")?;
    }
    let mut demo = own_program()?;
    demo.args(["demo", "--headless", "--ignore-speed", "--for", DEMO_LASTS, "--instance", INSTANCE]);
    let mut counts = stages::run(&mut demo, Format::Checks, log)?;
    let result = after_demo(place, log, &parts);
    if !options.keep {
        take_down(place, INSTANCE).context("cannot remove the sandbox of this test")?;
    }
    counts += result?;
    Ok(counts)
}

fn choose(options: &Options) -> Result<Vec<&'static Part>> {
    let wanted = |part: &&Part| options.part.map_or(!(options.keep && part.name == CRASH), |name| part.name == name);
    let parts: Vec<&Part> = PARTS.iter().filter(wanted).collect();
    if parts.is_empty() {
        let known: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        bail!("no part of the stage e2e is called {}: choose one of {}", options.part.unwrap_or_default(), known.join(", "));
    }
    Ok(parts)
}

fn after_demo(place: &Place, log: &Path, parts: &[&Part]) -> Result<Counts> {
    let folder = place.target.join("test").join("e2e");
    place.make_folder(&folder)?;
    let sandbox = Sandbox::open(place, INSTANCE).context("the demo left no sandbox to look at")?;
    let mut run = Run { place, sandbox, folder, checks: Checks::new(log)? };
    for part in parts {
        let started = Instant::now();
        progress::heading(&format!("e2e: {}", part.name));
        if let Err(error) = (part.run)(&mut run) {
            run.checks.check(part.name, Err(error));
        }
        progress::note(&format!("{}: {}", part.name, progress::seconds(started.elapsed())));
    }
    Ok(run.checks.counts)
}

impl Run<'_> {
    /// A stream of payments that leaves its files under this name.
    fn stream(&self, name: &str, target: &Region, rate: u32, lasting: Duration) -> Result<(Stream, Files)> {
        let files = Files { summary: self.folder.join(format!("{name}.json")), ledger: self.folder.join(format!("{name}-ledger.jsonl")) };
        Ok((Stream::start(self.place, target, rate, lasting, files.clone())?, files))
    }
}

/// Waits until the stream has ended by itself.
fn whole_stream(mut stream: Stream) -> Result<Ended> {
    while !stream.has_ended()? {
        std::thread::sleep(Duration::from_millis(100));
    }
    stream.end()
}

/// What a stream has to be when nothing is wrong.
fn all_answered(ended: &Ended) -> Result<String> {
    if ended.decisions == 0 || ended.errors > 0 || ended.unanswered > 0 {
        bail!("{} decisions, {} errors, {} unanswered", ended.decisions, ended.errors, ended.unanswered);
    }
    Ok(format!("{} decisions, no errors, none unanswered, p99 {:.0} ms", ended.decisions, ended.latency_ms.p99))
}

/// The real command lines are tested, so this program starts itself.
fn own_program() -> Result<Command> {
    Ok(Command::new(std::env::current_exe().context("cannot find this program's own file")?))
}

fn take_down(place: &Place, instance: &str) -> Result<()> {
    let mut command = sandbox::program(place);
    progress::output(command.args(["--instance", instance, "down", "--delete"]))?;
    // Credentials belong to clusters that are gone, and may be those of another version.
    let credentials = place.target.join(format!("demo-{instance}")).join("credentials");
    if credentials.exists() {
        std::fs::remove_dir_all(&credentials).with_context(|| format!("cannot remove {}", credentials.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_sandbox_is_not_taken_down_by_a_check_unless_that_is_asked_for_by_name() {
        let names = |keep: bool, part: Option<&str>| -> Vec<&str> {
            choose(&Options { keep, part }).unwrap().iter().map(|part| part.name).collect()
        };
        assert_eq!(names(false, None).last(), Some(&CRASH));
        assert!(!names(true, None).contains(&CRASH));
        assert_eq!(names(true, Some(CRASH)), [CRASH]);
        let error = choose(&Options { keep: false, part: Some("drifd") }).err().unwrap().to_string();
        assert!(error.contains("called drifd: choose one of shown, "), "{error}");
    }
}
