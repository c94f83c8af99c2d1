//! The inference service's binary: arguments, logs, and the exit code.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Parser;
use scoring_inference::{config::Config, run};

/// Scores feature vectors with an ONNX model, over the Open Inference Protocol (gRPC and REST).
#[derive(Debug, Parser)]
#[command(
    name = "scoring-inference",
    version,
    after_help = "Examples:\n  scoring-inference --config /etc/fraudpipeline/config.yaml\n  ORT_DYLIB_PATH=/opt/onnxruntime/lib/libonnxruntime.so scoring-inference --config config.yaml\n\nA change of the configuration's model section takes effect without a restart. The model in service stays until the new one has passed all checks."
)]
struct Args {
    /// The configuration, in YAML.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Least severe messages to log: error, warn, info, debug, trace, or a filter.
    #[arg(long, default_value = "info")]
    log: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = process::logs::init("scoring-inference", &args.log) {
        eprintln!("error: {error}");
        return ExitCode::from(2);
    }
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn serve(args: &Args) -> anyhow::Result<()> {
    // Two TLS implementations are linked; whoever connects first would have to guess.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("TLS provider was installed already");
    }
    let config: Config = process::config::load(&args.config)?;
    let grace = config.shutdown_grace;
    let stop = process::shutdown::on_signal().context("cannot install signal handlers")?;
    let running = run(config, &args.config, stop.clone()).await?;
    tracing::info!(grpc = %running.grpc, rest = %running.rest, admin = %running.admin, "listening");
    let finished = tokio::spawn(running.finish());
    stop.cancelled().await;
    match tokio::time::timeout(grace, finished).await {
        Ok(_) => tracing::info!("stopped"),
        Err(_) => tracing::warn!("not all requests were answered within shutdown_grace"),
    }
    Ok(())
}
