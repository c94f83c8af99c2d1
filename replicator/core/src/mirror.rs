//! The state machine of a mirror: events in, effects out. Pure.
//!
//! Guarantees:
//! - a position is written only in a transaction that holds all records below it that were not held by an earlier one;
//! - a position never goes back;
//! - a record that this very target wrote first does not come home;
//! - a partition whose next record is gone stops. It is never skipped silently.
//!
//! Assumes that the effects are carried out in their order, and that a transaction that fails ends the connection: a new
//! `Mirror` is then made from the positions that are stored.

use std::collections::BTreeMap;

use domain::{Epoch, headers::Source};

use crate::{
    lag::{LagClock, PartitionLag},
    position::{Position, PositionKey, Positions},
};

/// What does not change while a mirror is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub source_cluster: String,
    pub target_cluster: String,
    pub transaction_interval_ms: u64,
    pub transaction_records_max: u64,
    pub transaction_bytes_max: u64,
}

/// What a mirror sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// Topics that are there on both sides, with the number of partitions that both have. Partitions are only ever added.
    Topics(&'a BTreeMap<String, u32>),
    /// The answer to [`Effect::FindStart`]: the first offset that the source still has.
    Start { topic: &'a str, partition: i32, offset: i64 },
    /// The next record of a partition. `source` is what its header says about an earlier mirror.
    Record { topic: &'a str, partition: i32, offset: i64, bytes: u64, source: Option<&'a Source>, now_ms: u64 },
    /// The source said that the offset to be read next is missing, and this is what it has.
    OffsetMissing { topic: &'a str, partition: i32, first: i64, end: i64 },
    /// The target does not take the record that was just to be written.
    RecordRefused { topic: &'a str, partition: i32, why: &'a str },
    /// The transaction that was asked for is committed.
    Committed,
    /// Ends of the source's partitions, read at this time or later.
    Ends { at_ms: u64, ends: &'a BTreeMap<(String, i32), i64> },
    /// Time passes.
    Tick { now_ms: u64 },
    /// Finish what is open.
    Stop,
}

/// What a mirror wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Ask the source for the first offset of a partition that was never mirrored.
    FindStart {
        topic: String,
        partition: i32,
    },
    /// Begin to read here.
    Read {
        topic: String,
        partition: i32,
        from: i64,
    },
    /// Read no further.
    StopReading {
        topic: String,
        partition: i32,
        why: StopReason,
    },
    BeginTransaction,
    /// Write the record of this event.
    Write,
    /// Write these, wait until all is acknowledged, and commit.
    Commit(Vec<(PositionKey, Position)>),
}

/// Why a partition is no longer mirrored. Somebody has to decide what to do about the records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    #[error(
        "records {next} to {first} are gone at the origin before they were mirrored: retention was faster than this mirror. Raise retention.ms at the origin, and decide about the gap"
    )]
    RetentionOvertook { next: i64, first: i64 },
    #[error(
        "the origin's log ends at {end}, before position {next}: the topic was made anew or lost records. Decide which of its records are new"
    )]
    LogIsShorter { next: i64, end: i64 },
    #[error("record at offset {offset} is not taken by this region's Kafka: {why}")]
    RecordRefused { offset: i64, why: String },
}

/// A partition that is, or is about to be, mirrored.
#[derive(Debug, Clone)]
struct Partition {
    /// Everything from where this mirror began up to here is in the target; none until the start is known.
    durable: Option<i64>,
    /// Whether `durable` is in the positions topic. The place where a mirror begins is not until its first commit.
    stored: bool,
    /// Next offset after what is in the open transaction.
    next: Option<i64>,
    stopped: Option<StopReason>,
    lag: LagClock,
}

/// How a partition is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionView<'a> {
    pub topic: &'a str,
    pub partition: i32,
    /// Everything below it is in the target.
    pub next: Option<i64>,
    pub lag: PartitionLag,
    pub reached_at_ms: Option<u64>,
    pub stopped: Option<&'a StopReason>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    since_ms: u64,
    records: u64,
    bytes: u64,
}

