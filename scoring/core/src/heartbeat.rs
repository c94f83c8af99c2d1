//! How old the data of an origin is, told by the reader's own clock alone. Pure.
//!
//! Each region's builder writes a numbered heartbeat into every partition of its own log, and echoes in it the highest number
//! of each other region that it has seen in that region's log. A reader that comes, in an origin's log, upon an echo of a
//! number of its own knows: everything that the origin wrote before that heartbeat has been folded, and the heartbeat was
//! written after the reader had sent that number. So what is folded reaches at least up to then, whatever the origin's clock
//! says: the age is too large by the way of the number there, never too small. In its own log a region finds the number itself.
//!
//! Numbers are unique over restarts: the first one of a process is its wall clock in milliseconds, and there are fewer than
//! one a millisecond. An echo of a number that this process did not send, or no longer remembers, tells nothing.

use std::collections::{BTreeMap, VecDeque};

use domain::{Known, RegionName};

/// How many sent numbers are remembered: at two a second, more than two hours.
const SENT_MAX: usize = 20_000;
const REGIONS_MAX: usize = 64;

/// The value of a record with the header `fp-heartbeat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    pub counter: u64,
    /// For people who compare clocks; no age is computed from it.
    pub clock_ms: i64,
    /// The highest number seen of each other region.
    pub echoes: BTreeMap<RegionName, u64>,
}

/// Writes a region's heartbeats and remembers when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatWriter {
    next: u64,
    /// Number and time by the own clock, both rising.
    sent: VecDeque<(u64, i64)>,
    seen: BTreeMap<RegionName, u64>,
}

impl HeartbeatWriter {
    /// `clock_ms`: the wall clock at the start of the process.
    pub fn starting_at(clock_ms: i64) -> Self {
        Self { next: clock_ms.max(0).unsigned_abs(), sent: VecDeque::new(), seen: BTreeMap::new() }
    }

    /// The next heartbeat, the same for all partitions. `now_ms` is the clock by which ages are asked for.
    pub fn beat(&mut self, now_ms: i64, clock_ms: i64) -> Heartbeat {
        let counter = self.next;
        self.next = self.next.saturating_add(1);
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((counter, now_ms));
        Heartbeat { counter, clock_ms, echoes: self.seen.clone() }
    }

    /// Notes a number of another region, to echo it.
    pub fn saw(&mut self, region: &RegionName, counter: u64) {
        let room = self.seen.len() < REGIONS_MAX;
        match self.seen.get_mut(region) {
            Some(seen) => *seen = counter.max(*seen),
            None if room => drop(self.seen.insert(region.clone(), counter)),
            None => {}
        }
    }

    /// When a number was sent, by the own clock.
    fn sent_at_ms(&self, counter: u64) -> Option<i64> {
        let place = self.sent.binary_search_by_key(&counter, |(sent, _)| *sent).ok()?;
        self.sent.get(place).map(|(_, at_ms)| *at_ms)
    }
}

/// How far one partition of one origin's log has been folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionWatermark {
    /// By the reader's clock: everything written before this is folded.
    reaches_ms: Option<i64>,
    heard_ms: Option<i64>,
}

impl PartitionWatermark {
    /// The folding of this partition has passed a heartbeat of `origin`; `here` is the reader's own region.
    pub fn passed(&mut self, heartbeat: &Heartbeat, origin: &RegionName, here: &RegionName, own: &HeartbeatWriter, now_ms: i64) {
        let number = if origin == here { Some(heartbeat.counter) } else { heartbeat.echoes.get(here).copied() };
        self.heard_ms = self.heard_ms.max(Some(now_ms));
        self.reaches_ms = self.reaches_ms.max(number.and_then(|number| own.sent_at_ms(number)));
    }

    /// Up to when, by the reader's clock, everything is folded.
    pub fn reaches_ms(&self) -> Option<i64> {
        self.reaches_ms
    }

    /// How old the folded data is. Stale, so not known, when no heartbeat was passed for longer than `silence_ms_max`: then
    /// it cannot be told whether there was nothing to fold or nothing came.
    pub fn age(&self, now_ms: i64, silence_ms_max: i64) -> Known<u64> {
        let Some(heard_ms) = self.heard_ms else { return Known::unknown("no heartbeat has come") };
        let Some(reaches_ms) = self.reaches_ms else { return Known::unknown("no echo of this process's heartbeats has come") };
        let (value, seen_at_ms) = (elapsed_ms(reaches_ms, now_ms), heard_ms.max(0).unsigned_abs());
        if elapsed_ms(heard_ms, now_ms) > silence_ms_max.max(0).unsigned_abs() {
            return Known::Stale { value, seen_at_ms };
        }
        Known::Fresh { value, seen_at_ms }
    }
}

