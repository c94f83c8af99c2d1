//! Where reading of a partition begins. Pure: what is in the log is asked of the caller.
//!
//! Reading goes on where the shards stand. Where the log does not have that place any more, events are lost, unless all that
//! is missing is older than the longest window; nothing is passed over in silence.

use crate::config::Holds;

/// What is known of a partition's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) low: i64,
    pub(crate) high: i64,
    /// The first record that a window can still need; `None` when none is that young.
    pub(crate) needed: Option<i64>,
    /// The first record from the time on that was asked for when the shards were emptied; `None` when nothing was.
    pub(crate) asked: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) offset: i64,
    /// Offsets that no shard has folded, that are gone from the log, and that no window needs.
    pub(crate) expired: i64,
}

/// A place where the shards stand and that the log does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gap {
    #[error("begins at offset {low} and the shards have folded up to {position}: what is in between is gone")]
    Below { position: i64, low: i64 },
    #[error("ends at offset {high} and the shards have folded up to {position}: the topic was made anew, or it lost records")]
    Beyond { position: i64, high: i64 },
}

impl Bounds {
    /// Without a position: everything that a window can need, and what was asked for. Values of profiles do not grow old.
    fn anew(&self, holds: Holds) -> Start {
        let offset = match holds {
            Holds::Events => {
                let needed = self.needed.unwrap_or(self.high);
                self.asked.map_or(needed, |asked| asked.min(needed)).clamp(self.low, self.high.max(self.low))
            }
            Holds::Profiles => self.low,
        };
        Start { offset, expired: 0 }
    }

    /// Whether all that is gone from the log is older than its first record, which no window needs.
    fn is_missed_by_none(&self, holds: Holds) -> bool {
        holds == Holds::Events && self.low < self.high && self.needed.is_none_or(|needed| needed > self.low)
    }

    /// In a log that this region writes itself.
    pub(crate) fn start(&self, position: Option<i64>, holds: Holds) -> Result<Start, Gap> {
        match position {
            None => Ok(self.anew(holds)),
            Some(position) if position > self.high => Err(Gap::Beyond { position, high: self.high }),
            Some(position) if position >= self.low => Ok(Start { offset: position, expired: 0 }),
            Some(position) if self.is_missed_by_none(holds) => Ok(Start { offset: self.low, expired: self.low - position }),
            Some(position) => Err(Gap::Below { position, low: self.low }),
        }
    }

    /// In a copy of another region's log of which nothing is folded: `first` is where its first record was written there, and
    /// up to where the shards have folded that.
    pub(crate) fn start_of_copy(&self, first: (i64, Option<i64>), holds: Holds) -> Result<Start, Gap> {
        match first {
            (_, None) => Ok(self.anew(holds)),
            (written, Some(position)) if written <= position => Ok(Start { offset: self.low, expired: 0 }),
            (written, Some(position)) if self.is_missed_by_none(holds) => Ok(Start { offset: self.low, expired: written - position }),
            (written, Some(position)) => Err(Gap::Below { position, low: written }),
        }
    }
}

/// A record of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Probed {
    pub(crate) offset: i64,
    pub(crate) folded: bool,
}

