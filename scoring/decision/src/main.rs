//! The decision service. Everything is in the library; this only reads the command line.
#![forbid(unsafe_code)]

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Parser;
use scoring_decision::{app, standalone};

/// Decides on payments: approve, review or decline, inside a deadline, whatever is broken.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    /// Configuration, as the operator writes it
    #[arg(long, value_name = "FILE", required_unless_present = "standalone", requires = "plan")]
    config: Option<PathBuf>,

    /// Plan of the pipeline as seen from this region; read again when it changes
    #[arg(long, value_name = "FILE", required_unless_present = "standalone", requires = "config")]
    plan: Option<PathBuf>,

    /// Runs with nothing else: features in memory, example models and rules, no Kafka; for trying out
    #[arg(long, conflicts_with_all = ["config", "plan"])]
    standalone: bool,

    /// Address of gRPC, only with --standalone
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443", conflicts_with = "config")]
    grpc: SocketAddr,

    /// Address of REST, only with --standalone
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", conflicts_with = "config")]
    rest: SocketAddr,

    /// Address of metrics and health, only with --standalone
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090", conflicts_with = "config")]
    admin: SocketAddr,

    /// error, warn, info, debug or trace; the environment variable RUST_LOG wins
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

const EXAMPLES: &str = "\
Examples:
  Try it out:
    scoring-decision --standalone
  As the operator starts it:
    scoring-decision --config config.yaml --plan plan.yaml";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scoring-decision: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    process::logs::init("scoring-decision", &arguments.log_level)?;
    let stop = process::shutdown::on_signal()?;
    match (arguments.config, arguments.plan) {
        (Some(config), Some(plan)) => app::run(&config, &plan, stop).await,
        _ => {
            let listen = scoring_decision::config::Listen { grpc: arguments.grpc, rest: arguments.rest, admin: arguments.admin };
            standalone::run(listen, stop).await
        }
    }
}

/// The chain of causes, without those that the error before has already told.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        before if before.contains(&cause) => told,
        before => format!("{before}: {cause}"),
    })
}
