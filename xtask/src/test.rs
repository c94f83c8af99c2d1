//! `cargo xtask test`: what CI runs, in stages from cheap to dear. A stage that fails does not stop the later ones, so that one run shows everything.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::progress;
use crate::results::{Counts, Format};
use crate::{e2e, images, sandbox, stages, tidy, tools};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only what needs no root and no cluster, in less than five minutes on a warm machine.
    #[arg(long)]
    quick: bool,
    /// Run this stage alone.
    #[arg(long, value_name = "STAGE", conflicts_with = "from")]
    only: Option<String>,
    /// Run this stage and those after it.
    #[arg(long, value_name = "STAGE")]
    from: Option<String>,
    /// Begin the stage e2e with the sandbox that an earlier run kept, and leave it up for looking around.
    #[arg(long)]
    keep: bool,
    /// Of the checks of the stage e2e that follow its demo, only those called so.
    #[arg(long, value_name = "NAME")]
    part: Option<String>,
}

struct Stage {
    name: &'static str,
    about: &'static str,
    quick: bool,
    run: fn(&StageContext) -> Result<Counts>,
}

/// What a stage may use.
struct StageContext<'a> {
    place: &'a Place,
    arguments: &'a Arguments,
    log: PathBuf,
}

struct Outcome {
    name: &'static str,
    counts: Counts,
    took: Duration,
}

const STAGES: &[Stage] = &[
    Stage { name: "fmt", about: "the code is formatted", quick: true, run: fmt },
    Stage { name: "tidy", about: "rules of this project that no compiler knows", quick: true, run: tidy_stage },
    Stage { name: "deny", about: "bans, licenses and sources of dependencies", quick: true, run: deny },
    Stage { name: "clippy", about: "no warnings", quick: true, run: clippy },
    Stage { name: "unit", about: "unit, property and golden tests", quick: true, run: unit },
    Stage { name: "real", about: "tests against a real API server, Helm, Kafka and ONNX Runtime", quick: false, run: real },
    Stage {
        name: "sandbox",
        about: "the sandbox checks itself: clusters, network, faults, tear-down",
        quick: false,
        run: sandbox_selftest,
    },
    Stage {
        name: "e2e",
        about: "end to end: the demo without a terminal, then what clusters, drills and tear-down have to show",
        quick: false,
        run: end_to_end,
    },
];

pub(crate) fn command(place: &Place, arguments: &Arguments) -> Result<()> {
    let logs = place.target.join("test");
    place.make_folder(&logs)?;
    let mut outcomes = Vec::new();
    for stage in choose(arguments)? {
        progress::heading(&format!("{}: {}", stage.name, stage.about));
        let log = logs.join(format!("{}.log", stage.name));
        std::fs::write(&log, []).with_context(|| format!("cannot write {}", log.display()))?;
        let started = Instant::now();
        let counts = (stage.run)(&StageContext { place, arguments, log }).unwrap_or_else(|error| {
            eprintln!("   {error:#}");
            Counts { passed: 0, failed: 1 }
        });
        let outcome = Outcome { name: stage.name, counts, took: started.elapsed() };
        progress::note(&row(&outcome));
        outcomes.push(outcome);
    }
    conclude(&outcomes)
}

fn choose(arguments: &Arguments) -> Result<Vec<&'static Stage>> {
    let position = |name: &str| {
        STAGES.iter().position(|stage| stage.name == name).with_context(|| {
            let known: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
            format!("no stage is called {name}: choose one of {}", known.join(", "))
        })
    };
    let range = match (&arguments.only, &arguments.from) {
        (Some(name), _) => position(name)?..position(name)? + 1,
        (None, Some(name)) => position(name)?..STAGES.len(),
        (None, None) => 0..STAGES.len(),
    };
    let chosen: Vec<&Stage> = STAGES[range].iter().filter(|stage| stage.quick || !arguments.quick).collect();
    if chosen.is_empty() {
        bail!("no stage is left to run: leave --quick out");
    }
    Ok(chosen)
}

/// The last line of standard output counts everything, as CI reads it.
fn conclude(outcomes: &[Outcome]) -> Result<()> {
    let mut total = Counts::default();
    println!();
    for outcome in outcomes {
        total += outcome.counts;
        println!("{}", row(outcome));
    }
    println!("{}", total.line());
    if total.failed > 0 {
        bail!("some tests failed: the logs are in target/test, and `cargo xtask test --only STAGE` runs one stage again");
    }
    Ok(())
}

fn row(outcome: &Outcome) -> String {
    let mark = if outcome.counts.failed == 0 { "ok    " } else { "FAILED" };
    format!("{mark} {:10} {:>14}  {}", outcome.name, progress::seconds(outcome.took), outcome.counts.line())
}

fn fmt(context: &StageContext) -> Result<Counts> {
    stages::run(context.place.cargo().args(["fmt", "--all", "--check"]), Format::ExitStatus, &context.log)
}

fn clippy(context: &StageContext) -> Result<Counts> {
    let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    stages::run(context.place.cargo().args(arguments), Format::ExitStatus, &context.log)
}