/// The offset behind the last record that has been folded, where all folded ones stand before all others. `None` when none
/// has. `probe` gives the first record at or behind an offset.
///
/// Looks at the end first, because that is where the shards mostly stand.
pub(crate) fn behind_folded<E>(low: i64, high: i64, mut probe: impl FnMut(i64) -> Result<Option<Probed>, E>) -> Result<Option<i64>, E> {
    let (mut folded_to, mut end, mut step) = (None, high, 1_i64);
    while folded_to.is_none() && end > low {
        let at = high.saturating_sub(step).max(low);
        match probe(at)?.filter(|record| record.offset < high) {
            Some(record) if record.folded => folded_to = Some(record.offset + 1),
            _ => end = at,
        }
        step = step.saturating_mul(4);
    }
    let Some(mut begin) = folded_to else { return Ok(None) };
    while begin < end {
        let middle = begin + (end - begin) / 2;
        match probe(middle)?.filter(|record| record.offset < end) {
            Some(record) if record.folded => begin = record.offset + 1,
            _ => end = middle,
        }
    }
    Ok(Some(begin))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const BOUNDS: Bounds = Bounds { low: 10, high: 100, needed: Some(20), asked: None };

    fn at(offset: i64) -> Result<Start, Gap> {
        Ok(Start { offset, expired: 0 })
    }

    #[test]
    fn a_partition_is_resumed_where_the_shards_stand() {
        assert_eq!([50, 10, 100].map(|position| BOUNDS.start(Some(position), Holds::Events)), [50, 10, 100].map(at));
    }

    #[test]
    fn a_partition_that_no_shard_knows_is_read_from_the_oldest_record_that_a_window_needs() {
        let start = |needed| Bounds { needed, ..BOUNDS }.start(None, Holds::Events);
        assert_eq!([start(Some(20)), start(None), start(Some(5))], [at(20), at(100), at(10)]);
        assert_eq!(Bounds { low: 0, high: 0, needed: None, asked: None }.start(None, Holds::Events), at(0));
        assert_eq!(BOUNDS.start(None, Holds::Profiles), at(10), "what a batch loaded does not grow old");
    }

    #[test]
    fn what_was_asked_for_is_read_too_and_never_less_than_a_window_needs() {
        let start = |asked| Bounds { asked: Some(asked), ..BOUNDS }.start(None, Holds::Events);
        assert_eq!([15, 5, 30].map(start), [15, 10, 20].map(at));
        let asked = Bounds { asked: Some(15), ..BOUNDS };
        assert_eq!(asked.start(Some(50), Holds::Events), at(50), "only where there is no position");
        assert_eq!(asked.start(Some(4), Holds::Events), Ok(Start { offset: 10, expired: 6 }));
    }

    #[test]
    fn below_the_start_of_the_log_only_what_no_window_needs_is_passed_over() {
        assert_eq!(BOUNDS.start(Some(4), Holds::Events), Ok(Start { offset: 10, expired: 6 }));
        let young = Bounds { needed: Some(10), ..BOUNDS };
        assert_eq!(young.start(Some(4), Holds::Events), Err(Gap::Below { position: 4, low: 10 }));
        assert_eq!(BOUNDS.start(Some(4), Holds::Profiles), Err(Gap::Below { position: 4, low: 10 }));
        // An empty log does not tell how old what was in it is.
        let empty = Bounds { low: 10, high: 10, needed: None, asked: None };
        assert_eq!(empty.start(Some(4), Holds::Events), Err(Gap::Below { position: 4, low: 10 }));
        assert_eq!(BOUNDS.start(Some(101), Holds::Events), Err(Gap::Beyond { position: 101, high: 100 }));
    }

    #[test]
    fn a_copy_that_begins_behind_the_position_has_lost_what_is_in_between() {
        assert_eq!(BOUNDS.start_of_copy((7, Some(7)), Holds::Events), at(10));
        assert_eq!(BOUNDS.start_of_copy((9, Some(7)), Holds::Events), Ok(Start { offset: 10, expired: 2 }));
        let young = Bounds { needed: Some(10), ..BOUNDS };
        assert_eq!(young.start_of_copy((9, Some(7)), Holds::Events), Err(Gap::Below { position: 7, low: 9 }));
        assert_eq!(young.start_of_copy((9, None), Holds::Events), at(10));
    }

    /// Records at even offsets only, as in a log with transaction markers.
    fn search(low: i64, high: i64, folded_before: i64) -> (Option<i64>, usize) {
        let mut probes = 0;
        let found = behind_folded::<Infallible>(low, high, |from| {
            probes += 1;
            let offset = from + from.rem_euclid(2);
            Ok((offset < high).then_some(Probed { offset, folded: offset < folded_before }))
        });
        (found.unwrap(), probes)
    }

    #[test]
    fn the_end_of_what_is_folded_is_found_wherever_it_is() {
        for (low, high) in [(0, 0), (0, 1), (3, 40), (4, 41)] {
            for folded_before in low..=high + 3 {
                let last = (low..high).filter(|offset| offset % 2 == 0 && *offset < folded_before).max();
                assert_eq!(search(low, high, folded_before).0, last.map(|last| last + 1), "{low}..{high}, folded before {folded_before}");
            }
        }
    }

    #[test]
    fn near_the_end_of_a_long_log_few_records_are_looked_at() {
        let (found, probes) = search(0, 100_000_000, 99_999_900);
        assert_eq!(found, Some(99_999_899));
        assert!(probes < 20, "{probes}");
        assert!(search(0, 100_000_000, 2).1 < 50);
    }
}
