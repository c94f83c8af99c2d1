//! Which snapshots are kept. Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::SnapshotId;

/// A snapshot without a manifest may still be on its way for so long.
const UNFINISHED_MAX: Duration = Duration::from_secs(24 * 3_600);

/// What is under a snapshot's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Complete,
    /// It has a manifest that this version cannot use.
    Unusable,
    /// It has no manifest.
    Torn,
}

/// Those to delete: what is older than `keep`, but never the newest complete one; torn ones after a day.
pub(crate) fn to_delete(present: &[(SnapshotId, Found)], keep: Duration, now: Timestamp) -> Vec<SnapshotId> {
    let newest = present.iter().filter(|(_, found)| *found == Found::Complete).map(|(id, _)| id).max();
    let older = |id: &SnapshotId, than: Duration| now.duration_since(id.begun()).unsigned_abs() > than && id.begun() < now;
    let due = |(id, found): &&(SnapshotId, Found)| match found {
        Found::Complete => Some(id) != newest && older(id, keep),
        Found::Unusable => older(id, keep),
        Found::Torn => older(id, UNFINISHED_MAX),
    };
    present.iter().filter(due).map(|(id, _)| id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn now() -> Timestamp {
        "2026-11-20T08:00:00Z".parse().unwrap()
    }

    fn ago(hours: u64, found: Found) -> (SnapshotId, Found) {
        (SnapshotId::begun_at(now() - Duration::from_secs(hours * 3_600)), found)
    }

    fn deleted(present: &[(SnapshotId, Found)]) -> Vec<usize> {
        let deleted = to_delete(present, DAY * 7, now());
        present.iter().enumerate().filter(|(_, (id, _))| deleted.contains(id)).map(|(place, _)| place).collect()
    }

    #[test]
    fn what_is_older_than_a_week_leaves_and_torn_ones_after_a_day() {
        let present = [
            ago(200, Found::Complete),
            ago(169, Found::Complete),
            ago(167, Found::Complete),
            ago(4, Found::Complete),
            ago(200, Found::Unusable),
            ago(100, Found::Unusable),
            ago(25, Found::Torn),
            ago(1, Found::Torn),
        ];
        assert_eq!(deleted(&present), [0, 1, 4, 6]);
    }

    #[test]
    fn the_newest_complete_one_stays_however_old_it_is() {
        assert_eq!(deleted(&[ago(900, Found::Complete), ago(1_000, Found::Complete), ago(2, Found::Torn)]), [1]);
        assert!(deleted(&[ago(900, Found::Complete)]).is_empty());
        assert!(deleted(&[]).is_empty());
    }

    #[test]
    fn what_the_future_made_stays() {
        let ahead = (SnapshotId::begun_at(now() + DAY * 30), Found::Torn);
        assert!(deleted(&[ahead, ago(1, Found::Complete)]).is_empty());
    }
}