/// One connection's worth of mirroring.
#[derive(Debug)]
pub struct Mirror {
    settings: Settings,
    epoch: Epoch,
    positions: Positions,
    topics: BTreeMap<String, Vec<Partition>>,
    transaction: Option<Open>,
    came_home: u64,
}

impl Mirror {
    /// `positions` are all that the target holds for this source cluster.
    pub fn new(settings: Settings, positions: Positions, epoch: Epoch) -> Self {
        Self { settings, epoch, positions, topics: BTreeMap::new(), transaction: None, came_home: 0 }
    }

    /// The plan moved on. Older epochs are passed over: the plan's own guard has refused them already.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Appends to `effects` what is to be done, in order.
    pub fn step(&mut self, event: &Event<'_>, effects: &mut Vec<Effect>) {
        match *event {
            Event::Topics(topics) => self.topics(topics, effects),
            Event::Start { topic, partition, offset } => self.start(topic, partition, offset, effects),
            Event::Record { topic, partition, offset, bytes, source, now_ms } => {
                if self.take(topic, partition, offset, bytes, source, now_ms, effects) && self.is_full() {
                    self.commit(effects);
                }
            }
            Event::OffsetMissing { topic, partition, first, end } => self.offset_missing(topic, partition, first, end, effects),
            Event::RecordRefused { topic, partition, why } => self.refused(topic, partition, why, effects),
            Event::Committed => self.committed(),
            Event::Ends { at_ms, ends } => self.ends(at_ms, ends),
            Event::Tick { now_ms } => {
                if self.transaction.is_some_and(|open| now_ms.saturating_sub(open.since_ms) >= self.settings.transaction_interval_ms) {
                    self.commit(effects);
                }
            }
            Event::Stop => self.commit(effects),
        }
    }

    /// When the open transaction is due, if there is one.
    pub fn due_ms(&self) -> Option<u64> {
        self.transaction.map(|open| open.since_ms.saturating_add(self.settings.transaction_interval_ms))
    }

    /// Records that this target wrote first and that were therefore not written again.
    pub fn came_home(&self) -> u64 {
        self.came_home
    }

