//! Feast's online store on Redis. Its client is a program of its own, in Python; it says when a phase begins, and here the cost of Redis is read.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench::process::cpu_time;
use bench::redis_server::RedisServer;
use bench::report::Figures;
use serde::Deserialize;

use crate::workload::{ENTITIES, Workload};

const CLIENT: &str = include_str!("../peers/feast_client.py");

/// A line of the client.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(untagged)]
enum Said {
    Phase { at: String },
    Result { decisions: u64, figures: Figures },
}

/// What was read from Redis when phases began and ended.
#[derive(Debug, Default)]
struct Readings {
    empty_bytes: u64,
    filled_bytes: u64,
    holding_cpu: Duration,
    held_cpu: Duration,
}

/// # Errors
/// When the client cannot be started, fails, or reads something else than it has written.
pub fn measure(python: &Path, workload: &Workload, measured: Duration) -> Result<Figures> {
    let redis = RedisServer::start(&[])?;
    let folder = tempfile::Builder::new().prefix("fraudpipeline-bench-").tempdir().context("cannot make a folder for Feast's client")?;
    let client = folder.path().join("feast_client.py");
    std::fs::write(&client, CLIENT).with_context(|| format!("cannot write {}", client.display()))?;
    let arguments = [
        ("--port", redis.port().to_string()),
        ("--customers", workload.customers.to_string()),
        ("--events", workload.history_events.to_string()),
        ("--seconds", measured.as_secs_f64().to_string()),
    ];
    let mut command = Command::new(python);
    command.arg(&client).args(arguments.iter().flat_map(|(name, value)| [*name, value.as_str()]));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut running = Running(child.with_context(|| format!("cannot start {}: `cargo xtask tools feast` builds it", python.display()))?);
    let stdout = running.0.stdout.take().context("the client of Feast has no output")?;
    let (mut readings, mut result) = (Readings::default(), None);
    for line in BufReader::new(stdout).lines() {
        let line = line.context("cannot read what the client of Feast says")?;
        match serde_json::from_str(&line).with_context(|| format!("the client of Feast said {line:?}"))? {
            Said::Phase { at } => readings.take(&at, &redis)?,
            Said::Result { decisions, figures } => result = Some((decisions, figures)),
        }
    }
    let status = running.0.wait().context("cannot wait for the client of Feast")?;
    let Some((decisions, figures)) = result.filter(|_| status.success()) else {
        bail!("the client of Feast failed ({status}); what it said is above");
    };
    Ok(readings.figures(workload, decisions, figures))
}

impl Readings {
    fn take(&mut self, phase: &str, redis: &RedisServer) -> Result<()> {
        match phase {
            "ready" => self.empty_bytes = redis.stored_bytes()?,
            "filled" => self.filled_bytes = redis.stored_bytes()?,
            "holding" => self.holding_cpu = cpu_time(redis.pid())?,
            "held" => self.held_cpu = cpu_time(redis.pid())?,
            other => bail!("the client of Feast is in an unknown phase {other}"),
        }
        Ok(())
    }

    fn figures(&self, workload: &Workload, decisions: u64, mut figures: Figures) -> Figures {
        let bytes = self.filled_bytes.saturating_sub(self.empty_bytes) as f64;
        let cpu_us = self.held_cpu.saturating_sub(self.holding_cpu).as_secs_f64() * 1e6;
        figures.insert("bytes_per_key".to_string(), bytes / workload.keys() as f64);
        figures.insert("bytes_per_event".to_string(), bytes / (workload.keys() * workload.history_events) as f64);
        figures.insert("redis_cpu_us_per_entity".to_string(), cpu_us / (decisions * ENTITIES) as f64);
        figures
    }
}

/// Ends the client with the benchmark.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Usually it has ended by itself, and there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_announces_phases_and_ends_with_figures() {
        let said = |line: &str| serde_json::from_str::<Said>(line).unwrap();
        assert_eq!(said(r#"{"at": "filled"}"#), Said::Phase { at: "filled".to_string() });
        let figures = Figures::from([("p50_ms".to_string(), 1.5)]);
        assert_eq!(said(r#"{"decisions": 3, "figures": {"p50_ms": 1.5}}"#), Said::Result { decisions: 3, figures });
    }

    #[test]
    fn costs_are_shared_among_entities_and_events() {
        let workload = Workload::new(10, 20, Duration::from_secs(1), 0).unwrap();
        let readings =
            Readings { empty_bytes: 1_000, filled_bytes: 21_000, holding_cpu: Duration::ZERO, held_cpu: Duration::from_millis(1) };
        let figures = readings.figures(&workload, 4, Figures::new());
        assert_eq!((figures["bytes_per_key"], figures["bytes_per_event"], figures["redis_cpu_us_per_entity"]), (400.0, 20.0, 50.0));
    }
}
