//! How far the feature stores of the following regions are behind the active one, measured from outside: the position of a primary is noted, and each copy is
//! asked until it has reached it. What is measured includes the asking, so the figures are upper bounds. Runs `redis-cli`.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::regions::{NAMESPACE, PIPELINE, Region, Sandbox};
use crate::progress;

/// The example exposes shard k on this node port plus k.
const SHARD_PORT: u16 = 30400;
const EVERY: Duration = Duration::from_secs(5);
/// A copy that has not caught up by then counts with this much.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// May look at its server and at nothing else.
const USER: &str = "probe";

/// The largest lag seen so far, in seconds, by region.
type Worst = BTreeMap<String, f64>;

/// Measures in the background until it is stopped.
pub(super) struct Watch {
    worst: Arc<Mutex<Worst>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Shard {
    number: u16,
    active: Region,
    followers: Vec<Region>,
    password: String,
}

impl Watch {
    pub(super) fn start(sandbox: &Sandbox, active: &str, shards: u16) -> Result<Self> {
        let active = sandbox.region(active)?.clone();
        let password = password(sandbox, &active)?;
        let followers: Vec<Region> = sandbox.description.regions.iter().filter(|region| region.name != active.name).cloned().collect();
        let shards: Vec<Shard> = (0..shards)
            .map(|number| Shard { number, active: active.clone(), followers: followers.clone(), password: password.clone() })
            .collect();
        let (worst, stop) = (Arc::new(Mutex::new(Worst::new())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (worst, stop) = (Arc::clone(&worst), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for (region, lag_s) in shards.iter().flat_map(Shard::measure) {
                        let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
                        let entry = worst.entry(region).or_default();
                        *entry = entry.max(lag_s);
                    }
                    std::thread::sleep(EVERY);
                }
            }
        });
        Ok(Self { worst, stop, thread })
    }

    /// The worst lag of each region that could be measured at all; one that could not is absent.
    pub(super) fn stop(self) -> Worst {
        self.stop.store(true, Ordering::Relaxed);
        // The thread does not panic; if it did, what it has measured so far is still there.
        let _ = self.thread.join();
        self.worst.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shard {
    fn measure(&self) -> Vec<(String, f64)> {
        let Some(position) = self.offset_at(&self.active) else { return Vec::new() };
        let noted = Instant::now();
        self.followers.iter().filter_map(|follower| Some((follower.name.clone(), self.time_until(follower, position, noted)?))).collect()
    }

    /// Seconds until the copy had reached the position; nothing if it never answered.
    fn time_until(&self, follower: &Region, position: u64, noted: Instant) -> Option<f64> {
        let mut answered = false;
        while noted.elapsed() < WAIT_MAX {
            if let Some(offset) = self.offset_at(follower) {
                answered = true;
                if offset >= position {
                    break;
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        answered.then(|| noted.elapsed().as_secs_f64())
    }

    fn offset_at(&self, region: &Region) -> Option<u64> {
        let mut command = Command::new("redis-cli");
        command
            .args([
                "-h",
                &region.node_address.to_string(),
                "-p",
                &(SHARD_PORT + self.number).to_string(),
                "--user",
                USER,
                "INFO",
                "replication",
            ])
            // On the command line everybody could read it.
            .env("REDISCLI_AUTH", &self.password)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let output = command.output().ok()?;
        replication_offset(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Of a primary its own position, of a copy how far it has come; nothing of a copy without a primary, whose position means nothing.
fn replication_offset(info: &str) -> Option<u64> {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    match field("role")? {
        "master" => field("master_repl_offset")?.parse().ok(),
        "slave" if field("master_link_status") == Some("up") => field("slave_repl_offset")?.parse().ok(),
        _ => None,
    }
}

fn password(sandbox: &Sandbox, region: &Region) -> Result<String> {
    let template = format!("go-template={{{{index .data \"{USER}.password\" | base64decode}}}}");
    let mut command = sandbox.kubectl(region);
    command.args(["--namespace", NAMESPACE, "get", "secret", &format!("{PIPELINE}-redis"), "--output", &template]);
    progress::output(&mut command).context("cannot read the password of the feature store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_without_a_primary_has_no_position() {
        let primary = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nmaster_repl_offset:4711\r\n";
        assert_eq!(replication_offset(primary), Some(4711));
        let copy = "role:slave\r\nmaster_host:198.18.0.1\r\nmaster_link_status:up\r\nslave_repl_offset:4700\r\nmaster_repl_offset:4700\r\n";
        assert_eq!(replication_offset(copy), Some(4700));
        assert_eq!(replication_offset(&copy.replace("status:up", "status:down")), None);
        assert_eq!(replication_offset("NOAUTH Authentication required.\n"), None);
    }
}
