//! The feature builder. Everything is in the library; this only reads the command line.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use scoring_builder::app;

/// Folds the event logs into the feature store while this region is the active one.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration, as the operator writes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Plan of the pipeline as seen from this region; read again when it changes
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,

    /// error, warn, info, debug or trace; the environment variable RUST_LOG wins
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

const EXAMPLES: &str = "\
Examples:
  In a pod:
    scoring-builder --config /etc/fraudpipeline/config/config.yaml --plan /etc/fraudpipeline/plan/plan.yaml
  See every batch:
    scoring-builder --config config.yaml --plan plan.yaml --log-level debug";

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scoring-builder: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    process::logs::init("scoring-builder", &arguments.log_level)?;
    let stop = process::shutdown::on_signal()?;
    app::run(&arguments.config, &arguments.plan, stop).await
}
