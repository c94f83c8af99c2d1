//! The 32-byte slots of which an entity's value consists, and the codec of the event slot. Pure.
//!
//! Each slot begins with a tag that names its format, version included; a reader skips and counts tags that it does not
//! know. Numbers are big-endian.
//!
//! | bytes | event slot |
//! |---|---|
//! | 0 | tag |
//! | 1 to 10 | identity ([`RecordId`]) |
//! | 11 to 19 | 24 bits of hash each of merchant, card, device (0: none) |
//! | 20 to 31 | 96 bits, highest first: mark 1, kind 3, outcome 2, time 42 (ms), country 10 (0: none), amount 38 (0: not known, n + 1: n) |
//!
//! Apart from the mark, a record has exactly one encoding. Slots come from a shared store and are untrusted: what no writer
//! writes is not decoded, and nothing panics.

use std::cmp::Ordering;

use crate::{
    codes::Country,
    event::{EventKind, Outcome},
    record::{AMOUNT_BASE_MINOR_MAX, Record, RecordId, TIME_MS_MAX},
};

pub const SLOT_BYTES: usize = 32;
/// The bytes of one slot.
pub type SlotBytes = [u8; SLOT_BYTES];

/// The first byte of a slot. Never used again for another meaning.
pub(crate) mod tag {
    pub(crate) const EVENT: u8 = 0x01;
    pub(crate) const PANE: u8 = 0x11;
    /// The second half of a pane; directly after the first.
    pub(crate) const PANE_SKETCH: u8 = 0x12;
    pub(crate) const PROFILE: u8 = 0x21;
    pub(crate) const DEVICES: u8 = 0x22;
    pub(crate) const COUNTRIES: u8 = 0x23;
    pub(crate) const BATCH_VALUE: u8 = 0x24;
    /// That records were left out because there were too many.
    pub(crate) const SATURATED: u8 = 0x31;
}

const HASHES_AT: usize = 11;
const BITS_AT: usize = 20;
const AMOUNT_AT: usize = 28;
const MARK: u8 = 0x80;
const TIME_MASK: u64 = (1 << 42) - 1;

/// An event slot that decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EventSlot(SlotBytes);

impl EventSlot {
    /// `folded`: whether the record comes from a log. The decision path appends without, the builder sets it.
    pub(crate) fn new(record: &Record, folded: bool) -> Self {
        let mut slot = [0; SLOT_BYTES];
        slot[0] = tag::EVENT;
        slot[1..HASHES_AT].copy_from_slice(&record.id.0);
        let amount = record.amount_base_minor.map_or(0, |amount| amount.clamp(0, AMOUNT_BASE_MINOR_MAX).unsigned_abs() + 1);
        let word = (u64::from(folded) << 63)
            | (kind_code(record.kind) << 60)
            | (outcome_code(record.outcome) << 58)
            | (record.time_ms.clamp(0, TIME_MS_MAX).unsigned_abs() << 16)
            | (u64::from(record.country.map_or(0, Country::ordinal)) << 6)
            | (amount >> 32);
        slot[BITS_AT..AMOUNT_AT].copy_from_slice(&word.to_be_bytes());
        slot[AMOUNT_AT..].copy_from_slice(&amount.to_be_bytes()[4..]);
        for (place, hash) in slot[HASHES_AT..BITS_AT].chunks_exact_mut(3).zip([record.merchant, record.card, record.device]) {
            place.copy_from_slice(&hash.unwrap_or(0).to_be_bytes()[1..]);
        }
        Self(slot)
    }

    /// `None` when a field holds what no writer writes.
    pub(crate) fn read(slot: &SlotBytes) -> Option<Self> {
        is_event(slot).then_some(Self(*slot))
    }

    pub(crate) fn bytes(&self) -> &SlotBytes {
        &self.0
    }

    pub(crate) fn id(&self) -> RecordId {
        id_of(&self.0)
    }

    pub(crate) fn time_ms(&self) -> i64 {
        time_ms_of(&self.0)
    }

    /// By (time, id): the order in which an entity's records are kept, and of which the newest are kept.
    pub(crate) fn in_order(&self, other: &Self) -> Ordering {
        self.time_ms().cmp(&other.time_ms()).then_with(|| self.id().cmp(&other.id()))
    }

