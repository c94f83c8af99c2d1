//! `fraud-chaos`: drills, and the audit of logs.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use chaos::{
    audit::{self, Report},
    drill::{self, Setting},
    ledger,
    logs::{Records, RegionLogs},
    result::DrillResult,
    sandbox::Sandbox,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::topics::Topic;
use serde::Serialize;

#[derive(Parser)]
#[command(
    name = "fraud-chaos",
    version,
    about = "Drills against a pipeline, and the audit of its logs",
    after_help = "Examples:\n  fraud-chaos audit --region us-east=198.18.0.1:9092 --region eu-west=198.18.16.1:9092 --ledger ledger.jsonl --out audit.json\n  cargo xtask sandbox drill region-kill --runs 1\n\nExit codes: 0 the drill passed, the logs are equal and nothing acknowledged is lost; 1 not so, or the command failed; 2 wrong arguments."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read the logs of all regions and compare them with each other and with a ledger
    Audit(AuditArguments),
    /// Run a drill in the sandbox and write target/drill/SCENARIO.json
    Drill(DrillArguments),
}

#[derive(Args)]
struct AuditArguments {
    /// A region and its Kafka: REGION=HOST:PORT; once for each region
    #[arg(long = "region", required = true)]
    regions: Vec<RegionLogs>,
    #[arg(long, default_value = "fraud")]
    topic_prefix: String,
    /// What a client wrote with --ledger
    #[arg(long)]
    ledger: Option<PathBuf>,
    /// Seconds to wait for the mirrors to bring the regions to equality
    #[arg(long, default_value_t = 60)]
    settle: u64,
    /// Where to write the report as JSON [default: standard output]
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Scenario {
    /// Kill the active region under load
    RegionKill,
}

#[derive(Args)]
struct DrillArguments {
    scenario: Scenario,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// The sandbox program
    #[arg(long)]
    sandbox: PathBuf,
    #[arg(long, default_value = "default")]
    instance: String,
    /// Folder of all sandboxes
    #[arg(long, default_value = "/var/lib/fraudpipeline")]
    state: PathBuf,
    /// The fraud-payments program
    #[arg(long)]
    payments: PathBuf,
    #[arg(long, default_value = "fraud")]
    namespace: String,
    #[arg(long, default_value = "payments")]
    pipeline: String,
    #[arg(long, default_value = "fraud")]
    topic_prefix: String,
    /// Payments per second
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Node port of the decision service's gRPC
    #[arg(long, default_value_t = 30443)]
    grpc_port: u16,
    /// Seconds of traffic before the fault
    #[arg(long, default_value_t = 10)]
    baseline: u64,
    /// Seconds that the fault lasts
    #[arg(long, default_value_t = 30)]
    fault: u64,
    #[arg(long, default_value = "target/drill")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Audit(arguments) => run_audit(&arguments),
        Command::Drill(arguments) => run_drill(&arguments),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `audit.json`: one report for each kind of record.
#[derive(Serialize)]
struct AuditFile {
    events: Report,
    decisions: Report,
}

fn run_audit(arguments: &AuditArguments) -> anyhow::Result<bool> {
    let entries = arguments.ledger.as_deref().map(ledger::read).transpose()?;
    let deadline = Instant::now() + Duration::from_secs(arguments.settle);
    let file = loop {
        let report = |topic, records| -> anyhow::Result<Report> {
            let logs = drill::read_all(&arguments.regions, &arguments.topic_prefix, topic, records)?;
            Ok(audit::compare(&logs, entries.as_ref()))
        };
        let file =
            AuditFile { events: report(Topic::EventsRaw, Records::Events)?, decisions: report(Topic::Decisions, Records::Decisions)? };
        if (file.events.equal && file.decisions.equal) || Instant::now() >= deadline {
            break file;
        }
        thread::sleep(Duration::from_secs(1));
    };
    let text = serde_json::to_string_pretty(&file)? + "\n";
    match &arguments.out {
        Some(path) => fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?,
        None => print!("{text}"),
    }
    let whole = |report: &Report| report.equal && report.lost_for_good == 0;
    Ok(whole(&file.events) && whole(&file.decisions))
}

fn run_drill(arguments: &DrillArguments) -> anyhow::Result<bool> {
    let setting = Setting {
        sandbox: Sandbox { program: arguments.sandbox.clone(), state: arguments.state.clone(), instance: arguments.instance.clone() },
        namespace: arguments.namespace.clone(),
        pipeline: arguments.pipeline.clone(),
        topic_prefix: arguments.topic_prefix.clone(),
        payments: arguments.payments.clone(),
        folder: arguments.out.clone(),
        rate: arguments.rate,
        grpc_port: arguments.grpc_port,
        baseline: Duration::from_secs(arguments.baseline),
        fault: Duration::from_secs(arguments.fault),
    };
    let mut runs = Vec::new();
    for number in 1..=arguments.runs {
        let run = match arguments.scenario {
            Scenario::RegionKill => drill::region_kill(&setting, number)?,
        };
        println!("run {number} of {}: {}", arguments.runs, serde_json::to_string(&run)?);
        runs.push(run);
    }
    let counted = runs.iter().fold(BTreeMap::<String, u32>::new(), |mut counts, run| {
        *counts.entry(format!("{:?}", run.verdict)).or_default() += 1;
        counts
    });
    let result = DrillResult::of("region-kill", runs);
    let path = result.write(&arguments.out)?;
    println!("{counted:?}; details in {}", path.display());
    Ok(result.passed())
}
