//! The set of events of one entity: union is the merge, so nothing is ever counted twice. Pure.

use std::collections::BTreeMap;

use crate::{
    encoding::Record,
    event::{EntityKind, Identity},
};

/// How many events a set keeps when nothing else is configured.
pub const EVENTS_PER_ENTITY_MAX: usize = 512;

/// A bounded set of events, at most one of each identity.
///
/// Guarantees: inserting and merging are idempotent and do not depend on order, as long as the set is not
/// [saturated](Self::saturated). A saturated set keeps the newest events by (time, identity); it is the same in every
/// order too, unless events of one identity disagree about their time, which first acceptors prevent by fixing it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSet {
    /// Ordered by (time, identity).
    records: Vec<Record>,
    events_max: usize,
    saturated: bool,
}

impl EventSet {
    /// An empty set that keeps the newest `events_max` events.
    pub fn new(events_max: usize) -> Self {
        Self { records: Vec::new(), events_max, saturated: false }
    }

    /// The set of all `records`, in any order, with any repetition.
    pub fn from_records(records: impl IntoIterator<Item = Record>, events_max: usize) -> Self {
        let mut by_identity: BTreeMap<Identity, Record> = BTreeMap::new();
        for record in records {
            by_identity.entry(record.identity).and_modify(|kept| keep_winner(kept, record)).or_insert(record);
        }
        let mut set = Self { records: by_identity.into_values().collect(), events_max, saturated: false };
        set.records.sort_unstable_by_key(order);
        set.cap();
        set
    }

    pub fn insert(&mut self, record: Record) {
        match self.records.iter().position(|kept| kept.identity == record.identity) {
            Some(index) if record.wins_over(&self.records[index]) => drop(self.records.remove(index)),
            Some(_) => return,
            None => {}
        }
        let index = self.records.partition_point(|kept| order(kept) < order(&record));
        self.records.insert(index, record);
        self.cap();
    }

    /// Adds all events of another set of the same entity.
    pub fn merge(&mut self, other: &Self) {
        self.saturated |= other.saturated;
        other.records.iter().for_each(|record| self.insert(*record));
    }

    /// Forgets the events up to and including `time_ms`.
    pub fn forget_through(&mut self, time_ms: i64) {
        let gone = self.records.partition_point(|record| record.time_ms <= time_ms);
        self.records.drain(..gone);
    }

    /// Tells the set that its source held more events than could be read.
    #[must_use]
    pub fn with_saturated(mut self, saturated: bool) -> Self {
        self.saturated |= saturated;
        self
    }

    /// Ordered by (time, identity).
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The events after `after_ms` up to and including `through_ms`.
    pub fn between(&self, after_ms: i64, through_ms: i64) -> &[Record] {
        let first = self.records.partition_point(|record| record.time_ms <= after_ms);
        let last = self.records.partition_point(|record| record.time_ms <= through_ms);
        &self.records[first..last.max(first)]
    }

    /// Whether older events were left out, so that counts over long windows are lower bounds.
    pub fn saturated(&self) -> bool {
        self.saturated
    }

    pub fn newest_time_ms(&self) -> Option<i64> {
        self.records.last().map(|record| record.time_ms)
    }

    fn cap(&mut self) {
        let excess = self.records.len().saturating_sub(self.events_max);
        self.saturated |= excess > 0;
        self.records.drain(..excess);
    }
}

fn order(record: &Record) -> (i64, Identity) {
    (record.time_ms, record.identity)
}

fn keep_winner(kept: &mut Record, record: Record) {
    if record.wins_over(kept) {
        *kept = record;
    }
}

/// What is known of the entities of one event, by kind: the set, or `None` when the event has no such entity or the set
/// could not be read. Both are NaN to the model; an empty set is not: it says that there were no events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntitySets([Option<EventSet>; EntityKind::ALL.len()]);

impl EntitySets {
    pub fn get(&self, kind: EntityKind) -> Option<&EventSet> {
        self.0[kind.index()].as_ref()
    }