    pub(crate) fn is_folded(&self) -> bool {
        self.0[BITS_AT] & MARK != 0
    }

    pub(crate) fn mark_folded(&mut self) {
        mark_folded(&mut self.0);
    }

    pub(crate) fn unmark(&mut self) {
        self.0[BITS_AT] &= !MARK;
    }

    pub(crate) fn unmarked(mut self) -> Self {
        self.unmark();
        self
    }

    /// Which of two slots of one identity an entity keeps: the smaller by (content, time), whatever their marks. A total
    /// order, so that every reader keeps the same one whatever order it learned of them.
    pub(crate) fn wins_over(&self, other: &Self) -> bool {
        self.content().cmp(&other.content()).then(self.time_ms().cmp(&other.time_ms())) == Ordering::Less
    }

    /// Everything but mark and time.
    fn content(&self) -> (u64, &[u8], &[u8]) {
        (word_of(&self.0) & !((TIME_MASK << 16) | (1 << 63)), &self.0[AMOUNT_AT..], &self.0[HASHES_AT..BITS_AT])
    }

    // A copy of what has just been decoded would cost more than the decoding.
    #[inline(always)]
    pub(crate) fn record(&self) -> Record {
        let word = word_of(&self.0);
        let amount = ((word & 0x3f) << 32) | u64::from(u32::from_be_bytes(bytes_at(&self.0, AMOUNT_AT)));
        let hash = |at: usize| {
            let [high, middle, low] = bytes_at(&self.0, at);
            Some(u32::from_be_bytes([0, high, middle, low])).filter(|hash| *hash != 0)
        };
        Record {
            id: self.id(),
            time_ms: self.time_ms(),
            // Never missing: see `read`.
            kind: kind_of(word >> 60).unwrap_or(EventKind::PaymentAttempt),
            outcome: outcome_of(word >> 58),
            amount_base_minor: amount.checked_sub(1).map(u64::cast_signed),
            merchant: hash(HASHES_AT),
            card: hash(HASHES_AT + 3),
            device: hash(HASHES_AT + 6),
            country: u16::try_from((word >> 6) & 0x3ff).ok().and_then(Country::from_ordinal),
        }
    }
}

/// Whether these bytes are an event slot that decodes.
pub(crate) fn is_event(slot: &SlotBytes) -> bool {
    let word = word_of(slot);
    slot[0] == tag::EVENT && kind_of(word >> 60).is_some() && (word >> 6) & 0x3ff <= u64::from(Country::ORDINAL_MAX)
}

/// Of an event slot.
pub(crate) fn id_of(slot: &SlotBytes) -> RecordId {
    RecordId(bytes_at(slot, 1))
}

/// Of an event slot.
pub(crate) fn time_ms_of(slot: &SlotBytes) -> i64 {
    ((word_of(slot) >> 16) & TIME_MASK).cast_signed()
}

/// Mark, kind, outcome, time, country and the highest bits of the amount.
fn word_of(slot: &SlotBytes) -> u64 {
    u64::from_be_bytes(bytes_at(slot, BITS_AT))
}

impl Record {
    /// What the decision path appends.
    pub fn slot(&self) -> SlotBytes {
        EventSlot::new(self, false).0
    }
}

/// Marks an event slot as folded from a log.
pub(crate) fn mark_folded(slot: &mut SlotBytes) {
    slot[BITS_AT] |= MARK;
}

/// `N` bytes of a slot; zeros where it has none.
pub(crate) fn bytes_at<const N: usize>(slot: &SlotBytes, at: usize) -> [u8; N] {
    slot.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
}

pub(crate) fn put<const N: usize>(slot: &mut SlotBytes, at: usize, bytes: [u8; N]) {
    if let Some(place) = slot.get_mut(at..at + N) {
        place.copy_from_slice(&bytes);
    }
}

/// A time in six bytes; what does not fit becomes what is nearest to it.
pub(crate) fn time_bytes(time_ms: i64) -> [u8; 6] {
    let [_, _, rest @ ..] = time_ms.clamp(0, TIME_MS_MAX).to_be_bytes();
    rest
}

