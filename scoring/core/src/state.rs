//! The value of an entity: everything that the store knows of it, as a sequence of [slots](crate::slot). Pure.
//!
//! Written by the builder: at most one saturation marker, the profile, panes by time, slots that this version does not know,
//! then records by (time, id). Behind that the decision path appends records ([`Record::slot`]), in any order, with any
//! repetition. Readers make one record of each identity ([`EntityState::parse`]); the builder [`fold`]s logs into it.
//!
//! Guarantees: what an entity's value means does not depend on the order in which records were appended or folded, nor on
//! how often, as long as it is not [saturated](EntityState::saturated), and apart from records that were folded into a pane
//! and come again (the positions in the logs, stored with the values, prevent that). Any bytes can be read.

use crate::{event::EntityKind, panes::Panes, profile::Profile, record::Record, slot::EventSlot};

mod fast;
mod fold;
mod lasting;
mod parts;
#[cfg(test)]
mod tests;
mod unique;

pub use fold::{Additions, Folded, fold, splice};
use parts::Parts;

pub use crate::retention::{InvalidRetention, Retention, StateConfig};

/// How many records an entity keeps when nothing else is configured.
pub const EVENTS_PER_ENTITY_MAX: usize = 512;

/// The client stops appending to a value of more bytes than this for a while: its builder is not keeping up.
pub fn append_bytes_max(events_max: usize) -> usize {
    events_max.saturating_mul(4 * crate::slot::SLOT_BYTES)
}

/// An entity's value, read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EntityState {
    /// One of each identity, by (time, id), all without a mark: readers do not care who wrote them.
    events: Vec<EventSlot>,
    panes: Panes,
    profile: Profile,
    saturated_through_ms: Option<i64>,
    unreadable: u32,
    lasting_only: bool,
}

impl EntityState {
    /// Reads a value; an absent key is the empty value. Keeps the newest `events_max` records.
    pub fn parse(value: &[u8], events_max: usize) -> Self {
        let mut parts = Parts::read(value);
        parts.cap(events_max);
        parts.events.iter_mut().for_each(EventSlot::unmark);
        Self {
            events: parts.events,
            panes: parts.panes,
            profile: parts.profile,
            saturated_through_ms: parts.saturated_through_ms,
            unreadable: parts.unreadable,
            lasting_only: false,
        }
    }

    /// The exact part: one of each identity, by (time, id).
    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record> + ExactSizeIterator {
        self.events.iter().map(EventSlot::record)
    }

    /// The records up to and including a time, not decoded yet.
    pub(crate) fn events_through(&self, time_ms: i64) -> &[EventSlot] {
        &self.events[..self.events.partition_point(|slot| slot.time_ms() <= time_ms)]
    }

    /// Attempts that are not among the records any more.
    pub fn panes(&self) -> &Panes {
        &self.panes
    }

    /// What is stored beyond the events; features see it united with the records.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Whether records were left out because there were too many, so that counts over long windows are lower bounds.
    pub fn saturated(&self) -> bool {
        self.saturated_through_ms.is_some()
    }

    /// Windows that begin before this time miss records that were left out because there were too many.
    pub fn saturated_through_ms(&self) -> Option<i64> {
        self.saturated_through_ms
    }

    /// How many slots could not be read: of a newer version, damaged, or torn.
    pub fn unreadable(&self) -> u32 {
        self.unreadable
    }
}

/// What is known of the entities of one event, by kind: the state, or `None` when the event has no such entity or it could
/// not be read. Both are NaN to the model; an empty state is not: it says that there were no events.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EntityStates([Option<EntityState>; EntityKind::ALL.len()]);

impl EntityStates {
    pub fn get(&self, kind: EntityKind) -> Option<&EntityState> {
        self.0[kind.index()].as_ref()
    }

    pub fn set(&mut self, kind: EntityKind, state: EntityState) {
        self.0[kind.index()] = Some(state);
    }

    /// Those that are known, in the order of [`EntityKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (EntityKind, &EntityState)> {
        EntityKind::ALL.iter().filter_map(|&kind| self.get(kind).map(|state| (kind, state)))
    }
}
