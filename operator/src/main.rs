//! The operator's binary: arguments, logs, and the exit code. Everything else is in the library.
#![forbid(unsafe_code)]

mod arguments;

use std::{
    io::{ErrorKind, Write as _},
    process::ExitCode,
};

use anyhow::Context as _;
use arguments::{Arguments, Command, RunArguments};
use clap::Parser;
use operator_runtime::{RunError, config::OperatorConfig};

/// The lease was lost: started again, the process waits for its turn.
const LEASE_LOST: u8 = 3;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (arguments.command, arguments.run) {
        (Some(Command::Render(render)), _) => render.text().and_then(|text| print(&text)),
        (None, Some(run)) => start(&run),
        (None, None) => Err(anyhow::anyhow!("--config is needed: see --help")),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("fraud-operator: {error:#}");
    if error.is::<RunError>() && matches!(error.downcast_ref(), Some(RunError::LeaseLost)) {
        // Nothing may be written any more, so nothing is waited for.
        std::process::exit(LEASE_LOST.into());
    }
    ExitCode::FAILURE
}

/// A reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("cannot write to standard output"),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn start(run: &RunArguments) -> anyhow::Result<()> {
    let config: OperatorConfig = process::config::load(&run.config)?;
    process::logs::init("fraud-operator", &config.log_level)?;
    config.check().with_context(|| format!("{} cannot be used", run.config.display()))?;
    // Two TLS implementations are linked; whoever connects first would have to guess.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("TLS provider was installed already");
    }
    let stop = process::shutdown::on_signal().context("cannot install signal handlers")?;
    operator_runtime::run(config, run.identity(), stop).await?;
    Ok(())
}
