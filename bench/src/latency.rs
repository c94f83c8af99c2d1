//! Latencies of one run. Pure.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Kept to three digits, from one microsecond to ten minutes; what is longer counts as ten minutes.
const LONGEST: Duration = Duration::from_secs(600);
const DIGITS: u8 = 3;

#[derive(Debug, Clone)]
pub struct Latencies {
    nanoseconds: Histogram<u64>,
}

impl Latencies {
    /// # Errors
    /// Never: the bounds are constants that the histogram accepts.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { nanoseconds: Histogram::new_with_bounds(1_000, as_ns(LONGEST), DIGITS)? })
    }

    pub fn record(&mut self, latency: Duration) {
        self.record_many(latency, 1);
    }

    pub fn record_many(&mut self, latency: Duration, times: u64) {
        // The histogram would take note of the value as its largest even if it came no time at all.
        if times > 0 {
            self.nanoseconds.saturating_record_n(as_ns(latency.min(LONGEST)), times);
        }
    }

    pub fn count(&self) -> u64 {
        self.nanoseconds.len()
    }

    /// The latency that `share` of all stay within, in milliseconds; 0 when nothing was recorded.
    pub fn quantile_ms(&self, share: f64) -> f64 {
        self.nanoseconds.value_at_quantile(share) as f64 / 1e6
    }

    pub fn p50_ms(&self) -> f64 {
        self.quantile_ms(0.5)
    }

    pub fn p99_ms(&self) -> f64 {
        self.quantile_ms(0.99)
    }

    pub fn max_ms(&self) -> f64 {
        self.nanoseconds.max() as f64 / 1e6
    }
}

fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_true_to_three_digits() {
        let mut latencies = Latencies::new().unwrap();
        (1..=1_000).for_each(|n| latencies.record(Duration::from_micros(n * 10)));
        let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 0.002, "{found} is not {expected}");
        close(latencies.p50_ms(), 5.0);
        close(latencies.p99_ms(), 9.9);
        close(latencies.max_ms(), 10.0);
        assert_eq!(latencies.count(), 1_000);
    }

    #[test]
    fn what_came_no_time_is_not_the_longest() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::from_millis(1));
        latencies.record_many(Duration::from_secs(5), 0);
        assert!(latencies.max_ms() < 2.0, "{}", latencies.max_ms());
    }

    #[test]
    fn nothing_is_lost_at_the_ends() {
        let mut latencies = Latencies::new().unwrap();
        latencies.record(Duration::ZERO);
        latencies.record(Duration::from_secs(100_000));
        assert_eq!(latencies.count(), 2);
        assert!(latencies.max_ms() >= 599_000.0);
    }
}
