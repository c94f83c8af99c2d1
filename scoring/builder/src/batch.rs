//! What is folded together. No IO.

use std::collections::{BTreeMap, BTreeSet};

use domain::RegionName;
use kafka::rdkafka::message::OwnedMessage;
use scoring_core::{
    event::{EntityId, EntityKind, Event},
    heartbeat::Heartbeat,
};
use scoring_features::LogParts;

/// A partition by the name of its topic here.
pub(crate) type PartitionHere = (String, i32);

/// A record that is no event, and why.
pub(crate) struct DeadLetter {
    pub(crate) record: OwnedMessage,
    pub(crate) reason: String,
}

/// How far a batch brings a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) next: i64,
    /// Of the last readable event or heartbeat.
    pub(crate) written_ms: Option<i64>,
}

/// A heartbeat in the log of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) partition: PartitionHere,
    pub(crate) offset: i64,
    pub(crate) origin: RegionName,
    pub(crate) heartbeat: Heartbeat,
}

#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) parts: LogParts,
    pub(crate) dead: Vec<DeadLetter>,
    pub(crate) heard: Vec<Heard>,
    pub(crate) progress: BTreeMap<PartitionHere, Progress>,
    /// All records, heartbeats included.
    pub(crate) records: usize,
    /// Records that all shards have folded, from this log or from a copy of it.
    pub(crate) already_folded: u64,
    pub(crate) unreadable_heartbeats: u64,
}

impl Batch {
    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.parts.values().flat_map(|part| part.events.iter().map(|(_, event)| event))
    }

    /// Whether there is more in it than heartbeats, so that somebody may wait for it.
    pub(crate) fn is_urgent(&self) -> bool {
        self.records > self.heard.len()
    }

    /// Whose features change: of each event its card, or its user when it has no card.
    pub(crate) fn published_entities(&self) -> BTreeSet<(EntityKind, EntityId)> {
        self.events().filter_map(published_entity).collect()
    }
}

/// The entity whose features are published for an event.
pub(crate) fn published_entity(event: &Event) -> Option<(EntityKind, EntityId)> {
    [EntityKind::Card, EntityKind::User].into_iter().find_map(|kind| event.entities.get(kind).map(|id| (kind, id)))
}
