//! How far behind a partition is, in records and in time. Pure; times are milliseconds of one monotonic clock.
//!
//! Time behind is measured here, not guessed from timestamps of producers: the end of the source's log is read at known
//! times, and the position reaches those ends later. What was written at the origin before the newest time whose end has
//! been reached is in the target; nothing is promised about what came after.

use std::collections::VecDeque;

use domain::Known;

/// Ends remembered and not yet reached. When there are more, every other one is forgotten, which makes the lag look
/// larger, never smaller.
const ENDS_MAX: usize = 256;

/// Lag of one partition. Each half may be known without the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// Offsets between position and end. Markers of transactions at the origin count too, so this is never too small.
    pub records: Known<u64>,
    pub lag_ms: Known<u64>,
}

/// The ends of one partition and when they were read.
#[derive(Debug, Clone, Default)]
pub struct LagClock {
    /// Read at, end; both rising.
    ends: VecDeque<(u64, i64)>,
    latest: Option<(u64, i64)>,
    reached_at_ms: Option<u64>,
}

impl LagClock {
    /// The source's end was `end` at `at_ms` or later. `at_ms` must be taken before the question was sent.
    pub fn measured(&mut self, at_ms: u64, end: i64, next: i64) {
        self.latest = Some((at_ms, end));
        if end <= next {
            self.ends.clear();
            self.reached_at_ms = Some(at_ms);
            return;
        }
        self.ends.push_back((at_ms, end));
        if self.ends.len() > ENDS_MAX {
            let mut keep = true;
            self.ends.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// The position moved to `next`, durably.
    pub fn committed(&mut self, next: i64) {
        while let Some((at_ms, _)) = self.ends.pop_front_if(|(_, end)| *end <= next) {
            self.reached_at_ms = Some(at_ms);
        }
    }

    /// The newest time of which everything written before it at the origin is known to be in the target.
    pub fn reached_at_ms(&self) -> Option<u64> {
        self.reached_at_ms
    }

    /// As of the latest measurement; stale when that is older than `fresh_ms`.
    pub fn lag(&self, now_ms: u64, next: i64, fresh_ms: u64) -> PartitionLag {
        let Some((at_ms, end)) = self.latest else {
            let unmeasured = || Known::unknown("the end of the origin's log has not been read yet");
            return PartitionLag { records: unmeasured(), lag_ms: Known::unknown("the end of the origin's log has not been read yet") };
        };
        let known = |value| {
            if now_ms.saturating_sub(at_ms) <= fresh_ms {
                Known::Fresh { value, seen_at_ms: at_ms }
            } else {
                Known::Stale { value, seen_at_ms: at_ms }
            }
        };
        let behind = u64::try_from(end.saturating_sub(next)).unwrap_or(0);
        let lag_ms = match self.reached_at_ms {
            _ if behind == 0 => known(0),
            Some(reached_at_ms) => known(at_ms.saturating_sub(reached_at_ms)),
            None => Known::unknown("no end of the origin's log that was read has been reached yet"),
        };
        PartitionLag { records: known(behind), lag_ms }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRESH_MS: u64 = 3_000;

    #[test]
    fn lag_is_unknown_until_measured_and_stale_when_no_longer_measured() {
        let mut clock = LagClock::default();
        assert!(matches!(clock.lag(0, 0, FRESH_MS).records, Known::Unknown { .. }));
        clock.measured(1_000, 5, 5);
        assert_eq!(clock.lag(2_000, 5, FRESH_MS).records.fresh(), Some(&0));
        assert_eq!(clock.lag(2_000, 5, FRESH_MS).lag_ms.fresh(), Some(&0));
        assert!(matches!(clock.lag(4_001, 5, FRESH_MS).lag_ms, Known::Stale { value: 0, seen_at_ms: 1_000 }));
    }

    #[test]
    fn time_behind_counts_from_the_newest_end_that_has_been_reached() {
        let mut clock = LagClock::default();
        clock.measured(1_000, 10, 0);
        clock.measured(2_000, 20, 0);
        clock.measured(3_000, 30, 0);
        // Never caught up so far: how long ago it last was is not known.
        assert!(matches!(clock.lag(3_000, 0, FRESH_MS).lag_ms, Known::Unknown { .. }));
        clock.committed(19);
        assert_eq!(clock.reached_at_ms(), Some(1_000));
        assert_eq!(
            clock.lag(3_500, 19, FRESH_MS),
            PartitionLag {
                records: Known::Fresh { value: 11, seen_at_ms: 3_000 },
                lag_ms: Known::Fresh { value: 2_000, seen_at_ms: 3_000 },
            }
        );
        clock.committed(30);
        assert_eq!(clock.lag(3_500, 30, FRESH_MS).lag_ms.fresh(), Some(&0));
    }

    proptest! {
        /// Against the plain definition: the newest measured time whose end the position has reached.
        #[test]
        fn a_long_outage_never_makes_the_lag_look_smaller(steps in proptest::collection::vec((0_i64..20, 0_i64..20), 1..2_000)) {
            let (mut clock, mut end, mut next, mut measured, mut truth) = (LagClock::default(), 0, 0, Vec::new(), None);
            for (index, (written, copied)) in steps.into_iter().enumerate() {
                let at_ms = index as u64 * 1_000;
                end += written;
                clock.measured(at_ms, end, next);
                measured.push((at_ms, end));
                next = end.min(next + copied);
                clock.committed(next);
                truth = measured.iter().rev().find(|(_, end)| *end <= next).map(|(at_ms, _)| *at_ms).max(truth);
                prop_assert!(clock.reached_at_ms() <= truth);
                if end == next {
                    prop_assert_eq!(clock.reached_at_ms(), truth);
                }
                prop_assert!(clock.ends.len() <= ENDS_MAX);
            }
        }
    }
}
