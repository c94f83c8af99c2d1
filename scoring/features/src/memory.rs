//! The feature store in memory: stand-alone mode. Bounded; same meaning as Redis with its builder, on the same bytes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use scoring_core::{
    event::Event,
    record::Record,
    state::{Additions, EntityState, StateConfig, fold},
};

use crate::{FeatureRead, StoreConfig, commands::EntityKey};

/// Keeps the values of at most `entities_max` entities; the one whose newest event is oldest makes room.
pub struct MemoryStore {
    state: StateConfig,
    entities_max: usize,
    values: Mutex<Values>,
}

#[derive(Default)]
struct Values {
    by_entity: HashMap<EntityKey, Kept>,
    /// Every entity under the time of its newest event.
    by_newest: BTreeSet<(i64, EntityKey)>,
}

#[derive(Default)]
struct Kept {
    value: Vec<u8>,
    newest_ms: i64,
}

impl MemoryStore {
    pub fn new(config: &StoreConfig, entities_max: usize) -> Self {
        Self { state: config.state, entities_max: entities_max.max(1), values: Mutex::default() }
    }

    /// Records the event in the values of its entities and reads them. Always whole.
    pub fn record_and_read(&self, event: &Event) -> FeatureRead {
        let record = Record::of(event);
        let mut read = FeatureRead { unread: Vec::new(), recorded: true, ..FeatureRead::nothing_of(&event.entities) };
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        for entity in event.entities.iter() {
            let value = values.record(entity, record, &self.state);
            read.states.set(entity.0, EntityState::parse(value, self.state.events_max()));
        }
        values.evict(self.entities_max);
        read
    }

    /// How many entities are known.
    pub fn entities(&self) -> usize {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).by_entity.len()
    }
}

impl Values {
    /// There is no log from which a record could come again, so it is folded at once.
    fn record(&mut self, entity: EntityKey, record: Record, config: &StateConfig) -> &[u8] {
        let kept = self.by_entity.entry(entity).or_default();
        self.by_newest.remove(&(kept.newest_ms, entity));
        kept.newest_ms = kept.newest_ms.max(record.time_ms);
        let additions = Additions { records: &[record], values: &[] };
        kept.value = fold(entity.0, std::mem::take(&mut kept.value), additions, kept.newest_ms, config).value;
        self.by_newest.insert((kept.newest_ms, entity));
        &kept.value
    }

    fn evict(&mut self, entities_max: usize) {
        while self.by_entity.len() > entities_max {
            let Some((_, entity)) = self.by_newest.pop_first() else { return };
            self.by_entity.remove(&entity);
        }
    }
}
