//! Many payments of one card at once, over several pods: what an attacker does who has a stolen card and a minute.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::redis_server::RedisServer;
use bench::report::Figures;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::contender::Contender;
use crate::ours::now_ms;
use crate::workload::Workload;

pub const PODS: usize = 4;

#[derive(Debug, Clone, Copy)]
pub struct Burst {
    pub payments: u64,
    pub within: Duration,
}

impl Default for Burst {
    fn default() -> Self {
        Self { payments: 50, within: Duration::from_millis(50) }
    }
}

impl Burst {
    /// Sends the payments of one customer's card to the pods in turn, evenly spread, and gives the counts that the decisions saw, sorted.
    ///
    /// # Errors
    /// When a decision fails.
    pub async fn run<C: Contender>(self, pods: &[Arc<C>], customer: u64) -> Result<Vec<u64>> {
        let workload = Workload::new(customer + 1, 0, Duration::ZERO, now_ms())?;
        let mut decisions = JoinSet::new();
        let began = Instant::now();
        for (n, pod) in (0..self.payments).zip(pods.iter().cycle()) {
            let (pod, workload) = (pod.clone(), workload.clone());
            let due = self.within.mul_f64(n as f64 / self.payments as f64);
            decisions.spawn(async move {
                tokio::time::sleep_until(began + due).await;
                pod.decide(&workload.payment(customer, n, now_ms())).await
            });
        }
        let mut counts = decisions.join_all().await.into_iter().collect::<Result<Vec<u64>>>()?;
        counts.sort_unstable();
        Ok(counts)
    }
}

/// Many bursts, each of another card, over pods that share a Redis of their own.
///
/// # Errors
/// When Redis or a pod cannot be started, or a decision fails.
pub async fn measure<C: Contender>(connect: impl AsyncFn(u16) -> Result<C>, bursts: u64) -> Result<Figures> {
    let redis = RedisServer::start(&[])?;
    let mut pods = Vec::new();
    for _ in 0..PODS {
        pods.push(Arc::new(connect(redis.port()).await?));
    }
    let (burst, mut missed, mut last_min) = (Burst::default(), 0_u64, u64::MAX);
    let mut longest = Duration::ZERO;
    for customer in 0..bursts {
        let began = Instant::now();
        let counts = burst.run(&pods, customer).await?;
        longest = longest.max(began.elapsed());
        missed += u64::from(check(&counts).is_err());
        last_min = last_min.min(counts.last().copied().unwrap_or_default());
    }
    let list = [
        ("bursts", bursts as f64),
        ("bursts_missed", missed as f64),
        ("payments_per_burst", burst.payments as f64),
        ("last_count_min", last_min as f64),
        ("longest_burst_ms", longest.as_secs_f64() * 1_000.0),
    ];
    Ok(list.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

/// Whether no decision was blind to those before it: sorted ascending, the i-th count is at least i, and the last is the number of payments.
///
/// # Errors
/// With the first decision that saw too few, or the last that saw a wrong total.
pub fn check(sorted_counts: &[u64]) -> Result<()> {
    for (expected, count) in (1..).zip(sorted_counts) {
        ensure!(*count >= expected, "decision {expected} of {} saw {count} payments", sorted_counts.len());
    }
    let last = sorted_counts.last().context("the burst had no payments")?;
    ensure!(*last == sorted_counts.len() as u64, "the last of {} decisions saw {last} payments", sorted_counts.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_seen_whole_or_the_blind_decision_is_named() {
        check(&[1, 2, 3]).unwrap();
        check(&[3, 3, 3]).unwrap();
        assert!(check(&[1, 1, 3]).unwrap_err().to_string().contains("decision 2 of 3 saw 1"));
        assert!(check(&[1, 2, 4]).unwrap_err().to_string().contains("saw 4"));
        assert!(check(&[]).is_err());
    }
}
