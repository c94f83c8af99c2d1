//! A value taken apart, and put together again. Pure.

use std::{cmp::Ordering, mem};

use super::unique::Unique;
use crate::{
    panes::{Pane, Panes},
    profile::Profile,
    slot::{EventSlot, SLOT_BYTES, SlotBytes, bytes_at, put, tag, time_bytes, time_of},
};

/// Longer values are not read to their end: no writer makes them.
const SLOTS_MAX: usize = 1 << 18;
/// More than the longest window can take.
const PANES_MAX: usize = 2_048;
/// How many slots of newer versions are kept when a value is rewritten.
const UNKNOWN_MAX: usize = 64;

/// A value with one slot of each identity.
pub(super) struct Parts {
    pub(super) saturated_through_ms: Option<i64>,
    pub(super) profile: Profile,
    pub(super) panes: Panes,
    /// Of tags that this version does not know: kept as they are, so that an older builder does not undo a newer one.
    unknown: Vec<SlotBytes>,
    /// By (time, id).
    pub(super) events: Vec<EventSlot>,
    pub(super) unreadable: u32,
}

impl Parts {
    /// Reads any bytes; events in order.
    pub(super) fn read(value: &[u8]) -> Self {
        let (mut parts, unique) = Self::read_with_room(value, 0);
        parts.take_events(unique);
        parts
    }

    /// Reads any bytes, and gives the events apart, with room for `more` of them.
    pub(super) fn read_with_room(value: &[u8], more: usize) -> (Self, Unique) {
        let (all, torn) = value.as_chunks::<SLOT_BYTES>();
        let slots = &all[..all.len().min(SLOTS_MAX)];
        let mut parts = Self {
            saturated_through_ms: None,
            profile: Profile::default(),
            panes: Panes::default(),
            unknown: Vec::new(),
            events: Vec::new(),
            unreadable: u32::try_from(all.len() - slots.len()).unwrap_or(u32::MAX).saturating_add(u32::from(!torn.is_empty())),
        };
        let mut unique = Unique::with_room_for(slots.len().saturating_add(more));
        let mut rest = slots;
        while let Some((slot, after)) = rest.split_first() {
            rest = after;
            match (slot[0], after.first()) {
                (tag::EVENT, _) => parts.count(EventSlot::read(slot).map(|slot| unique.note(slot)).is_some()),
                (tag::PANE, Some(sketch)) if sketch[0] == tag::PANE_SKETCH => {
                    parts.read_pane(slot, sketch);
                    rest = &after[1..];
                }
                _ => parts.read_other(slot),
            }
        }
        let excess = parts.unknown.len().saturating_sub(UNKNOWN_MAX);
        parts.unknown.drain(..excess);
        (parts, unique)
    }

    fn read_pane(&mut self, numbers: &SlotBytes, sketch: &SlotBytes) {
        match Pane::read(numbers, sketch).filter(|_| self.panes.as_slice().len() < PANES_MAX) {
            Some(pane) => self.panes.unite_one(pane),
            None => self.count(false),
        }
    }

    fn read_other(&mut self, slot: &SlotBytes) {
        match slot[0] {
            tag::PROFILE | tag::DEVICES | tag::COUNTRIES | tag::BATCH_VALUE => {
                let readable = self.profile.read_slot(slot);
                self.count(readable);
            }
            tag::SATURATED => self.note_saturated(time_of(bytes_at(slot, 1))),
            // Half a pane.
            tag::PANE | tag::PANE_SKETCH => self.count(false),
            _ => {
                self.count(false);
                self.unknown.push(*slot);
            }
        }
    }

    fn count(&mut self, readable: bool) {
        self.unreadable = self.unreadable.saturating_add(u32::from(!readable));
    }

    fn note_saturated(&mut self, through_ms: i64) {
        self.saturated_through_ms = self.saturated_through_ms.max(Some(through_ms));
    }

    pub(super) fn take_events(&mut self, unique: Unique) {
        self.events = unique.slots;
        // The builder's part is in order, and what was appended nearly is: a stable sort finds such runs.
        if !self.events.is_sorted_by(|a, b| a.in_order(b) == Ordering::Less) {
            self.events.sort_by(EventSlot::in_order);
        }
    }

    /// Keeps the newest `events_max` events; gives the others.
    pub(super) fn cap(&mut self, events_max: usize) -> Vec<EventSlot> {
        let dropped = self.take_oldest(i64::MAX, events_max);
        if let Some(newest) = dropped.last() {
            self.note_saturated(newest.time_ms());
        }
        dropped
    }

    /// The events up to and including `time_ms`, but at most all except the newest `kept`: they leave the exact part.
    pub(super) fn take_oldest(&mut self, time_ms: i64, kept: usize) -> Vec<EventSlot> {
        let old = self.events.partition_point(|slot| slot.time_ms() <= time_ms);
        let leaving = old.min(self.events.len().saturating_sub(kept));
        if leaving == 0 {
            return Vec::new();
        }
        let newer = self.events.split_off(leaving);
        mem::replace(&mut self.events, newer)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let slots = 8 + 2 * self.panes.as_slice().len() + self.unknown.len() + self.events.len();
        let mut value = Vec::with_capacity(slots * SLOT_BYTES);
        if let Some(through_ms) = self.saturated_through_ms {
            let mut slot = [0; SLOT_BYTES];
            slot[0] = tag::SATURATED;
            put(&mut slot, 1, time_bytes(through_ms));
            value.extend(slot);
        }
        self.profile.encode(&mut value);
        self.panes.as_slice().iter().for_each(|pane| value.extend(pane.encode().as_flattened()));
        value.extend(self.unknown.as_flattened());
        self.events.iter().for_each(|slot| value.extend_from_slice(slot.bytes()));
        value
    }
}
