//! Waits, for a while, until the machine has done what starting three clusters leaves behind: image imports, controllers' first lists, compilers of the
//! JVMs. The stream measures the pipeline; without this wait its first seconds would measure the start of Kubernetes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{interrupt, progress};

const SETTLED_MAX: Duration = Duration::from_secs(30);
const SAMPLE: Duration = Duration::from_secs(2);
/// The three idle clusters take about a fifth of two cores.
const BUSY_SHARE_MAX: f64 = 0.4;

/// Time that the processors of this machine spent, in ticks since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spent {
    busy: u64,
    idle: u64,
}

/// Never fails for a machine that stays busy: the stream then starts all the same, and its figures say how it went.
pub(crate) fn wait() -> Result<()> {
    let deadline = Instant::now() + SETTLED_MAX;
    let mut before = spent()?;
    loop {
        std::thread::sleep(SAMPLE);
        interrupt::check()?;
        let now = spent()?;
        let share = now.busy_share_since(before);
        if share <= BUSY_SHARE_MAX {
            return Ok(());
        }
        if Instant::now() >= deadline {
            progress::note(&format!("processors are still {:.0} % busy; starting all the same", share * 100.0));
            return Ok(());
        }
        before = now;
    }
}

fn spent() -> Result<Spent> {
    let text = std::fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    Spent::parse(&text).context("/proc/stat has no line of all processors")
}

impl Spent {
    /// Columns of proc(5): user, nice, system, idle, iowait, irq, softirq, steal; what follows is part of user and nice.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> = line.split_whitespace().map_while(|number| number.parse().ok()).take(8).collect();
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { busy: ticks.iter().sum::<u64>().saturating_sub(idle), idle })
    }

    fn busy_share_since(self, before: Self) -> f64 {
        let busy = self.busy.saturating_sub(before.busy) as f64;
        let idle = self.idle.saturating_sub(before.idle) as f64;
        if busy + idle > 0.0 { busy / (busy + idle) } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busy_share_counts_waiting_for_disks_as_idle_and_guests_once() {
        let before = Spent::parse("cpu  100 0 50 800 50 0 0 0 70 0\ncpu0 1 1 1 1\n").unwrap();
        assert_eq!(before, Spent { busy: 150, idle: 850 });
        let now = Spent::parse("cpu  160 0 60 820 60 5 5 0 70 0\n").unwrap();
        assert!((now.busy_share_since(before) - 80.0 / 110.0).abs() < 1e-9);
        assert_eq!(Spent::parse("cpu0 1 1 1 1\n"), None);
    }
}
