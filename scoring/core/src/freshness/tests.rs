use super::*;

const NOW: i64 = 1_700_000_000_000;

fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

fn aged(age_ms: u64) -> OriginData {
    OriginData::Producing { age_ms: Known::Fresh { value: age_ms, seen_at_ms: 0 } }
}

fn silent() -> OriginData {
    OriginData::Producing { age_ms: Known::Stale { value: 10, seen_at_ms: 0 } }
}

fn ended(folded_through_ms: i64, ended_ms: i64) -> OriginData {
    OriginData::Ended { folded_through_ms: Known::Fresh { value: folded_through_ms, seen_at_ms: 0 }, ended_ms }
}

/// One builder's view, assessed again and again.
#[derive(Default)]
struct Story {
    origins: BTreeMap<RegionName, OriginData>,
    memory: Memory,
}

impl Story {
    fn with(origins: &[(&str, OriginData)]) -> Self {
        Self { origins: origins.iter().map(|(name, data)| (region(name), data.clone())).collect(), memory: Memory::default() }
    }

    fn set(&mut self, name: &str, data: OriginData) {
        self.origins.insert(region(name), data);
    }

    fn at(&mut self, after_ms: i64) -> Freshness {
        assess(&self.origins, &Windows::default(), &Staleness::default(), &mut self.memory, NOW + after_ms)
    }

    fn level(&mut self, after_ms: i64) -> Level {
        self.at(after_ms).level
    }

    /// Of the windows 5s, 1m, 1h, 24h.
    fn windows(&mut self, after_ms: i64) -> Vec<Completeness> {
        self.at(after_ms).windows.iter().map(|(_, completeness)| *completeness).collect()
    }
}

use Completeness::{Complete, Incomplete, Missing, Unknown};

#[test]
fn after_a_failover_each_window_is_whole_again_once_the_missing_interval_has_left_it() {
    // us-east died; 300 ms of its events had not been mirrored.
    let mut story = Story::with(&[("us-east", ended(NOW - 300, NOW)), ("eu-west", aged(80))]);
    assert_eq!(story.windows(1), [Incomplete; 4]);
    assert_eq!(story.windows(5_500), [Complete, Incomplete, Incomplete, Incomplete]);
    assert_eq!(story.windows(60_499), [Complete, Incomplete, Incomplete, Incomplete]);
    assert_eq!(story.windows(60_500), [Complete, Complete, Incomplete, Incomplete]);
    assert_eq!(story.level(60_500), Level::Raised);
    assert_eq!(story.windows(3_600_500), [Complete, Complete, Complete, Incomplete]);
    assert_eq!((story.windows(86_400_500), story.level(86_400_500)), (vec![Complete; 4], Level::Fresh));
}

#[test]
fn when_the_tail_arrives_all_windows_are_whole_at_once() {
    let mut story = Story::with(&[("us-east", ended(NOW - 300, NOW)), ("eu-west", aged(80))]);
    assert_eq!(story.windows(600_000), [Complete, Complete, Incomplete, Incomplete]);
    story.set("us-east", ended(NOW - 1, NOW));
    assert_eq!(story.windows(600_100), [Complete, Complete, Incomplete, Incomplete]);
    story.set("us-east", ended(NOW, NOW));
    assert_eq!((story.windows(600_200), story.at(600_200).warned), (vec![Complete; 4], false));
}

#[test]
fn a_missing_interval_longer_than_stop_makes_its_windows_missing() {
    let mut story = Story::with(&[("us-east", ended(NOW - 60_001, NOW)), ("eu-west", aged(80))]);
    assert_eq!(story.windows(70_000), [Complete, Complete, Missing, Missing]);
    assert_eq!(story.level(70_000), Level::Stopped);
}

#[test]
fn what_was_folded_of_a_dead_region_is_not_known_until_it_is_measured() {
    let data = OriginData::Ended { folded_through_ms: Known::unknown("no heartbeat has come"), ended_ms: NOW };
    let mut story = Story::with(&[("us-east", data), ("eu-west", aged(80))]);
    assert_eq!(story.windows(60_500), [Complete, Complete, Unknown, Unknown]);
    assert_eq!(story.level(60_500), Level::Unknown);
}