    pub fn set(&mut self, kind: EntityKind, set: EventSet) {
        self.0[kind.index()] = Some(set);
    }

    /// Those that are known, in the order of [`EntityKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (EntityKind, &EventSet)> {
        EntityKind::ALL.iter().filter_map(|&kind| self.get(kind).map(|set| (kind, set)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{few_records, record};

    fn set(records: &[Record], events_max: usize) -> EventSet {
        let mut set = EventSet::new(events_max);
        records.iter().for_each(|record| set.insert(*record));
        set
    }

    /// The definition, without any cleverness: of each identity the smallest (encoding, time).
    fn oracle(records: &[Record]) -> Vec<Record> {
        let mut kept: Vec<Record> = Vec::new();
        for record in records {
            let smallest = records
                .iter()
                .filter(|other| other.identity == record.identity)
                .min_by_key(|other| (other.encode(), other.time_ms))
                .unwrap_or(record);
            if !kept.contains(smallest) {
                kept.push(*smallest);
            }
        }
        kept.sort_by_key(order);
        kept
    }

    #[test]
    fn a_retry_with_other_content_counts_once_and_all_readers_keep_the_same_one() {
        let first = record(1, 1_000);
        let differing = Record { amount_base_minor: Some(7), ..first };
        let (forth, back) = (set(&[first, differing], 9), set(&[differing, first], 9));
        assert_eq!(forth, back);
        assert_eq!(forth.records().len(), 1);
    }

    #[test]
    fn a_full_set_keeps_the_newest_and_says_that_it_is_saturated() {
        let records: Vec<Record> = (0..5).map(|n| record(n, 1_000 + i64::from(n))).collect();
        let full = set(&records, 3);
        assert_eq!(full.records(), &records[2..]);
        assert!(full.saturated());
        assert!(!set(&records, 5).saturated());
        assert!(!set(&[records[0]; 9], 3).saturated());
    }

    #[test]
    fn forgetting_leaves_what_is_newer() {
        let records: Vec<Record> = (0..4).map(|n| record(n, i64::from(n))).collect();
        let mut kept = set(&records, 9);
        kept.forget_through(1);
        assert_eq!(kept.records(), &records[2..]);
        assert_eq!(kept.between(2, 3), &records[3..]);
        assert_eq!(kept.between(3, 1), &[]);
    }

    proptest! {
        #[test]
        fn a_set_is_what_the_definition_says_in_any_order(records in few_records(), seed: prop::sample::Index) {
            let expected = oracle(&records);
            let forward = set(&records, 99);
            prop_assert_eq!(forward.records(), expected.as_slice());
            let mut rotated = records.clone();
            rotated.rotate_left(seed.index(records.len()));
            rotated.reverse();
            prop_assert_eq!(&set(&rotated, 99), &forward);
            prop_assert_eq!(EventSet::from_records(rotated, 99), forward);
        }

        #[test]
        fn merging_is_idempotent_commutative_and_associative(a in few_records(), b in few_records(), c in few_records()) {
            let (a, b, c) = (set(&a, 99), set(&b, 99), set(&c, 99));
            let merged = |x: &EventSet, y: &EventSet| { let mut x = x.clone(); x.merge(y); x };
            prop_assert_eq!(merged(&a, &a), a.clone());
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
        }

        #[test]
        fn a_saturated_set_is_the_same_in_any_order_when_times_agree(records in few_records(), events_max in 1_usize..6) {
            // The time follows from the identity, as it does when the first acceptor fixes it.
            let records: Vec<Record> = records.iter().map(|r| Record { time_ms: i64::from(r.identity.0[0]) * 10, ..*r }).collect();
            let forward = set(&records, events_max);
            let mut backward = records.clone();
            backward.reverse();
            prop_assert_eq!(&set(&backward, events_max), &forward);
            prop_assert_eq!(EventSet::from_records(records, events_max), forward);
        }
    }
}
