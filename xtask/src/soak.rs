//! `cargo xtask soak NAME`: a test, many times longer than CI runs it, run after run. Each run leaves a line in `target/soak/NAME.jsonl`, so that a soak that was
//! ended goes on behind its last run; the sum of all is `target/soak/NAME.json`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::results::{Counts, Format};
use crate::{progress, recipes, stages, tools};

const EXAMPLES: &str = "\
Examples:
  cargo xtask soak builder-kills                      100 kills of the builder, counted against the oracle in the end
  cargo xtask soak builder-kills --kills 5            does it work?
  cargo xtask soak builder-kills --runs 10            ten times 100 kills, each with another seed
  cargo xtask soak builder-kills --runs 10 --resume   what is missing of that

Results: target/soak/NAME.jsonl, a line a run, and target/soak/NAME.json. With --record the latter also goes to docs/results/.";

const SOAKS: &[Soak] = &[Soak {
    name: "builder-kills",
    about: "SIGKILL the builder again and again while it folds; then the shards hold what the log says, once",
    package: "scoring-builder",
    test: "kills",
    kills_variable: "FRAUDPIPELINE_BUILDER_KILLS",
    seed_variable: "FRAUDPIPELINE_BUILDER_KILLS_SEED",
}];

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The soak; an unknown name lists the known ones.
    name: String,
    /// How often the process is killed in each run, at most 300: then rather more runs.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=300))]
    kills: u32,
    /// How many runs, one after the other; one that fails ends the soak.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Of the first run; each further one has the next. It decides when kills come.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the runs of an earlier soak of the same commit, kills and seeds, and do those that are missing.
    #[arg(long)]
    resume: bool,
    /// Also write the result to docs/results/.
    #[arg(long)]
    record: bool,
}

struct Soak {
    name: &'static str,
    about: &'static str,
    /// Whose test it is; the test needs real programs, as the stage `real` of `cargo xtask test` gives them.
    package: &'static str,
    test: &'static str,
    kills_variable: &'static str,
    seed_variable: &'static str,
}

/// A line of the file of runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Run {
    commit: String,
    seed: u64,
    kills: u32,
    passed: bool,
    seconds: f64,
    /// The line in which the test says what it has counted.
    said: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Sum<'a> {
    name: &'a str,
    commit: &'a str,
    kills: u64,
    passed: usize,
    failed: usize,
    runs: &'a [Run],
}

pub(crate) fn command(place: &Place, arguments: &Arguments) -> Result<()> {
    let soak = find(&arguments.name)?;
    let folder = place.target.join("soak");
    place.make_folder(&folder)?;
    let (lines, commit) = (folder.join(format!("{}.jsonl", soak.name)), commit(place)?);
    let mut runs = if arguments.resume { earlier(&lines, &commit, arguments)? } else { Vec::new() };
    write_lines(&lines, &runs)?;
    progress::heading(&format!("{}: {}", soak.name, soak.about));
    let kafka_libs = tools::ensure(place, &recipes::kafka(), false)?;
    for number in 0..arguments.runs {
        let seed = arguments.seed.wrapping_add(u64::from(number));
        if runs.iter().any(|run| run.seed == seed) {
            progress::note(&format!("run {} of {}, seed {seed}: done before", number + 1, arguments.runs));
            continue;
        }
        progress::note(&format!("run {} of {}, seed {seed}: {} kills", number + 1, arguments.runs, arguments.kills));
        let log = folder.join(format!("{}-{seed}.log", soak.name));
        let mut command = test_command(place, soak, &kafka_libs);
        command.env(soak.kills_variable, arguments.kills.to_string()).env(soak.seed_variable, seed.to_string());
        let run = one(&mut command, &log, commit.clone(), seed, arguments.kills)?;
        append_line(&lines, &run)?;
        let failed = !run.passed;
        runs.push(run);
        if failed {
            break;
        }
    }
    conclude(place, soak, &commit, &runs, arguments.record)
}

fn find(name: &str) -> Result<&'static Soak> {
    SOAKS.iter().find(|soak| soak.name == name).with_context(|| {
        let known: Vec<String> = SOAKS.iter().map(|soak| format!("\n  {:15} {}", soak.name, soak.about)).collect();
        format!("no soak is called {name}: choose one of{}", known.concat())
    })
}

/// The whole workspace, narrowed by the name of the test: see the stage `real`.
fn test_command(place: &Place, soak: &Soak, kafka_libs: &Path) -> Command {
    let mut command = place.cargo();
    command.args(["test", "--locked", "--workspace", "--test", soak.test, "--features"]);
    command.arg(format!("{}/broker-tests", soak.package)).args(["--", "--nocapture"]);
    command.env("FRAUDPIPELINE_KAFKA_LIBS", kafka_libs);
    command
}

