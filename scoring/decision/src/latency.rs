//! Latency over a sliding window, cheap enough to be recorded for every request. Pure: the caller says when a second has passed.

use std::{
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    time::Duration,
};

/// Seconds that the window covers.
const SLOTS: usize = 30;
/// Four buckets for each doubling, from 50 microseconds to about 50 s: at most 19 % too high, never too low.
const BUCKETS: usize = 81;
const SMALLEST_SECONDS: f64 = 50e-6;

/// Counts by bucket for each of the last seconds.
#[derive(Debug)]
pub(crate) struct LatencyWindow {
    counts: Vec<[AtomicU32; BUCKETS]>,
    current: AtomicUsize,
}

impl Default for LatencyWindow {
    fn default() -> Self {
        Self { counts: (0..SLOTS).map(|_| [const { AtomicU32::new(0) }; BUCKETS]).collect(), current: AtomicUsize::new(0) }
    }
}

impl LatencyWindow {
    pub(crate) fn record(&self, latency: Duration) {
        let slot = self.current.load(Ordering::Relaxed) % SLOTS;
        self.counts[slot][bucket(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// To be called once a second: the oldest second is forgotten.
    pub(crate) fn tick(&self) {
        let next = (self.current.load(Ordering::Relaxed) + 1) % SLOTS;
        self.counts[next].iter().for_each(|count| count.store(0, Ordering::Relaxed));
        self.current.store(next, Ordering::Relaxed);
    }

    /// The upper bound, in seconds, of the latency of a share of the requests; 0 when there were none.
    pub(crate) fn quantile_seconds(&self, share: f64) -> f64 {
        let sums: Vec<u64> =
            (0..BUCKETS).map(|bucket| self.counts.iter().map(|slot| u64::from(slot[bucket].load(Ordering::Relaxed))).sum()).collect();
        let total: u64 = sums.iter().sum();
        if total == 0 {
            return 0.0;
        }
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts of half a minute
        let wanted = (total as f64 * share.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        let reached = sums.iter().position(|count| {
            seen += count;
            seen >= wanted.max(1)
        });
        upper_bound_seconds(reached.unwrap_or(BUCKETS - 1))
    }
}

fn upper_bound_seconds(bucket: usize) -> f64 {
    #[allow(clippy::cast_precision_loss)] // at most 80
    let quarters = bucket as f64;
    SMALLEST_SECONDS * (quarters / 4.0).exp2()
}

fn bucket(latency: Duration) -> usize {
    let quarters = ((latency.as_secs_f64() / SMALLEST_SECONDS).log2() * 4.0).ceil();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates, and minus infinity becomes 0
    let bucket = quarters as usize;
    bucket.min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_at_most_a_fifth_too_high() {
        let window = LatencyWindow::default();
        (0..985).for_each(|_| window.record(Duration::from_millis(4)));
        (0..15).for_each(|_| window.record(Duration::from_millis(70)));
        let p99 = window.quantile_seconds(0.99);
        assert!((0.070..0.070 * 1.2).contains(&p99), "{p99}");
        let p50 = window.quantile_seconds(0.5);
        assert!((0.004..0.004 * 1.2).contains(&p50), "{p50}");
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let window = LatencyWindow::default();
        window.record(Duration::from_secs(2));
        (1..SLOTS).for_each(|_| window.tick());
        assert!(window.quantile_seconds(0.99) > 1.9);
        window.tick();
        assert!(window.quantile_seconds(0.99) < f64::EPSILON);
    }

    #[test]
    fn extreme_latencies_have_a_bucket() {
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }
}
