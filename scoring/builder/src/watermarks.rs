//! How far the logs of all regions have been folded, and how old that is. Shared by the reader of the logs, the folder and
//! the heart; no IO.
//!
//! Heartbeats are noted when they are read, also while this region does not fold: so at a takeover it is known from the first
//! moment how far the shards reach. They count when everything before them has been folded. If a shard goes back, so does the
//! watermark.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use domain::{Epoch, Known, PlanView, RegionName};
use scoring_core::{
    freshness::OriginData,
    heartbeat::{Heartbeat, HeartbeatWriter, PartitionWatermark},
    published::Published,
};

use crate::{
    authority::Authority,
    batch::{Heard, PartitionHere},
    clock::{SteadyClock, now_ms},
};

/// How many heartbeats of a partition are remembered: at five a second, more than three minutes. Replication between regions
/// is not that far behind; if it is, the heartbeats are read again with what is folded then.
const HEARD_MAX: usize = 1_024;

pub(crate) struct Watermarks {
    here: RegionName,
    clock: SteadyClock,
    inner: Mutex<Inner>,
}

struct Inner {
    writer: HeartbeatWriter,
    lanes: BTreeMap<PartitionHere, Lane>,
    authority: Authority,
}

/// One partition of an event log.
struct Lane {
    origin: RegionName,
    /// By offset.
    heard: VecDeque<(i64, Heartbeat)>,
    /// Everything before this has been folded. `None` while nothing is folded here.
    folded_to: Option<i64>,
    watermark: PartitionWatermark,
}