fn one(command: &mut Command, log: &Path, commit: String, seed: u64, kills: u32) -> Result<Run> {
    std::fs::write(log, []).with_context(|| format!("cannot write {}", log.display()))?;
    let started = Instant::now();
    let counts = stages::run(command, Format::Cargo, log)?;
    let said = std::fs::read_to_string(log).with_context(|| format!("cannot read {}", log.display()))?;
    let said = said.lines().find(|line| is_verdict(line)).unwrap_or("the test did not come to its end").to_string();
    let passed = counts.failed == 0 && counts != Counts { passed: 0, failed: 0 } && is_verdict(&said);
    Ok(Run { commit, seed, kills, passed, seconds: started.elapsed().as_secs_f64().round(), said })
}

fn is_verdict(line: &str) -> bool {
    line.ends_with("0 lost, 0 double")
}

fn conclude(place: &Place, soak: &Soak, commit: &str, runs: &[Run], record: bool) -> Result<()> {
    let failed = runs.iter().filter(|run| !run.passed).count();
    let kills = runs.iter().map(|run| u64::from(run.kills)).sum();
    let sum = Sum { name: soak.name, commit, kills, passed: runs.len() - failed, failed, runs };
    let text = serde_json::to_string_pretty(&sum)? + "\n";
    let mut paths = vec![place.target.join("soak").join(format!("{}.json", soak.name))];
    if record {
        let folder = place.root.join("docs/results");
        place.make_folder(&folder)?;
        paths.push(folder.join(format!("{}.json", soak.name)));
    }
    for path in &paths {
        std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    println!("{kills} kills, {} runs passed, {failed} failed", sum.passed);
    if failed > 0 {
        bail!("a run failed: its log is target/soak/{}-SEED.log, and `--seed SEED` runs it again", soak.name);
    }
    Ok(())
}

/// Runs that passed and that this soak would do too.
fn earlier(lines: &Path, commit: &str, arguments: &Arguments) -> Result<Vec<Run>> {
    let text = match std::fs::read_to_string(lines) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read {}", lines.display()))?,
    };
    // A line that was not written to its end is a run that is not done.
    let runs = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    Ok(runs.filter(|run: &Run| run.passed && belongs(run, commit, arguments)).collect())
}

fn belongs(run: &Run, commit: &str, arguments: &Arguments) -> bool {
    let seeds = arguments.seed..arguments.seed.saturating_add(u64::from(arguments.runs));
    run.commit == commit && run.kills == arguments.kills && seeds.contains(&run.seed)
}

fn write_lines(path: &PathBuf, runs: &[Run]) -> Result<()> {
    std::fs::write(path, []).with_context(|| format!("cannot write {}", path.display()))?;
    runs.iter().try_for_each(|run| append_line(path, run))
}

fn append_line(path: &Path, run: &Run) -> Result<()> {
    let line = serde_json::to_string(run)? + "\n";
    let mut file = std::fs::File::options().append(true).open(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(line.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Followed by `-dirty` if tracked files differ from it.
fn commit(place: &Place) -> Result<String> {
    let mut git = place.unprivileged("git");
    Ok(progress::output(git.args(["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]))?.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, passed: bool) -> Run {
        Run { commit: "c".to_string(), seed, kills: 100, passed, seconds: 1.0, said: String::new() }
    }

    fn arguments() -> Arguments {
        Arguments { name: "builder-kills".to_string(), kills: 100, runs: 3, seed: 5, resume: true, record: false }
    }

    #[test]
    fn a_soak_goes_on_behind_the_runs_that_passed() {
        let lines = std::env::temp_dir().join(format!("xtask-soak-{}.jsonl", std::process::id()));
        write_lines(&lines, &[run(5, true), run(6, false), run(8, true), Run { commit: "other".to_string(), ..run(7, true) }]).unwrap();
        std::fs::File::options().append(true).open(&lines).unwrap().write_all(b"{\"commit\": \"c\", \"se").unwrap();
        let kept = earlier(&lines, "c", &arguments()).unwrap();
        std::fs::remove_file(&lines).unwrap();
        assert_eq!(kept, [run(5, true)]);
        assert_eq!(earlier(&lines, "c", &arguments()).unwrap(), []);
    }

    #[test]
    fn a_run_that_does_not_say_what_it_counted_has_not_passed() {
        let log = std::env::temp_dir().join(format!("xtask-soak-{}.log", std::process::id()));
        let said = |text: &str| {
            let mut command = Command::new("echo");
            one(command.arg(text), &log, "c".to_string(), 1, 2).unwrap()
        };
        let passed = said("2 kills, 800 events, 60 entities: 0 lost, 0 double\ntest result: ok. 1 passed; 0 failed; 0 ignored");
        let silent = said("test result: ok. 0 passed; 0 failed; 1 ignored");
        std::fs::remove_file(&log).unwrap();
        assert!(passed.passed && passed.said.starts_with("2 kills"), "{passed:?}");
        assert!(!silent.passed, "{silent:?}");
    }

    #[test]
    fn unknown_soaks_list_the_known_ones() {
        assert!(find("kills").err().unwrap().to_string().contains("builder-kills"));
    }
}
