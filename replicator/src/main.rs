//! The replicator's binary: arguments, logs, and the exit code.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use process::plan::PlanWatch;
use replicator_runtime::{config::Config, run};

/// Pulls another region's topics into this region's Kafka, exactly once.
#[derive(Debug, Parser)]
#[command(
    name = "replicator",
    version,
    after_help = "Example:\n  replicator --config /etc/fraudpipeline/config.yaml --plan /etc/fraudpipeline/plan/plan.yaml\n\nHow far it is: GET /positions on the admin port. Only one replicator of an origin works at a time; a second one takes over from the first."
)]
struct Args {
    /// The configuration, in YAML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The plan of this region, in YAML; followed while the process runs.
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// Least severe messages to log: error, warn, info, debug, trace, or a filter.
    #[arg(long, default_value = "info")]
    log: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = process::logs::init("replicator", &args.log) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    match mirror(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn mirror(args: &Args) -> anyhow::Result<()> {
    let config: Config = process::config::load(&args.config)?;
    let grace = config.shutdown_grace;
    let stop = process::shutdown::on_signal().context("cannot install signal handlers")?;
    let plan = PlanWatch::follow(&args.plan, stop.clone())?;
    let mut running = tokio::spawn(run(config, plan, stop.clone()));
    tokio::select! {
        ended = &mut running => return Ok(ended.context("the replicator panicked")??),
        () = stop.cancelled() => {}
    }
    match tokio::time::timeout(grace, running).await {
        Ok(ended) => ended.context("the replicator panicked")??,
        Err(_) => tracing::warn!("not finished within shutdown_grace; what was open is mirrored after the next start"),
    }
    Ok(())
}
