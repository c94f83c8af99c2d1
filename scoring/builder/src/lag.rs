//! How far folding is behind the logs. Pure: times are arguments. What was not measured is unknown, never 0.

use std::collections::BTreeMap;

use domain::Lag;

use crate::batch::{Batch, PartitionHere};

/// Mirrored logs are written in transactions, and the end counts the marker after the last one, which no reader sees. A
/// mirrored partition that stands one before an end that has not moved for this long, and gave nothing more, is at its end.
const SETTLED_MS: i64 = 1_000;

/// Where folding of one partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    next: i64,
    /// Everything that was stamped until then has been folded, in wall-clock milliseconds. `None` until something has.
    folded_until_ms: Option<i64>,
    /// When the last record was read, in wall-clock milliseconds.
    last_read_ms: i64,
    end: Option<End>,
    transactional: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct End {
    offset: i64,
    /// Since when it has been measured at this offset.
    since_ms: i64,
    measured_ms: i64,
}

/// The standing of all partitions that are folded.
#[derive(Debug, Default)]
pub(crate) struct Standings {
    by_partition: BTreeMap<PartitionHere, Standing>,
    /// An end older than this is unknown.
    end_age_ms_max: i64,
}

impl Standings {
    /// Partitions with the offset at which folding begins, and which topics are written in transactions.
    pub(crate) fn starting_at(
        starts: &BTreeMap<PartitionHere, i64>,
        transactional: impl Fn(&str) -> bool,
        now_ms: i64,
        end_age_ms_max: i64,
    ) -> Self {
        let standing = |(partition, next): (&PartitionHere, &i64)| {
            let transactional = transactional(&partition.0);
            (partition.clone(), Standing { next: *next, folded_until_ms: None, last_read_ms: now_ms, end: None, transactional })
        };
        Self { by_partition: starts.iter().map(standing).collect(), end_age_ms_max }
    }

    /// A batch is in all shards.
    pub(crate) fn folded(&mut self, batch: &Batch, now_ms: i64) {
        for (partition, progress) in &batch.progress {
            if let Some(standing) = self.by_partition.get_mut(partition) {
                standing.next = progress.next;
                standing.last_read_ms = now_ms;
                standing.folded_until_ms = standing.folded_until_ms.max(progress.written_ms);
            }
        }
    }

    /// The ends of the logs, as measured at `measured_ms`.
    pub(crate) fn measured(&mut self, ends: &BTreeMap<PartitionHere, i64>, measured_ms: i64) {
        for (partition, standing) in &mut self.by_partition {
            standing.end = ends.get(partition).map(|&offset| {
                let since_ms = standing.end.filter(|end| end.offset == offset).map_or(measured_ms, |end| end.since_ms);
                End { offset, since_ms, measured_ms }
            });
            if standing.at_end(measured_ms) {
                standing.folded_until_ms = standing.folded_until_ms.max(Some(measured_ms));
            }
        }
    }

    /// The lag of each partition; `None` when its end is not known, or nothing has been folded that tells how old the rest is.
    pub(crate) fn lags(&self, now_ms: i64) -> BTreeMap<PartitionHere, Option<Lag>> {
        self.by_partition.iter().map(|(partition, standing)| (partition.clone(), standing.lag(now_ms, self.end_age_ms_max))).collect()
    }

    /// The age of the oldest event that is not yet folded, over all partitions, at most; 0 when all are at their ends.
    pub(crate) fn feature_lag_ms(&self, now_ms: i64) -> Option<u64> {
        let lags = self.by_partition.values().map(|standing| standing.lag(now_ms, self.end_age_ms_max).map(|lag| lag.lag_ms));
        let lags: Option<Vec<u64>> = lags.collect();
        lags.and_then(|lags| lags.into_iter().max())
    }
}

impl Standing {
    fn at_end(&self, now_ms: i64) -> bool {
        self.end.is_some_and(|end| {
            let settled = now_ms.saturating_sub(self.last_read_ms.max(end.since_ms)) >= SETTLED_MS;
            let marker_only = self.transactional && settled && self.next > 0 && end.offset.saturating_sub(self.next) == 1;
            self.next >= end.offset || marker_only
        })
    }