    pub fn view(&self, now_ms: u64, fresh_ms: u64) -> Vec<PartitionView<'_>> {
        let all =
            self.topics.iter().flat_map(|(topic, partitions)| (0_i32..).zip(partitions).map(move |(number, state)| (topic, number, state)));
        all.map(|(topic, partition, state)| PartitionView {
            topic,
            partition,
            next: state.durable,
            lag: state.lag.lag(now_ms, state.durable.unwrap_or(0), fresh_ms),
            reached_at_ms: state.lag.reached_at_ms(),
            stopped: state.stopped.as_ref(),
        })
        .collect()
    }

    fn topics(&mut self, topics: &BTreeMap<String, u32>, effects: &mut Vec<Effect>) {
        for (topic, count) in topics {
            let known = self.topics.entry(topic.clone()).or_default();
            let first_new = i32::try_from(known.len()).unwrap_or(i32::MAX);
            for partition in first_new..i32::try_from(*count).unwrap_or(i32::MAX) {
                let stored = self.positions.get(topic, partition).map(|position| position.next);
                known.push(Partition { durable: stored, stored: stored.is_some(), next: stored, stopped: None, lag: LagClock::default() });
                effects.push(match stored {
                    Some(from) => Effect::Read { topic: topic.clone(), partition, from },
                    None => Effect::FindStart { topic: topic.clone(), partition },
                });
            }
        }
    }

    fn start(&mut self, topic: &str, partition: i32, offset: i64, effects: &mut Vec<Effect>) {
        if let Some(state) = self.partition(topic, partition).filter(|state| !state.stored) {
            (state.durable, state.next) = (Some(offset), Some(offset));
            effects.push(Effect::Read { topic: topic.to_owned(), partition, from: offset });
        }
    }

    /// Whether the record is now part of the open transaction.
    #[allow(clippy::too_many_arguments)] // the fields of one event
    fn take(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes: u64,
        source: Option<&Source>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let comes_home = source.is_some_and(|source| source.cluster_id == self.settings.target_cluster);
        let Some(state) = self.partition(topic, partition) else { return false };
        // Below the position: fetched twice, and mirrored already.
        if state.stopped.is_some() || state.next.is_none_or(|next| offset < next) {
            return false;
        }
        state.next = Some(offset + 1);
        let open = self.transaction.get_or_insert_with(|| {
            effects.push(Effect::BeginTransaction);
            Open { since_ms: now_ms, records: 0, bytes: 0 }
        });
        open.records += 1;
        open.bytes += bytes;
        if comes_home {
            self.came_home += 1;
        } else {
            effects.push(Effect::Write);
        }
        true
    }

    fn is_full(&self) -> bool {
        let Settings { transaction_records_max, transaction_bytes_max, .. } = self.settings;
        self.transaction.is_some_and(|open| open.records >= transaction_records_max || open.bytes >= transaction_bytes_max)
    }

    fn commit(&mut self, effects: &mut Vec<Effect>) {
        if self.transaction.is_some() {
            effects.push(Effect::Commit(self.moved()));
        }
    }

    /// The positions that the open transaction moves.
    fn moved(&self) -> Vec<(PositionKey, Position)> {
        let mut moved = Vec::new();
        for (topic, partitions) in &self.topics {
            for (partition, state) in (0_i32..).zip(partitions) {
                if let Some(next) = state.next.filter(|_| !state.stored || state.next != state.durable) {
                    let key = PositionKey { cluster_id: self.settings.source_cluster.clone(), topic: topic.clone(), partition };
                    moved.push((key, Position { next, epoch: self.epoch }));
                }
            }
        }
        moved
    }

    fn committed(&mut self) {
        self.transaction = None;
        for state in self.topics.values_mut().flatten() {
            if let Some(next) = state.next {
                (state.durable, state.stored) = (Some(next), true);
                state.lag.committed(next);
            }
        }
    }

    fn offset_missing(&mut self, topic: &str, partition: i32, first: i64, end: i64, effects: &mut Vec<Effect>) {
        let Some(state) = self.partition(topic, partition).filter(|state| state.stopped.is_none()) else { return };
        match state.next {
            // Never mirrored: the log moved on between asking for its start and reading it.
            _ if !state.stored => effects.push(Effect::FindStart { topic: topic.to_owned(), partition }),
            Some(next) if next < first => state.stop(topic, partition, StopReason::RetentionOvertook { next, first }, effects),
            Some(next) if next > end => state.stop(topic, partition, StopReason::LogIsShorter { next, end }, effects),
            // It is there now: a partition that changes its leader may not have it for a moment. The client has given up
            // reading and must be told again.
            Some(next) => effects.push(Effect::Read { topic: topic.to_owned(), partition, from: next }),
            None => {}
        }
    }

    /// The record is not part of the transaction after all, and nothing behind it may be mirrored before it.
    fn refused(&mut self, topic: &str, partition: i32, why: &str, effects: &mut Vec<Effect>) {
        if let Some(state) = self.partition(topic, partition)
            && let Some(next) = state.next
        {
            let offset = next - 1;
            state.next = Some(offset);
            state.stop(topic, partition, StopReason::RecordRefused { offset, why: why.to_owned() }, effects);
        }
    }

    fn ends(&mut self, at_ms: u64, ends: &BTreeMap<(String, i32), i64>) {
        for ((topic, partition), end) in ends {
            if let Some(state) = self.partition(topic, *partition)
                && let Some(durable) = state.durable
            {
                state.lag.measured(at_ms, *end, durable);
            }
        }
    }

    fn partition(&mut self, topic: &str, partition: i32) -> Option<&mut Partition> {
        self.topics.get_mut(topic)?.get_mut(usize::try_from(partition).ok()?)
    }
}