impl Watermarks {
    pub(crate) fn new(here: RegionName, clock: SteadyClock) -> Self {
        let inner = Inner { writer: HeartbeatWriter::starting_at(now_ms()), lanes: BTreeMap::new(), authority: Authority::default() };
        Self { here, clock, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next heartbeat to write.
    pub(crate) fn beat(&self) -> Heartbeat {
        self.lock().writer.beat(self.clock.now_ms(), now_ms())
    }

    pub(crate) fn follow(&self, plan: &PlanView) {
        self.lock().authority.follow(plan, self.clock.now_ms());
    }

    /// What the builder before this one had published: see [`Authority::inherit`].
    pub(crate) fn inherit(&self, left: Option<&Published>, epoch: Epoch, others: &[RegionName]) {
        let offset_ms = self.clock.now_ms().saturating_sub(now_ms());
        self.lock().authority.inherit(left, epoch, others, offset_ms);
    }

    /// The partitions that are read from now on. `starts`: where folding begins, if it does.
    pub(crate) fn reading(&self, partitions: impl IntoIterator<Item = (PartitionHere, RegionName, Option<i64>)>) {
        let now_ms = self.clock.now_ms();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let mut former = std::mem::take(&mut inner.lanes);
        for (partition, origin, start) in partitions {
            let heard = former.remove(&partition).map(|lane| lane.heard).unwrap_or_default();
            let mut lane = Lane { origin, heard, folded_to: None, watermark: PartitionWatermark::default() };
            if let Some(start) = start {
                lane.folded(start, &self.here, &inner.writer, now_ms);
            }
            inner.lanes.insert(partition, lane);
        }
    }

    /// Heartbeats were read.
    pub(crate) fn heard(&self, heard: Vec<Heard>) {
        let mut guard = self.lock();
        let inner = &mut *guard;
        for Heard { partition, offset, origin, heartbeat } in heard {
            if origin != self.here {
                inner.writer.saw(&origin, heartbeat.counter);
            }
            if let Some(lane) = inner.lanes.get_mut(&partition) {
                lane.note(offset, heartbeat);
            }
        }
    }

    /// A partition has been folded up to `next`.
    pub(crate) fn folded(&self, partition: &PartitionHere, next: i64) {
        let now_ms = self.clock.now_ms();
        let mut guard = self.lock();
        let inner = &mut *guard;
        if let Some(lane) = inner.lanes.get_mut(partition) {
            lane.folded(next, &self.here, &inner.writer, now_ms);
        }
    }

    /// How old the folded data of each region is whose log is read.
    pub(crate) fn ages(&self, silence_ms_max: i64) -> BTreeMap<RegionName, Known<u64>> {
        let now_ms = self.clock.now_ms();
        self.lock().ages(now_ms, silence_ms_max)
    }

    /// What the decision services are told, in wall-clock milliseconds. Intervals that no window of `longest_ms` can miss are
    /// left out.
    pub(crate) fn publication(&self, epoch: Epoch, silence_ms_max: i64, valid_ms: u64, longest_ms: i64) -> Published {
        let (steady_ms, published_ms) = (self.clock.now_ms(), now_ms());
        let to_wall_ms = published_ms.saturating_sub(steady_ms);
        let mut inner = self.lock();
        inner.authority.forget_before(steady_ms.saturating_sub(longest_ms));
        let no_log = || Known::unknown("its log is not read");
        let own_age = inner.ages(steady_ms, silence_ms_max).remove(&self.here).unwrap_or_else(no_log);
        let origins = inner.authority.origins(&self.here, |region| inner.reaches_ms(region), own_age, steady_ms);
        let origins = origins.into_iter().map(|(region, data)| (region, shifted(data, to_wall_ms))).collect();
        Published { region: self.here.clone(), epoch, published_ms, valid_ms, origins }
    }
}

fn shifted(data: OriginData, by_ms: i64) -> OriginData {
    match data {
        producing @ OriginData::Producing { .. } => producing,
        OriginData::Ended { folded_through_ms, ended_ms } => OriginData::Ended {
            folded_through_ms: folded_through_ms.map(|through_ms| through_ms.saturating_add(by_ms)),
            ended_ms: ended_ms.saturating_add(by_ms),
        },
    }
}

impl Inner {
    fn ages(&self, now_ms: i64, silence_ms_max: i64) -> BTreeMap<RegionName, Known<u64>> {
        let mut ages: BTreeMap<RegionName, OriginData> = BTreeMap::new();
        for lane in self.lanes.values() {
            let age = OriginData::Producing { age_ms: lane.watermark.age(now_ms, silence_ms_max) };
            let all = match ages.remove(&lane.origin) {
                Some(others) => others.and(age),
                None => age,
            };
            ages.insert(lane.origin.clone(), all);
        }
        let age_of = |data| match data {
            OriginData::Producing { age_ms } => age_ms,
            OriginData::Ended { .. } => Known::unknown("has ended"),
        };
        ages.into_iter().map(|(region, data)| (region, age_of(data))).collect()
    }

    /// Up to when all partitions of a region's log have been folded.
    fn reaches_ms(&self, region: &RegionName) -> Option<i64> {
        let mut lanes = self.lanes.values().filter(|lane| lane.origin == *region);
        let first = lanes.next()?.watermark.reaches_ms()?;
        lanes.try_fold(first, |least, lane| lane.watermark.reaches_ms().map(|reaches_ms| least.min(reaches_ms)))
    }
}

impl Lane {
    fn note(&mut self, offset: i64, heartbeat: Heartbeat) {
        // Where reading began anew, the same heartbeats come again.
        if self.heard.back().is_some_and(|(last, _)| *last >= offset) {
            return;
        }
        if self.heard.len() >= HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back((offset, heartbeat));
    }

    fn folded(&mut self, next: i64, here: &RegionName, writer: &HeartbeatWriter, now_ms: i64) {
        let from = self.folded_to.replace(next).unwrap_or(i64::MIN);
        let begin = self.heard.partition_point(|(offset, _)| *offset < from);
        for (_, heartbeat) in self.heard.range(begin..).take_while(|(offset, _)| *offset < next) {
            self.watermark.passed(heartbeat, &self.origin, here, writer, now_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> RegionName {
        RegionName::new(name).unwrap()
    }

    fn mirror(partition: i32) -> PartitionHere {
        ("eu-west.fraud.events.raw".into(), partition)
    }

    /// A builder in us-east that reads two partitions of eu-west.
    fn reading(starts: [Option<i64>; 2]) -> Watermarks {
        let watermarks = Watermarks::new(region("us-east"), SteadyClock::start());
        watermarks.reading((0..2).zip(starts).map(|(n, start)| (mirror(n), region("eu-west"), start)));
        watermarks
    }

    /// eu-west echoes the heartbeat that this region has just written.
    fn echo(watermarks: &Watermarks, partition: i32, offset: i64) {
        let ours = watermarks.beat();
        let heartbeat = Heartbeat { counter: 1, clock_ms: 0, echoes: [(region("us-east"), ours.counter)].into() };
        watermarks.heard(vec![Heard { partition: mirror(partition), offset, origin: region("eu-west"), heartbeat }]);
    }

    fn age(watermarks: &Watermarks) -> Option<u64> {
        watermarks.ages(60_000)[&region("eu-west")].fresh().copied()
    }

    #[test]
    fn an_age_is_known_when_every_partition_has_been_folded_past_an_echo() {
        let watermarks = reading([Some(0), Some(0)]);
        echo(&watermarks, 0, 5);
        echo(&watermarks, 1, 9);
        assert_eq!(age(&watermarks), None, "read is not folded");
        watermarks.folded(&mirror(0), 6);
        watermarks.folded(&mirror(1), 9);
        assert_eq!(age(&watermarks), None, "the echo of the other partition is the next record");
        watermarks.folded(&mirror(1), 10);
        assert!(age(&watermarks).is_some_and(|age_ms| age_ms < 5_000));
    }

    #[test]
    fn what_was_heard_while_another_region_folded_counts_at_the_takeover() {
        let watermarks = reading([None, None]);
        echo(&watermarks, 0, 5);
        echo(&watermarks, 1, 5);
        assert_eq!(age(&watermarks), None);
        // The shards reach to offset 8 and 6: the heartbeats at 5 are behind that.
        watermarks.reading((0..2).zip([8, 6]).map(|(n, start)| (mirror(n), region("eu-west"), Some(start))));
        assert!(age(&watermarks).is_some());
    }

    #[test]
    fn a_shard_that_goes_back_takes_the_watermark_with_it() {
        let watermarks = reading([Some(0), Some(0)]);
        (0..2).for_each(|partition| echo(&watermarks, partition, 5));
        (0..2).for_each(|partition| watermarks.folded(&mirror(partition), 6));
        assert!(age(&watermarks).is_some());
        watermarks.reading((0..2).map(|n| (mirror(n), region("eu-west"), Some(3))));
        assert_eq!(age(&watermarks), None);
        (0..2).for_each(|partition| watermarks.folded(&mirror(partition), 6));
        assert!(age(&watermarks).is_some(), "the same heartbeat counts again");
    }

    #[test]
    fn a_publication_says_unknown_for_this_region_until_its_own_log_tells() {
        let watermarks = reading([None, None]);
        let published = watermarks.publication(Epoch(1), 1_000, 2_000, 86_400_000);
        assert!(matches!(&published.origins[&region("us-east")], OriginData::Producing { age_ms: Known::Unknown { .. } }));
    }
}