    fn lag(&self, now_ms: i64, end_age_ms_max: i64) -> Option<Lag> {
        let end = self.end.filter(|end| now_ms.saturating_sub(end.measured_ms) <= end_age_ms_max)?;
        if self.at_end(now_ms) {
            return Some(Lag { records: 0, lag_ms: 0 });
        }
        let records = u64::try_from(end.offset.saturating_sub(self.next)).unwrap_or(0);
        let lag_ms = u64::try_from(now_ms.saturating_sub(self.folded_until_ms?)).unwrap_or(0);
        Some(Lag { records, lag_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Progress;

    const T0: i64 = 1_700_000_000_000;

    fn partition() -> PartitionHere {
        ("fraud.events.raw".into(), 0)
    }

    fn standings() -> Standings {
        Standings::starting_at(&[(partition(), 10)].into_iter().collect(), |_| false, T0, 5_000)
    }

    fn batch(next: i64, event_time_ms: i64) -> Batch {
        let progress = Progress { next, written_ms: Some(event_time_ms) };
        Batch { progress: [(partition(), progress)].into_iter().collect(), ..Batch::default() }
    }

    fn end(offset: i64) -> BTreeMap<PartitionHere, i64> {
        [(partition(), offset)].into_iter().collect()
    }

    #[test]
    fn nothing_measured_is_unknown() {
        let mut standings = standings();
        assert_eq!(standings.feature_lag_ms(T0), None);
        standings.measured(&end(20), T0);
        // The end is known, but nothing tells how old the ten records before it are.
        assert_eq!(standings.feature_lag_ms(T0), None);
        standings.measured(&BTreeMap::new(), T0 + 1);
        assert_eq!(standings.lags(T0 + 1), [(partition(), None)].into_iter().collect());
    }

    #[test]
    fn at_the_end_of_a_quiet_log_the_lag_is_zero_and_a_new_event_is_young() {
        let mut standings = standings();
        standings.measured(&end(10), T0);
        assert_eq!(standings.feature_lag_ms(T0), Some(0));
        standings.measured(&end(10), T0 + 3_600_000);
        standings.measured(&end(11), T0 + 3_600_100);
        // After an hour without traffic: not an hour, but what passed since the end was last seen.
        assert_eq!(standings.lags(T0 + 3_600_150)[&partition()], Some(Lag { records: 1, lag_ms: 150 }));
    }

    #[test]
    fn behind_the_end_the_lag_is_the_age_of_what_was_folded_last() {
        let mut standings = standings();
        standings.folded(&batch(15, T0 - 700), T0);
        standings.measured(&end(40), T0);
        assert_eq!(standings.lags(T0)[&partition()], Some(Lag { records: 25, lag_ms: 700 }));
        standings.folded(&batch(40, T0 - 20), T0 + 10);
        assert_eq!(standings.feature_lag_ms(T0 + 10), Some(0));
    }

    #[test]
    fn an_end_that_is_no_longer_measured_makes_the_lag_unknown() {
        let mut standings = standings();
        standings.measured(&end(10), T0);
        assert_eq!(standings.feature_lag_ms(T0 + 5_000), Some(0));
        assert_eq!(standings.feature_lag_ms(T0 + 5_001), None);
    }

    #[test]
    fn a_transaction_marker_after_the_last_record_of_a_mirrored_log_is_no_lag() {
        let starts = [(partition(), 10)].into_iter().collect();
        let lag = |transactional, ends: &[(i64, i64)]| {
            let mut standings = Standings::starting_at(&starts, |_| transactional, T0, 5_000);
            standings.folded(&batch(40, T0), T0);
            ends.iter().for_each(|(offset, after_ms)| standings.measured(&end(*offset), T0 + after_ms));
            let last_ms = T0 + ends[ends.len() - 1].1;
            standings.lags(last_ms)[&partition()].unwrap().records
        };
        assert_eq!(lag(true, &[(41, 100)]), 1);
        assert_eq!(lag(true, &[(41, 100), (41, 1_100)]), 0);
        // A record that has just come is no marker, and two records are two, however long they wait.
        assert_eq!(lag(true, &[(40, 100), (41, 9_000)]), 1);
        assert_eq!(lag(true, &[(42, 100), (42, 9_000)]), 2);
        // This region's own log is written without transactions: there a record that is not read is one.
        assert_eq!(lag(false, &[(41, 100), (41, 9_000)]), 1);
    }
}