impl Partition {
    fn stop(&mut self, topic: &str, partition: i32, why: StopReason, effects: &mut Vec<Effect>) {
        self.stopped = Some(why.clone());
        effects.push(Effect::StopReading { topic: topic.to_owned(), partition, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: &str = "fraud.events.raw";

    fn settings() -> Settings {
        Settings {
            source_cluster: "us".into(),
            target_cluster: "eu".into(),
            transaction_interval_ms: 100,
            transaction_records_max: 3,
            transaction_bytes_max: 1_000,
        }
    }

    fn positions(next: i64) -> Positions {
        let mut positions = Positions::default();
        let key = PositionKey { cluster_id: "us".into(), topic: TOPIC.into(), partition: 0 };
        positions.insert(key, Position { next, epoch: Epoch(1) });
        positions
    }

    fn mirror(positions: Positions, partitions: u32) -> (Mirror, Vec<Effect>) {
        let mut mirror = Mirror::new(settings(), positions, Epoch(7));
        let effects = step(&mut mirror, &Event::Topics(&BTreeMap::from([(TOPIC.to_owned(), partitions)])));
        (mirror, effects)
    }

    fn step(mirror: &mut Mirror, event: &Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        mirror.step(event, &mut effects);
        effects
    }

    fn record(offset: i64, now_ms: u64) -> Event<'static> {
        Event::Record { topic: TOPIC, partition: 0, offset, bytes: 10, source: None, now_ms }
    }

    fn commit(next: i64) -> Effect {
        let key = PositionKey { cluster_id: "us".into(), topic: TOPIC.into(), partition: 0 };
        Effect::Commit(vec![(key, Position { next, epoch: Epoch(7) })])
    }

    #[test]
    fn a_partition_goes_on_where_its_position_says_and_a_new_one_begins_at_its_start() {
        let (mut mirror, effects) = mirror(positions(40), 2);
        assert_eq!(
            effects,
            [Effect::Read { topic: TOPIC.into(), partition: 0, from: 40 }, Effect::FindStart { topic: TOPIC.into(), partition: 1 },]
        );
        let effects = step(&mut mirror, &Event::Start { topic: TOPIC, partition: 1, offset: 5 });
        assert_eq!(effects, [Effect::Read { topic: TOPIC.into(), partition: 1, from: 5 }]);
        let grown = BTreeMap::from([(TOPIC.to_owned(), 3)]);
        assert_eq!(step(&mut mirror, &Event::Topics(&grown)), [Effect::FindStart { topic: TOPIC.into(), partition: 2 }]);
        assert_eq!(step(&mut mirror, &Event::Topics(&grown)), []);
    }

    #[test]
    fn a_transaction_ends_when_it_is_full_or_due_and_holds_the_position_after_its_last_record() {
        let (mut mirror, _) = mirror(positions(40), 1);
        assert_eq!(step(&mut mirror, &record(40, 0)), [Effect::BeginTransaction, Effect::Write]);
        assert_eq!(step(&mut mirror, &record(41, 1)), [Effect::Write]);
        // Offsets may have holes: compaction, and markers of transactions.
        assert_eq!(step(&mut mirror, &record(50, 2)), [Effect::Write, commit(51)]);
        step(&mut mirror, &Event::Committed);
        assert_eq!(mirror.due_ms(), None);

        step(&mut mirror, &record(51, 1_000));
        assert_eq!(mirror.due_ms(), Some(1_100));
        assert_eq!(step(&mut mirror, &Event::Tick { now_ms: 1_099 }), []);
        assert_eq!(step(&mut mirror, &Event::Tick { now_ms: 1_100 }), [commit(52)]);
    }

    #[test]
    fn stopping_commits_what_is_open_and_nothing_else() {
        let (mut mirror, _) = mirror(positions(40), 1);
        assert_eq!(step(&mut mirror, &Event::Stop), []);
        step(&mut mirror, &record(40, 0));
        assert_eq!(step(&mut mirror, &Event::Stop), [commit(41)]);
    }

    #[test]
    fn a_record_that_was_mirrored_already_is_not_written_again() {
        let (mut mirror, _) = mirror(positions(40), 1);
        assert_eq!(step(&mut mirror, &record(39, 0)), []);
        step(&mut mirror, &record(40, 0));
        assert_eq!(step(&mut mirror, &record(40, 0)), []);
    }

    #[test]
    fn a_record_that_this_target_wrote_first_does_not_come_home() {
        let (mut mirror, _) = mirror(positions(40), 1);
        let from = |cluster: &str| Source { cluster_id: cluster.into(), topic_id: "t".into(), partition: 0, offset: 1 };
        let (own, foreign) = (from("eu"), from("ap"));
        let home = Event::Record { topic: TOPIC, partition: 0, offset: 40, bytes: 1, source: Some(&own), now_ms: 0 };
        assert_eq!(step(&mut mirror, &home), [Effect::BeginTransaction]);
        let other = Event::Record { topic: TOPIC, partition: 0, offset: 41, bytes: 1, source: Some(&foreign), now_ms: 0 };
        assert_eq!(step(&mut mirror, &other), [Effect::Write]);
        assert_eq!(mirror.came_home(), 1);
        assert_eq!(step(&mut mirror, &Event::Stop), [commit(42)]);
    }

    #[test]
    fn a_partition_whose_next_record_is_gone_stops_and_is_never_skipped() {
        let (mut mirror, _) = mirror(positions(40), 1);
        let missing = Event::OffsetMissing { topic: TOPIC, partition: 0, first: 45, end: 90 };
        let why = StopReason::RetentionOvertook { next: 40, first: 45 };
        assert_eq!(step(&mut mirror, &missing), [Effect::StopReading { topic: TOPIC.into(), partition: 0, why: why.clone() }]);
        assert_eq!(step(&mut mirror, &record(45, 0)), []);
        assert_eq!(mirror.view(0, 1_000)[0].stopped, Some(&why));
    }

    #[test]
    fn a_log_that_is_shorter_than_its_position_stops() {
        let (mut mirror, _) = mirror(positions(40), 1);
        let effects = step(&mut mirror, &Event::OffsetMissing { topic: TOPIC, partition: 0, first: 0, end: 10 });
        let why = StopReason::LogIsShorter { next: 40, end: 10 };
        assert_eq!(effects, [Effect::StopReading { topic: TOPIC.into(), partition: 0, why }]);
    }

    #[test]
    fn an_offset_that_was_missing_for_a_moment_only_is_read_again() {
        let (mut mirror, _) = mirror(positions(40), 1);
        step(&mut mirror, &record(40, 0));
        let effects = step(&mut mirror, &Event::OffsetMissing { topic: TOPIC, partition: 0, first: 0, end: 90 });
        assert_eq!(effects, [Effect::Read { topic: TOPIC.into(), partition: 0, from: 41 }]);
    }

    #[test]
    fn a_start_that_moved_before_anything_was_mirrored_is_asked_again() {
        let (mut mirror, _) = mirror(Positions::default(), 1);
        step(&mut mirror, &Event::Start { topic: TOPIC, partition: 0, offset: 5 });
        let effects = step(&mut mirror, &Event::OffsetMissing { topic: TOPIC, partition: 0, first: 9, end: 20 });
        assert_eq!(effects, [Effect::FindStart { topic: TOPIC.into(), partition: 0 }]);
    }

    #[test]
    fn a_refused_record_stops_its_partition_before_it() {
        let (mut mirror, _) = mirror(positions(40), 1);
        step(&mut mirror, &record(40, 0));
        step(&mut mirror, &record(41, 0));
        let effects = step(&mut mirror, &Event::RecordRefused { topic: TOPIC, partition: 0, why: "too large" });
        assert!(matches!(&effects[..], [Effect::StopReading { why: StopReason::RecordRefused { offset: 41, .. }, .. }]), "{effects:?}");
        assert_eq!(step(&mut mirror, &Event::Stop), [commit(41)]);
    }

    #[test]
    fn lag_counts_what_is_committed_and_not_what_is_under_way() {
        let (mut mirror, _) = mirror(positions(40), 1);
        let ends = BTreeMap::from([((TOPIC.to_owned(), 0), 42)]);
        step(&mut mirror, &record(40, 0));
        step(&mut mirror, &record(41, 0));
        step(&mut mirror, &Event::Ends { at_ms: 50, ends: &ends });
        assert_eq!(mirror.view(60, 1_000)[0].lag.records.fresh(), Some(&2));
        step(&mut mirror, &Event::Stop);
        step(&mut mirror, &Event::Committed);
        assert_eq!(mirror.view(60, 1_000)[0].lag.records.fresh(), Some(&0));
    }
}
