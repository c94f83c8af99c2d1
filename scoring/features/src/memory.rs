//! The feature store in memory: stand-alone mode and the replay that makes training data. Bounded; same meaning as Redis.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use scoring_core::{
    encoding::Record,
    event::{EntityId, EntityKind, Event},
    set::EventSet,
    windows::Windows,
};

use crate::FeatureRead;

type Entity = (EntityKind, EntityId);

/// Keeps the sets of at most `entities_max` entities; the one whose newest event is oldest makes room.
pub struct MemoryStore {
    windows: Windows,
    entities_max: usize,
    sets: Mutex<Sets>,
}

#[derive(Default)]
struct Sets {
    by_entity: HashMap<Entity, EventSet>,
    /// Every entity under the time of its newest event.
    by_newest: BTreeSet<(i64, Entity)>,
}

impl MemoryStore {
    pub fn new(windows: Windows, entities_max: usize) -> Self {
        Self { windows, entities_max: entities_max.max(1), sets: Mutex::default() }
    }

    /// Records the event in the sets of its entities and reads them, at the event's own time. Always whole.
    pub fn record_and_read(&self, event: &Event) -> FeatureRead {
        let record = Record::of(event);
        let (after_ms, through_ms) = self.windows.reach(event.event_time_ms);
        let mut read = FeatureRead { unread: Vec::new(), recorded: true, ..FeatureRead::nothing_of(&event.entities) };
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        for entity in event.entities.iter() {
            let set = sets.record(entity, record, &self.windows);
            read.sets.set(entity.0, EventSet::from_records(set.between(after_ms, through_ms).iter().copied(), self.windows.events_max()));
        }
        sets.evict(self.entities_max);
        read
    }

    /// How many entities have a set.
    pub fn entities(&self) -> usize {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).by_entity.len()
    }
}

impl Sets {
    /// Adds a record and forgets what no window can need any more.
    fn record(&mut self, entity: Entity, record: Record, windows: &Windows) -> &EventSet {
        // One more than counts, as in Redis: its presence says that the set is saturated.
        let set = self.by_entity.entry(entity).or_insert_with(|| EventSet::new(windows.events_max().saturating_add(1)));
        if let Some(newest_ms) = set.newest_time_ms() {
            self.by_newest.remove(&(newest_ms, entity));
        }
        set.insert(record);
        let newest_ms = set.newest_time_ms().unwrap_or(record.time_ms);
        set.forget_through(windows.reach(newest_ms).0.saturating_sub(windows.skew_ms()));
        self.by_newest.insert((newest_ms, entity));
        set
    }

    fn evict(&mut self, entities_max: usize) {
        while self.by_entity.len() > entities_max {
            let Some((_, entity)) = self.by_newest.pop_first() else { return };
            self.by_entity.remove(&entity);
        }
    }
}