fn deny(context: &StageContext) -> Result<Counts> {
    let program = tools::ensure_cargo_deny(context.place)?;
    let mut command = context.place.unprivileged(program);
    command.args(["--locked", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]);
    stages::run(&mut command, Format::ExitStatus, &context.log)
}

fn tidy_stage(context: &StageContext) -> Result<Counts> {
    tidy::run(context.place)
}

fn unit(context: &StageContext) -> Result<Counts> {
    stages::run(context.place.cargo().args(["test", "--locked", "--workspace", "--no-fail-fast"]), Format::Cargo, &context.log)
}

/// Every test target that a feature holds back, because it needs a program that cargo does not build; all of them get all of the programs.
fn real(context: &StageContext) -> Result<Counts> {
    let place = context.place;
    let tools = tools::ensure_sandbox_tools(place, false)?;
    let said = progress::output(place.cargo().args(["metadata", "--locked", "--no-deps", "--format-version", "1"]))?;
    let held_back = held_back_tests(&said)?;
    let mut command = place.cargo();
    // The whole workspace, narrowed by the names of the tests: another choice of packages would be another choice of features, and would
    // build half of the dependencies anew.
    command.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    for test in &held_back {
        command.args(["--test", &test.name, "--features", &test.features]);
    }
    command
        .env("FRAUDPIPELINE_KUBEBOX", &tools.kubebox)
        .env("FRAUDPIPELINE_HELM", &tools.helm)
        .env("FRAUDPIPELINE_KAFKA_LIBS", &tools.kafka_libs);
    command.env("ORT_DYLIB_PATH", &tools.onnxruntime);
    stages::run(&mut command, Format::Cargo, &context.log)
}

#[derive(Debug, PartialEq, Eq)]
struct HeldBack {
    name: String,
    /// As cargo takes them for several packages at once: `package/feature`, separated by commas.
    features: String,
}

fn held_back_tests(metadata: &str) -> Result<Vec<HeldBack>> {
    let metadata: serde_json::Value = serde_json::from_str(metadata).context("cargo metadata says no JSON")?;
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_string();
    let mut tests = Vec::new();
    for package in list(&metadata["packages"]) {
        let package_name = text(&package["name"]);
        for target in list(&package["targets"]) {
            let features: Vec<String> =
                list(&target["required-features"]).iter().map(|feature| format!("{package_name}/{}", text(feature))).collect();
            if !features.is_empty() && list(&target["kind"]).iter().any(|kind| kind == "test") {
                tests.push(HeldBack { name: text(&target["name"]), features: features.join(",") });
            }
        }
    }
    anyhow::ensure!(!tests.is_empty(), "no test target has required-features: this stage would test nothing");
    Ok(tests)
}

/// On instances of its own, which it removes.
fn sandbox_selftest(context: &StageContext) -> Result<Counts> {
    let tools = tools::ensure_sandbox_tools(context.place, false)?;
    images::ensure_sandbox_only(context.place, &tools)?;
    let mut command = sandbox::program(context.place);
    command.arg("selftest").arg("--tools").arg(images::toolbox_path(context.place));
    stages::run(&mut command, Format::Checks, &context.log)
}

fn end_to_end(context: &StageContext) -> Result<Counts> {
    let arguments = context.arguments;
    e2e::run(context.place, &context.log, &e2e::Options { keep: arguments.keep, part: arguments.part.as_deref() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(quick: bool, only: Option<&str>, from: Option<&str>) -> Arguments {
        Arguments { quick, only: only.map(str::to_string), from: from.map(str::to_string), keep: false, part: None }
    }

    #[test]
    fn stages_are_chosen_by_name_and_an_unknown_name_lists_the_known_ones() {
        let names = |arguments: &Arguments| choose(arguments).unwrap().iter().map(|stage| stage.name).collect::<Vec<_>>();
        assert_eq!(names(&arguments(true, Some("clippy"), None)), ["clippy"]);
        assert_eq!(names(&arguments(true, None, Some("clippy")))[..2], ["clippy", "unit"]);
        let error = choose(&arguments(false, Some("klippy"), None)).err().unwrap().to_string();
        assert!(error.contains("no stage is called klippy: choose one of fmt, tidy"), "{error}");
    }

    #[test]
    fn tests_that_need_a_feature_are_found_with_it() {
        let metadata = r#"{"packages": [
            {"name": "kafka", "targets": [
                {"name": "kafka", "kind": ["lib"]},
                {"name": "broker", "kind": ["test"], "required-features": ["broker-tests"]},
                {"name": "tool", "kind": ["bin"], "required-features": ["cli"]}]},
            {"name": "tidy", "targets": [{"name": "plain", "kind": ["test"]}]}]}"#;
        let expected = HeldBack { name: "broker".to_string(), features: "kafka/broker-tests".to_string() };
        assert_eq!(held_back_tests(metadata).unwrap(), [expected]);
        assert!(held_back_tests(r#"{"packages": []}"#).is_err());
    }

    #[test]
    fn one_failed_stage_fails_the_run() {
        let outcome = |failed| Outcome { name: "unit", counts: Counts { passed: 2, failed }, took: Duration::from_secs(1) };
        assert!(conclude(&[outcome(0), outcome(0)]).is_ok());
        assert!(conclude(&[outcome(0), outcome(1)]).is_err());
    }
}