pub(crate) fn time_of(bytes: [u8; 6]) -> i64 {
    let [a, b, c, d, e, f] = bytes;
    i64::from_be_bytes([0, 0, a, b, c, d, e, f]).min(TIME_MS_MAX)
}

/// Codes in slots are their own, so that no change of the wire format can change what is stored.
fn kind_code(kind: EventKind) -> u64 {
    match kind {
        EventKind::PaymentAttempt => 1,
        EventKind::Outcome => 2,
        EventKind::Refund => 3,
        EventKind::Order => 4,
        EventKind::Loyalty => 5,
    }
}

/// Of the lowest three bits.
fn kind_of(bits: u64) -> Option<EventKind> {
    match bits & 7 {
        1 => Some(EventKind::PaymentAttempt),
        2 => Some(EventKind::Outcome),
        3 => Some(EventKind::Refund),
        4 => Some(EventKind::Order),
        5 => Some(EventKind::Loyalty),
        _ => None,
    }
}

fn outcome_code(outcome: Option<Outcome>) -> u64 {
    match outcome {
        None => 0,
        Some(Outcome::Approved) => 1,
        Some(Outcome::Declined) => 2,
        Some(Outcome::Reviewed) => 3,
    }
}

/// Of the lowest two bits.
fn outcome_of(bits: u64) -> Option<Outcome> {
    match bits & 3 {
        1 => Some(Outcome::Approved),
        2 => Some(Outcome::Declined),
        3 => Some(Outcome::Reviewed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_record, payment};

    #[test]
    fn the_bytes_of_a_slot_are_a_contract_with_other_versions() {
        let mut record = Record::of(&payment("t-1", 1_700_000_000_000));
        record.id = RecordId([0xaa; 10]);
        record.merchant = Some(0x02_0304);
        let slot = hex::encode(EventSlot::new(&record, true).0);
        assert_eq!(slot, "01aaaaaaaaaaaaaaaaaaaa020304020202030303918bcfe56800250000000870");
        assert_eq!(EventSlot::new(&record, true).unmarked().0, record.slot());
    }

    #[test]
    fn an_amount_or_a_time_that_is_too_large_is_kept_as_the_largest_and_stays_known() {
        let mut event = payment("t-1", 1_700_000_000_000);
        event.amount.as_mut().unwrap().amount_base_minor = Some(i64::MAX);
        let record = Record::of(&event);
        assert_eq!(record.amount_base_minor, Some(AMOUNT_BASE_MINOR_MAX));
        assert_eq!(EventSlot::read(&record.slot()).unwrap().record(), record);
        let beyond = Record { time_ms: i64::MAX, ..record };
        assert_eq!(EventSlot::read(&beyond.slot()).unwrap().time_ms(), TIME_MS_MAX);
    }

    proptest! {
        #[test]
        fn every_record_reads_back(record in any_record(), folded: bool) {
            let slot = EventSlot::new(&record, folded);
            let read = EventSlot::read(slot.bytes()).unwrap();
            prop_assert_eq!((read.record(), read.is_folded(), read.time_ms(), read.id()), (record, folded, record.time_ms, record.id));
        }

        #[test]
        fn bytes_that_decode_are_the_encoding_of_what_they_decode_to(mut bytes: SlotBytes, tagged: bool) {
            if tagged {
                bytes[0] = tag::EVENT;
            }
            if let Some(slot) = EventSlot::read(&bytes) {
                prop_assert_eq!(EventSlot::new(&slot.record(), slot.is_folded()).0, bytes);
            }
        }

        #[test]
        fn of_two_different_contents_exactly_one_wins(a in any_record(), b in any_record(), marks: (bool, bool)) {
            let (a, b) = (EventSlot::new(&a, marks.0), EventSlot::new(&Record { id: a.id, ..b }, marks.1));
            prop_assert_eq!(a.wins_over(&b) ^ b.wins_over(&a), a.unmarked() != b.unmarked());
            prop_assert!(!a.wins_over(&EventSlot::new(&a.record(), !a.is_folded())));
        }
    }
}