fn elapsed_ms(from_ms: i64, now_ms: i64) -> u64 {
    now_ms.saturating_sub(from_ms).max(0).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(name: &str) -> RegionName {
        RegionName::new(name).unwrap()
    }

    /// Two regions that fold each other's heartbeats `delay_ms` after they were written. The clock of the other one is off.
    struct Pair {
        here: HeartbeatWriter,
        there: HeartbeatWriter,
        watermark: PartitionWatermark,
    }

    impl Pair {
        fn new() -> Self {
            Self {
                here: HeartbeatWriter::starting_at(1_000),
                there: HeartbeatWriter::starting_at(9_000_000),
                watermark: PartitionWatermark::default(),
            }
        }

        /// One exchange: here beats, there sees it and beats, here folds that.
        fn exchange(&mut self, now_ms: i64, delay_ms: i64) -> i64 {
            let ours = self.here.beat(now_ms, 0);
            self.there.saw(&region("us-east"), ours.counter);
            let theirs = self.there.beat(now_ms + delay_ms + 7_777, 0);
            let back_ms = now_ms + 2 * delay_ms;
            self.watermark.passed(&theirs, &region("eu-west"), &region("us-east"), &self.here, back_ms);
            back_ms
        }
    }

    #[test]
    fn an_age_covers_the_way_of_the_data_whatever_the_other_clock_says() {
        let mut pair = Pair::new();
        let now_ms = pair.exchange(50_000, 40);
        assert_eq!(pair.watermark.age(now_ms, 1_000).fresh(), Some(&80));
        assert_eq!(pair.watermark.age(now_ms + 500, 1_000).fresh(), Some(&580));
    }

    #[test]
    fn nothing_heard_or_nothing_echoed_is_unknown_and_never_zero() {
        let mut pair = Pair::new();
        assert!(matches!(pair.watermark.age(5, 1_000), Known::Unknown { .. }));
        let theirs = pair.there.beat(5, 0);
        pair.watermark.passed(&theirs, &region("eu-west"), &region("us-east"), &pair.here, 5);
        assert!(matches!(pair.watermark.age(5, 1_000), Known::Unknown { why } if why.contains("echo")));
    }

    #[test]
    fn when_heartbeats_stop_the_age_is_not_known_any_more() {
        let mut pair = Pair::new();
        let now_ms = pair.exchange(50_000, 40);
        assert!(matches!(pair.watermark.age(now_ms + 1_001, 1_000), Known::Stale { value: 1_081, .. }));
    }

    #[test]
    fn an_echo_of_a_former_process_tells_nothing() {
        let mut pair = Pair::new();
        let old = pair.here.beat(10, 0);
        pair.there.saw(&region("us-east"), old.counter);
        pair.here = HeartbeatWriter::starting_at(2_000);
        pair.here.beat(20, 0);
        let theirs = pair.there.beat(30, 0);
        pair.watermark.passed(&theirs, &region("eu-west"), &region("us-east"), &pair.here, 30);
        assert_eq!(pair.watermark.reaches_ms(), None);
    }

    #[test]
    fn a_region_finds_its_own_numbers_in_its_own_log() {
        let mut writer = HeartbeatWriter::starting_at(1);
        let beat = writer.beat(100, 0);
        let mut watermark = PartitionWatermark::default();
        watermark.passed(&beat, &region("us-east"), &region("us-east"), &writer, 103);
        assert_eq!(watermark.age(110, 1_000).fresh(), Some(&10));
    }

    #[test]
    fn the_oldest_numbers_are_forgotten() {
        let mut writer = HeartbeatWriter::starting_at(1);
        (0..=20_000).for_each(|n| drop(writer.beat(n, 0)));
        assert_eq!((writer.sent_at_ms(1), writer.sent_at_ms(2), writer.sent_at_ms(20_001)), (None, Some(1), Some(20_000)));
    }

    proptest! {
        #[test]
        fn an_age_is_never_smaller_than_the_truth(delays in prop::collection::vec((0_i64..500, 1_i64..400), 1..20), waited_ms in 0_i64..5_000) {
            let mut pair = Pair::new();
            let (mut now_ms, mut written_ms) = (1_000, 0);
            for (delay_ms, gap_ms) in delays {
                written_ms = now_ms + delay_ms;
                now_ms = pair.exchange(now_ms, delay_ms) + gap_ms;
            }
            // The truth: everything that was written there before its last heartbeat has been folded here.
            let age = pair.watermark.age(now_ms + waited_ms, i64::MAX);
            prop_assert!(age.fresh().is_some_and(|age| age.cast_signed() >= now_ms + waited_ms - written_ms));
        }
    }
}
