//! What the shards must hold in the end, by nothing but the list of all acknowledged events.
//!
//! Twice: folded by the pure function in one go, to which the whole state must be equal; and counted by brute force, against
//! which the features are checked that a decision would see.

use std::collections::{BTreeMap, BTreeSet};

use redis_testbed::Server;
use scoring_core::{
    evaluate::{WindowValues, evaluate},
    event::{EntityId, EntityKind, Event, EventKind},
    key::entity_of,
    record::{Record, RecordId},
    state::{Additions, EntityState, Retention, StateConfig, fold},
    windows::Windows,
};

use super::{EXACT_EVENTS, now_ms};

type Entity = (EntityKind, EntityId);
pub(crate) type States = BTreeMap<Entity, EntityState>;

fn windows() -> Windows {
    Windows::default()
}

fn config() -> StateConfig {
    StateConfig::new(&windows(), Retention { exact_events: EXACT_EVENTS, ..Retention::default() }).unwrap()
}

/// All entities that a process holds.
pub(crate) fn states_of(server: &Server) -> States {
    let mut connection = server.connection().unwrap();
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("{*").query(&mut connection).unwrap();
    if keys.is_empty() {
        return States::new();
    }
    let values: Vec<Option<Vec<u8>>> = redis::cmd("MGET").arg(&keys).query(&mut connection).unwrap();
    let state = |(key, value): (Vec<u8>, Option<Vec<u8>>)| {
        let state = EntityState::parse(&value?, config().events_max());
        assert_eq!(state.unreadable(), 0);
        Some((entity_of(&key)?, state))
    };
    keys.into_iter().zip(values).filter_map(state).collect()
}

/// What the events say of each entity, folded in one go.
pub(crate) fn folded(events: &[Event]) -> States {
    let mut records: BTreeMap<Entity, Vec<Record>> = BTreeMap::new();
    for event in events {
        event.entities.iter().for_each(|entity| records.entry(entity).or_default().push(Record::of(event)));
    }
    let one = |(entity, records): (Entity, Vec<Record>)| {
        let folded = fold(entity.0, Vec::new(), Additions { records: &records, values: &[] }, now_ms(), &config());
        (entity, EntityState::parse(&folded.value, config().events_max()))
    };
    records.into_iter().map(one).collect()
}

/// How two sets of states differ; `None` when they do not.
pub(crate) fn difference(found: &States, expected: &States) -> Option<String> {
    for (entity, expected) in expected {
        let Some(found) = found.get(entity) else { return Some(format!("{entity:?} is missing")) };
        if found == expected {
            continue;
        }
        let (ours, theirs) = (ids(found), ids(expected));
        return Some(format!(
            "{entity:?}: {} records missing, {} too many, {} attempts in panes for {}; other content: {}",
            theirs.difference(&ours).count(),
            ours.difference(&theirs).count(),
            summed_up(found),
            summed_up(expected),
            ours == theirs
        ));
    }
    let unexpected = found.keys().find(|entity| !expected.contains_key(entity));
    unexpected.map(|entity| format!("{entity:?} is in none of the events"))
}

pub(crate) fn ids(state: &EntityState) -> BTreeSet<RecordId> {
    state.records().map(|record| record.id).collect()
}

pub(crate) fn summed_up(state: &EntityState) -> u64 {
    state.panes().as_slice().iter().map(|pane| u64::from(pane.attempts())).sum()
}

/// What a window must hold. Of a payment that came twice with different amounts, either counts, once.
#[derive(Debug, Default)]
struct Counted {
    count: u32,
    sum_min: u64,
    sum_max: u64,
    merchants: BTreeSet<String>,
}

impl Counted {
    fn add(&mut self, versions: &[&Event]) {
        let amounts = || versions.iter().filter_map(|event| event.amount_base_minor()).map(i64::unsigned_abs);
        self.count += 1;
        self.sum_min += amounts().min().unwrap();
        self.sum_max += amounts().max().unwrap();
        self.merchants.extend(versions.iter().filter_map(|event| event.merchant.as_ref()).map(|merchant| merchant.id.clone()));
    }

    fn assert(&self, what: &str, seen: &WindowValues) {
        // The payment that asks counts too.
        assert_eq!(seen.count, self.count + 1, "{what}");
        assert!((self.sum_min..=self.sum_max).contains(&seen.sum_minor), "{what}: {} is not {self:?}", seen.sum_minor);
        if !seen.approximate {
            assert_eq!(seen.distinct_merchants as usize, self.merchants.len(), "{what}");
        }
    }
}

/// What a decision made now would see of every entity, counted from the events one by one.
pub(crate) fn assert_features(states: &States, events: &[Event]) {
    let now = now_ms();
    let (mut entities, mut day_total) = (BTreeMap::<Entity, BTreeMap<RecordId, Vec<&Event>>>::new(), 0);
    for event in events {
        for entity in event.entities.iter() {
            entities.entry(entity).or_default().entry(event.identity().into()).or_default().push(event);
        }
    }
    for (entity, payments) in &entities {
        let (mut hour, mut day) = (Counted::default(), Counted::default());
        for versions in payments.values() {
            day.add(versions);
            if versions.iter().all(|event| now - event.event_time_ms < 3_600_000) {
                hour.add(versions);
            }
        }
        let asking = evaluate(&states[entity], &nobody(now), &windows());
        hour.assert(&format!("{entity:?} within an hour"), &asking.windows()[2]);
        day.assert(&format!("{entity:?} within a day"), &asking.windows()[3]);
        day_total += u64::from(day.count);
    }
    assert!(states.values().any(|state| summed_up(state) > 0), "some were summed up");
    println!("{} events acknowledged, {} entities, {day_total} in their days: 0 lost, 0 double", events.len(), entities.len());
}

/// A payment of nothing that counts.
fn nobody(time_ms: i64) -> Record {
    Record {
        id: RecordId([0xee; 10]),
        time_ms,
        kind: EventKind::PaymentAttempt,
        outcome: None,
        amount_base_minor: None,
        merchant: None,
        card: None,
        device: None,
        country: None,
    }
}
