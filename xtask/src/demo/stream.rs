//! The payment stream of a demo: starts `fraud-payments`, follows what it says each second, and ends it in order. Runs one child process.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::regions::Region;
use crate::place::Place;
use crate::progress;

/// The example's node port for gRPC.
const GRPC_PORT: u16 = 30443;
/// Nobody sends a region its full traffic from one moment to the next.
const RAMP: &str = "5s";
/// Requests that were sent are still waited for; then the summary is written.
const END_MAX: Duration = Duration::from_secs(30);

/// One line of what the stream prints each second.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Progress {
    pub(crate) t_s: f64,
    pub(crate) decisions: u64,
    pub(crate) decisions_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) unanswered: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// What the stream writes when it ends, as far as the demo's summary takes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Ended {
    pub(crate) decisions: u64,
    pub(crate) decisions_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) unanswered: u64,
    pub(crate) latency_ms: EndedLatency,
    pub(crate) full_share: Option<f64>,
    pub(crate) quality: Option<EndedQuality>,
    pub(crate) seconds_to_first_decision: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct EndedLatency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct EndedQuality {
    pub(crate) recall: Option<f64>,
    pub(crate) false_positive_rate: Option<f64>,
    pub(crate) amount_only_recall: Option<f64>,
}

/// Where the stream leaves its files.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) summary: PathBuf,
    pub(crate) ledger: PathBuf,
}

pub(crate) struct Stream {
    child: Child,
    latest: Arc<Mutex<Progress>>,
    pub(crate) started: Instant,
    files: Files,
}

/// Customers, merchants and thieves of this stream alone. Those of an earlier stream have a history in the feature store, in which a
/// day passed within a minute, and what they do next would look like nothing that the model has learned. Training has seeds below 1,000.
/// Streams that start within one second differ too: their payments meet in the same logs.
fn seed_of_its_own() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_secs());
    NEXT.fetch_max(now_s, Ordering::Relaxed);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Stream {
    /// Files of an earlier stream go first, so that what is there afterwards is of this one.
    pub(crate) fn start(place: &Place, target: &Region, rate: u32, lasting: Duration, files: Files) -> Result<Self> {
        for file in [&files.summary, &files.ledger] {
            if file.exists() {
                std::fs::remove_file(file).with_context(|| format!("cannot replace {}", file.display()))?;
            }
        }
        let seed = seed_of_its_own();
        progress::note(&format!("seed of the payments: {seed}"));
        let mut command = place.unprivileged(place.binary("fraud-payments"));
        command
            .args(["stream", "--progress-json", "--seed", &seed.to_string()])
            .args(["--target", &format!("http://{}:{GRPC_PORT}", target.node_address)])
            .args(["--rate", &rate.to_string(), "--ramp", RAMP, "--for", &format!("{}s", lasting.as_secs())])
            .arg("--ledger")
            .arg(&files.ledger)
            .arg("--out")
            .arg(&files.summary);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start fraud-payments")?;
        let latest = Arc::new(Mutex::new(Progress::default()));
        if let Some(stdout) = child.stdout.take() {
            let latest = Arc::clone(&latest);
            std::thread::spawn(move || {
                for progress in BufReader::new(stdout).lines().map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()) {
                    *latest.lock().unwrap_or_else(PoisonError::into_inner) = progress;
                }
            });
        }
        Ok(Self { child, latest, started: Instant::now(), files })
    }

    pub(crate) fn latest(&self) -> Progress {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("cannot wait for fraud-payments")?.is_some())
    }

    /// Ends the stream if it still runs, and reads what it measured.
    pub(crate) fn end(mut self) -> Result<Ended> {
        if !self.has_ended()? {
            self.ask_to_end();
        }
        let deadline = Instant::now() + END_MAX;
        while !self.has_ended()? {
            if Instant::now() >= deadline {
                bail!("fraud-payments does not end within {} s of being asked to", END_MAX.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let path = &self.files.summary;
        let bytes = std::fs::read(path).with_context(|| format!("fraud-payments left no {}; its message is above", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{} is not what fraud-payments should write", path.display()))
    }

    fn ask_to_end(&self) {
        // A failure means that it has just ended by itself, which is what was asked for.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).stderr(Stdio::null()).status();
    }
}

/// No stream outlives the demo, however that ends.
impl Drop for Stream {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_start_together_have_different_seeds() {
        let seeds: std::collections::BTreeSet<u64> = (0..10).map(|_| seed_of_its_own()).collect();
        assert_eq!(seeds.len(), 10);
    }
}
