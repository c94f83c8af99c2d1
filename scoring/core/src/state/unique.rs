//! One slot of each identity. Pure.

use crate::{record::RecordId, slot::EventSlot};

/// What became of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noted {
    New,
    /// The identity was there.
    Known {
        was_folded: bool,
        same: bool,
    },
}

/// Where each identity is in a list: open addressing, because an identity is a hash already. Places are stored plus one; 0 is
/// a free place.
pub(super) struct Places {
    table: Vec<u32>,
}

impl Places {
    pub(super) fn with_room_for(count: usize) -> Self {
        Self { table: vec![0; count.saturating_mul(4).next_power_of_two().max(2)] }
    }

    /// The place of the identity; if it has none, it gets `place`.
    pub(super) fn find_or_set(&mut self, id: RecordId, place: usize, id_at: impl Fn(usize) -> RecordId) -> Option<usize> {
        let mask = self.table.len() - 1;
        let mut at = usize::from(u16::from_be_bytes([id.0[8], id.0[9]])) | (usize::from(id.0[7]) << 16);
        loop {
            at &= mask;
            match usize::try_from(self.table[at]).unwrap_or(0).checked_sub(1) {
                None => {
                    self.table[at] = u32::try_from(place + 1).unwrap_or(u32::MAX);
                    return None;
                }
                Some(found) if id_at(found) == id => return Some(found),
                Some(_) => at += 1,
            }
        }
    }
}

/// Slots of which no two have the same identity.
pub(super) struct Unique {
    pub(super) slots: Vec<EventSlot>,
    places: Places,
}

impl Unique {
    pub(super) fn with_room_for(count: usize) -> Self {
        Self { slots: Vec::with_capacity(count), places: Places::with_room_for(count) }
    }

    /// Keeps the winner, and the mark of either.
    pub(super) fn note(&mut self, slot: EventSlot) -> Noted {
        let Some(place) = self.places.find_or_set(slot.id(), self.slots.len(), |place| self.slots[place].id()) else {
            self.slots.push(slot);
            return Noted::New;
        };
        let kept = &mut self.slots[place];
        let noted = Noted::Known { was_folded: kept.is_folded(), same: kept.unmarked() == slot.unmarked() };
        let folded = kept.is_folded() || slot.is_folded();
        if slot.wins_over(kept) {
            *kept = slot;
        }
        if folded {
            kept.mark_folded();
        }
        noted
    }
}