#[test]
fn a_lag_is_missed_by_every_window_and_raises_and_stops_at_once() {
    let mut story = Story::with(&[("us-east", aged(1_000))]);
    assert_eq!((story.windows(0), story.at(0).warned), (vec![Complete; 4], false));
    story.set("us-east", aged(1_001));
    assert_eq!((story.level(1), story.at(1).warned), (Level::Fresh, true));
    story.set("us-east", aged(5_001));
    assert_eq!((story.windows(2), story.level(2)), (vec![Incomplete; 4], Level::Raised));
    story.set("us-east", aged(60_001));
    assert_eq!((story.windows(3), story.level(3)), (vec![Missing; 4], Level::Stopped));
}

#[test]
fn heartbeats_that_stop_make_everything_unknown_and_not_fresh() {
    let mut story = Story::with(&[("us-east", aged(80)), ("eu-west", aged(90))]);
    assert_eq!(story.level(0), Level::Fresh);
    story.set("us-east", silent());
    assert_eq!((story.windows(1_000), story.level(1_000), story.at(1_000).warned), (vec![Unknown; 4], Level::Unknown, true));
    assert_eq!(Story::default().level(0), Level::Unknown);
}

#[test]
fn an_age_around_a_threshold_does_not_flap() {
    let mut story = Story::with(&[("us-east", aged(5_001))]);
    let mut levels = Vec::new();
    for step in 0..100 {
        story.set("us-east", aged(if step % 2 == 0 { 5_001 } else { 4_999 }));
        levels.push(story.level(step * 1_000));
    }
    assert_eq!(levels, [Level::Raised; 100]);
    // Better since 99 s.
    assert_eq!(story.level(101_999), Level::Raised);
    assert_eq!(story.level(102_000), Level::Fresh);
}

#[test]
fn recovery_goes_down_by_the_worst_since_it_began() {
    let mut story = Story::with(&[("us-east", aged(70_000))]);
    assert_eq!(story.level(0), Level::Stopped);
    story.set("us-east", aged(100));
    assert_eq!(story.level(1_000), Level::Stopped);
    story.set("us-east", aged(10_000));
    assert_eq!(story.level(2_000), Level::Stopped);
    story.set("us-east", aged(100));
    assert_eq!(story.level(4_000), Level::Raised);
    assert_eq!(story.level(6_999), Level::Raised);
    assert_eq!(story.level(7_000), Level::Fresh);
}

#[test]
fn an_origin_that_loses_authority_leaves_its_lag_behind() {
    let mut story = Story::with(&[("us-east", aged(9_000)), ("eu-west", aged(80))]);
    assert_eq!(story.level(0), Level::Raised);
    story.set("us-east", ended(NOW, NOW));
    assert_eq!(story.level(1), Level::Fresh);
}

#[test]
fn what_was_published_gets_older_until_the_next_is_published() {
    let mut story = Story::with(&[("us-east", aged(80).older_by(6_000))]);
    assert_eq!(story.level(0), Level::Raised);
    assert_eq!(ended(1, 2).older_by(6_000), ended(1, 2));
}

#[test]
fn an_origin_is_known_as_far_as_its_worst_partition() {
    assert_eq!(aged(80).and(aged(90)), aged(90));
    assert_eq!(ended(50, 100).and(ended(70, 100)), ended(50, 100));
    let mut story = Story::with(&[("us-east", aged(80).and(silent()))]);
    assert_eq!(story.level(0), Level::Unknown);
    let unknown = OriginData::Producing { age_ms: Known::unknown("x") };
    assert_eq!(aged(80).and(unknown.clone()), unknown);
}

#[test]
fn thresholds_that_fall_are_refused() {
    let s = Duration::from_secs;
    assert_eq!(Staleness::new(s(1), s(5), s(60)), Ok(Staleness::default()));
    assert!(Staleness::new(s(9), s(5), s(60)).unwrap_err().to_string().contains("warn 9s, raise 5s"));
}
