//! The feature store in memory: stand-alone mode and tests. Bounded; the same values as in Redis, folded as they come.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use scoring_core::{
    event::{EntityId, EntityKind, Event},
    record::Record,
    state::{Additions, EntityState, StateConfig, fold},
    windows::Windows,
};

use crate::FeatureRead;

type Entity = (EntityKind, EntityId);

/// Keeps the values of at most `entities_max` entities; the one whose newest event is oldest makes room.
pub struct MemoryStore {
    config: StateConfig,
    entities_max: usize,
    values: Mutex<Values>,
}

#[derive(Default)]
struct Values {
    /// With the time of the newest event.
    by_entity: HashMap<Entity, (i64, Vec<u8>)>,
    /// Every entity under the time of its newest event.
    by_newest: BTreeSet<(i64, Entity)>,
}

impl MemoryStore {
    pub fn new(windows: &Windows, entities_max: usize) -> Self {
        Self { config: StateConfig::fitting(windows), entities_max: entities_max.max(1), values: Mutex::default() }
    }

    /// Records the event in the values of its entities and reads them. Always whole.
    pub fn record_and_read(&self, event: &Event) -> FeatureRead {
        let record = Record::of(event);
        let mut read = FeatureRead { unread: Vec::new(), recorded: true, ..FeatureRead::nothing_of(&event.entities) };
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        for entity in event.entities.iter() {
            read.states.set(entity.0, values.record(entity, record, &self.config));
        }
        values.evict(self.entities_max);
        read
    }

    /// How many entities have a value.
    pub fn entities(&self) -> usize {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).by_entity.len()
    }
}

impl Values {
    /// Folds a record at its own time, or at that of the newest if it comes late.
    fn record(&mut self, entity: Entity, record: Record, config: &StateConfig) -> EntityState {
        let (newest_ms, value) = self.by_entity.entry(entity).or_default();
        self.by_newest.remove(&(*newest_ms, entity));
        *newest_ms = record.time_ms.max(*newest_ms);
        self.by_newest.insert((*newest_ms, entity));
        let additions = Additions { records: &[record], values: &[] };
        *value = fold(entity.0, std::mem::take(value), additions, *newest_ms, config).value;
        EntityState::parse(value, config.events_max())
    }

    fn evict(&mut self, entities_max: usize) {
        while self.by_entity.len() > entities_max {
            let Some((_, entity)) = self.by_newest.pop_first() else { return };
            self.by_entity.remove(&entity);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Epoch, RegionName};
    use scoring_core::event::{DecisionState, EventKind};

    use super::*;

    fn event(transaction_id: &str, card: u8, event_time_ms: i64) -> Event {
        Event {
            transaction_id: transaction_id.into(),
            tenant: "default".into(),
            event_time_ms,
            client_time_ms: None,
            origin_region: RegionName::new("us-east").unwrap(),
            epoch: Epoch(1),
            kind: EventKind::PaymentAttempt,
            decision: DecisionState::Requested,
            entities: [(EntityKind::Card, EntityId([card; 16]))].into_iter().collect(),
            pii_key_id: "k1".into(),
            amount: None,
            merchant: None,
            card_country: None,
            ip_country: None,
            billing_country: None,
            bin8: String::new(),
            email_domain: String::new(),
            ip_prefix: String::new(),
            channel: None,
            card_entry: None,
            outcome: None,
        }
    }

    fn records(store: &MemoryStore, event: &Event) -> usize {
        store.record_and_read(event).states.get(EntityKind::Card).unwrap().records().len()
    }

    #[test]
    fn an_event_is_read_back_once_however_often_it_is_recorded() {
        let store = MemoryStore::new(&Windows::default(), 10);
        assert_eq!(records(&store, &event("t-1", 1, 1_000_000)), 1);
        assert_eq!(records(&store, &event("t-2", 1, 1_000_500)), 2);
        assert_eq!(records(&store, &event("t-1", 1, 1_000_000)), 2);
    }

    #[test]
    fn the_entity_that_was_quiet_for_longest_makes_room() {
        let store = MemoryStore::new(&Windows::default(), 2);
        for (transaction_id, card, time_ms) in [("t-1", 1, 1_000), ("t-2", 2, 2_000), ("t-3", 1, 3_000), ("t-4", 3, 4_000)] {
            records(&store, &event(transaction_id, card, time_ms));
        }
        assert_eq!(store.entities(), 2);
        assert_eq!(records(&store, &event("t-5", 1, 5_000)), 3);
        assert_eq!(records(&store, &event("t-6", 2, 6_000)), 1);
    }
}
