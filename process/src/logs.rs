//! JSON logs on standard error, one object a line.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

#[derive(Debug, thiserror::Error)]
#[error("log level {level:?} is not understood: use error, warn, info, debug or trace, or a filter such as \"info,kube=warn\"")]
pub struct UnknownLevel {
    level: String,
}

/// Starts logging. Environment variable `RUST_LOG` wins over `level`.
///
/// # Errors
/// When the level is not a filter.
pub fn init(service: &'static str, level: &str) -> Result<(), UnknownLevel> {
    let asked = std::env::var("RUST_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = EnvFilter::try_new(&asked).map_err(|_| UnknownLevel { level: asked.chars().take(100).collect() })?;
    let lines = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).with_current_span(true);
    // A second call (in tests of one process) keeps the first subscriber.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    Ok(())
}
