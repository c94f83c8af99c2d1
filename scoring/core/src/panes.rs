//! Panes: what is kept of an entity's attempts of ten minutes once their records are gone. Pure.
//!
//! A pane takes two slots, one directly after the other:
//!
//! | bytes | first slot | bytes | second slot |
//! |---|---|---|---|
//! | 0 | tag | 0 | tag |
//! | 1 to 4 | index: time divided by the width | 1 to 31 | sketch of different merchants, countries, devices, cards |
//! | 5 to 6 | width in seconds | | |
//! | 7 to 10 | attempts | | |
//! | 11 to 14 | attempts with a known amount | | |
//! | 15 to 22 | sum of those amounts | | |
//! | 23 to 27 | the largest of them | | |
//! | 28 to 31 | time of the latest attempt, ms after the pane's start | | |
//!
//! Only the guarded writer makes panes, so they are exactly-once as far as its log positions are.

use crate::{
    record::{AMOUNT_BASE_MINOR_MAX, Record},
    sketch::{Sketch, values_of},
    slot::{SLOT_BYTES, SlotBytes, bytes_at, put, tag},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pane {
    index: u32,
    /// In seconds.
    width_s: u16,
    attempts: u32,
    amounts: u32,
    sum_minor: u64,
    max_minor: u64,
    last_after_ms: u32,
    pub(crate) sketch: Sketch,
}

impl Pane {
    /// An empty pane for this time; `None` for a time or width that no slot can hold.
    fn at(time_ms: i64, pane_ms: i64) -> Option<Self> {
        let width_s = u16::try_from(pane_ms / 1_000).ok().filter(|width| *width > 0)?;
        let index = u32::try_from(time_ms.div_euclid(i64::from(width_s) * 1_000)).ok()?;
        Some(Self { index, width_s, attempts: 0, amounts: 0, sum_minor: 0, max_minor: 0, last_after_ms: 0, sketch: Sketch::default() })
    }

    fn add(&mut self, record: &Record) {
        self.attempts = self.attempts.saturating_add(1);
        if let Some(amount) = record.amount_base_minor {
            self.amounts = self.amounts.saturating_add(1);
            self.sum_minor = self.sum_minor.saturating_add(amount.unsigned_abs());
            self.max_minor = self.max_minor.max(amount.unsigned_abs());
        }
        self.last_after_ms = self.last_after_ms.max(u32::try_from(record.time_ms - self.start_ms()).unwrap_or(0));
        self.sketch.note(values_of(record));
    }

    /// Two panes of one time never come from writers; if damage made them, the larger of each counts.
    fn unite(&mut self, other: &Self) {
        self.attempts = self.attempts.max(other.attempts);
        self.amounts = self.amounts.max(other.amounts);
        self.sum_minor = self.sum_minor.max(other.sum_minor);
        self.max_minor = self.max_minor.max(other.max_minor);
        self.last_after_ms = self.last_after_ms.max(other.last_after_ms);
        self.sketch.unite(&other.sketch);
    }

    fn width_ms(&self) -> i64 {
        i64::from(self.width_s) * 1_000
    }

    pub fn start_ms(&self) -> i64 {
        i64::from(self.index) * self.width_ms()
    }

    /// The first time that is not in it any more.
    pub fn end_ms(&self) -> i64 {
        self.start_ms() + self.width_ms()
    }

    /// The time of its latest attempt.
    pub fn last_ms(&self) -> i64 {
        self.start_ms() + i64::from(self.last_after_ms)
    }

    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How many of its attempts have a known amount.
    pub fn amounts(&self) -> u32 {
        self.amounts
    }

    pub fn sum_minor(&self) -> u64 {
        self.sum_minor
    }

    pub fn max_minor(&self) -> i64 {
        self.max_minor.min(AMOUNT_BASE_MINOR_MAX.unsigned_abs()).cast_signed()
    }

    fn order(&self) -> (i64, u16) {
        (self.start_ms(), self.width_s)
    }

    pub(crate) fn encode(&self) -> [SlotBytes; 2] {
        let (mut numbers, mut sketch) = ([0; SLOT_BYTES], [0; SLOT_BYTES]);
        numbers[0] = tag::PANE;
        put(&mut numbers, 1, self.index.to_be_bytes());
        put(&mut numbers, 5, self.width_s.to_be_bytes());
        put(&mut numbers, 7, self.attempts.to_be_bytes());
        put(&mut numbers, 11, self.amounts.to_be_bytes());
        put(&mut numbers, 15, self.sum_minor.to_be_bytes());
        let [_, _, _, max @ ..] = self.max_minor.to_be_bytes();
        put(&mut numbers, 23, max);
        put(&mut numbers, 28, self.last_after_ms.to_be_bytes());
        sketch[0] = tag::PANE_SKETCH;
        put(&mut sketch, 1, self.sketch.bytes());
        [numbers, sketch]
    }

    /// `None` for what no writer writes.
    pub(crate) fn read(numbers: &SlotBytes, sketch: &SlotBytes) -> Option<Self> {
        let [a, b, c, d, e] = bytes_at(numbers, 23);
        let pane = Self {
            index: u32::from_be_bytes(bytes_at(numbers, 1)),
            width_s: u16::from_be_bytes(bytes_at(numbers, 5)),
            attempts: u32::from_be_bytes(bytes_at(numbers, 7)),
            amounts: u32::from_be_bytes(bytes_at(numbers, 11)),
            sum_minor: u64::from_be_bytes(bytes_at(numbers, 15)),
            max_minor: u64::from_be_bytes([0, 0, 0, a, b, c, d, e]),
            last_after_ms: u32::from_be_bytes(bytes_at(numbers, 28)),
            sketch: Sketch::from_bytes(bytes_at(sketch, 1)),
        };
        let tagged = numbers[0] == tag::PANE && sketch[0] == tag::PANE_SKETCH;
        let plausible = pane.width_s > 0 && pane.amounts <= pane.attempts && i64::from(pane.last_after_ms) < pane.width_ms();
        (tagged && plausible).then_some(pane)
    }

    /// Whether the slot is the first of a pane that ends by `time_ms`.
    pub(crate) fn slot_ends_by(numbers: &SlotBytes, time_ms: i64) -> bool {
        let width_ms = i64::from(u16::from_be_bytes(bytes_at(numbers, 5))) * 1_000;
        (i64::from(u32::from_be_bytes(bytes_at(numbers, 1))) + 1) * width_ms <= time_ms
    }
}

/// The panes of an entity, by time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Panes(Vec<Pane>);

impl Panes {
    /// Oldest first.
    pub fn as_slice(&self) -> &[Pane] {
        &self.0
    }

    /// Adds a record that leaves the exact part. Only attempts count.
    pub(crate) fn add(&mut self, record: &Record, pane_ms: i64) {
        if !record.is_attempt() {
            return;
        }
        let Some(empty) = Pane::at(record.time_ms, pane_ms) else { return };
        let place = self.0.partition_point(|pane| pane.order() < empty.order());
        if self.0.get(place).is_none_or(|pane| pane.order() != empty.order()) {
            self.0.insert(place, empty);
        }
        self.0[place].add(record);
    }

    pub(crate) fn unite_one(&mut self, other: Pane) {
        // As they are written: by time.
        if self.0.last().is_none_or(|last| last.order() < other.order()) {
            return self.0.push(other);
        }
        let place = self.0.partition_point(|pane| pane.order() < other.order());
        match self.0.get_mut(place).filter(|pane| pane.order() == other.order()) {
            Some(pane) => pane.unite(&other),
            None => self.0.insert(place, other),
        }
    }

    pub(crate) fn forget_ended_by(&mut self, time_ms: i64) {
        self.0.retain(|pane| pane.end_ms() > time_ms);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_record, record};

    #[test]
    fn a_pane_holds_the_attempts_of_its_ten_minutes() {
        let mut panes = Panes::default();
        for (id, time_ms) in [(1, 600_000), (2, 1_199_999), (3, 1_200_000)] {
            panes.add(&record(id, time_ms), 600_000);
        }
        panes.add(&crate::record::Record { kind: crate::event::EventKind::Refund, ..record(4, 700_000) }, 600_000);
        let ends: Vec<_> = panes.as_slice().iter().map(|pane| (pane.attempts(), pane.sum_minor(), pane.last_ms(), pane.end_ms())).collect();
        assert_eq!(ends, [(2, 200, 1_199_999, 1_200_000), (1, 100, 1_200_000, 1_800_000)]);
        panes.forget_ended_by(1_200_000);
        assert_eq!(panes.as_slice().len(), 1);
    }

    #[test]
    fn a_pane_without_a_known_amount_has_none() {
        let mut panes = Panes::default();
        panes.add(&crate::record::Record { amount_base_minor: None, ..record(1, 5) }, 1_000);
        assert_eq!((panes.as_slice()[0].attempts(), panes.as_slice()[0].amounts()), (1, 0));
    }

    proptest! {
        #[test]
        fn panes_read_back(records in prop::collection::vec(any_record(), 1..40)) {
            let mut panes = Panes::default();
            records.iter().for_each(|record| panes.add(record, 600_000));
            for pane in panes.as_slice() {
                let [numbers, sketch] = pane.encode();
                prop_assert_eq!(Pane::read(&numbers, &sketch), Some(*pane));
                prop_assert!(Pane::slot_ends_by(&numbers, pane.end_ms()) && !Pane::slot_ends_by(&numbers, pane.end_ms() - 1));
            }
        }

        #[test]
        fn bytes_that_decode_are_the_encoding_of_what_they_decode_to(mut numbers: SlotBytes, mut sketch: SlotBytes) {
            (numbers[0], sketch[0]) = (tag::PANE, tag::PANE_SKETCH);
            if let Some(pane) = Pane::read(&numbers, &sketch) {
                prop_assert_eq!(pane.encode(), [numbers, sketch]);
            }
        }

        #[test]
        fn the_order_of_adding_does_not_matter(mut records in prop::collection::vec(any_record(), 1..40)) {
            let sum = |records: &[Record]| { let mut p = Panes::default(); records.iter().for_each(|r| p.add(r, 600_000)); p };
            let forward = sum(&records);
            records.reverse();
            prop_assert_eq!(forward, sum(&records));
        }
    }
}
