//! Decision services append while builders fold: nothing is lost, and nothing counts twice.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{NOW, Redis, WITHIN, config_of, connected, in_time, log, nobody, part, payment, plan};
use domain::RegionRole;
use proptest::{prelude::*, test_runner::TestRunner};
use scoring_core::{
    event::{EntityId, EntityKind, Event},
    key::entity_key,
    state::{EntityState, Retention},
    windows::Windows,
};
use scoring_features::{FeatureMetrics, FoldError, RedisStore};

/// Little stays exact, so that most events go through panes, in which an event that comes twice would count twice.
fn pods(count: usize, shards: &[Redis]) -> Vec<Arc<RedisStore>> {
    let retention =
        Retention { exact_horizon: Duration::from_secs(60), exact_events: 3, read_margin: Duration::ZERO, ..Retention::default() };
    let config = config_of(Windows::default(), retention);
    let addresses: Vec<_> = shards.iter().map(Redis::address).collect();
    let start = || RedisStore::start(config.clone(), FeatureMetrics::default(), &plan(1, RegionRole::Active, &addresses)).unwrap();
    (0..count).map(|_| Arc::new(start())).collect()
}

/// The log: a third of the events is new, the others are an hour old.
fn events(whos: &[u8]) -> Vec<Event> {
    (0..).zip(whos).map(|(n, who)| payment(&format!("t-{n}"), *who, NOW + n - if n % 3 == 0 { 0 } else { 3_600_000 })).collect()
}

/// A builder that begins anew wherever the shards stand, until all is folded.
async fn build(store: Arc<RedisStore>, events: Arc<Vec<Event>>, batch: usize) -> u32 {
    let mut moved = 0;
    loop {
        let from = store.positions(WITHIN).await.unwrap().get(&log(0)).copied().unwrap_or(0);
        let begin = usize::try_from(from).unwrap();
        if begin >= events.len() {
            return moved;
        }
        let some = part(0, from, &events[begin..(begin + batch).min(events.len())]);
        match store.fold(&some, &nobody(), NOW, WITHIN).await {
            Ok(_) => {}
            Err(FoldError::Moved { .. }) => moved += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn race(events: &[Event], order: &[usize], batches: [usize; 2]) -> BTreeMap<(EntityKind, EntityId), usize> {
    let shards = [Redis::start(), Redis::start()];
    let pods = pods(4, &shards);
    for pod in &pods {
        connected(pod).await;
    }
    let events = Arc::new(events.to_vec());
    let builders = [0, 1].map(|n| tokio::spawn(build(pods[n].clone(), events.clone(), batches[n])));
    let deciding = order.iter().enumerate().map(|(n, place)| pods[2 + n % 2].record_and_read(&events[place % events.len()], in_time()));
    futures::future::join_all(deciding).await;
    for builder in builders {
        builder.await.unwrap();
    }
    // What decision services appended last leaves with the next folding of its entity.
    let whos: std::collections::BTreeSet<u8> = events.iter().map(|event| event.entities.get(EntityKind::User).unwrap().0[0]).collect();
    let last: Vec<Event> = whos.iter().map(|who| payment(&format!("t-last-{who}"), *who, NOW)).collect();
    pods[0].fold(&part(1, 0, &last), &nobody(), NOW, WITHIN).await.unwrap();
    let all = events.iter().chain(&last).flat_map(|event| event.entities.iter());
    all.map(|entity| (entity, counted(&shards, entity))).collect()
}

/// How many events a value has.
fn counted(shards: &[Redis], (kind, id): (EntityKind, EntityId)) -> usize {
    let values = shards.iter().map(|shard| shard.ask_bytes::<Option<Vec<u8>>>(&[b"GET", &entity_key(kind, id)]));
    let value = values.flatten().next().unwrap();
    let state = EntityState::parse(&value, 512);
    let in_panes: u32 = state.panes().as_slice().iter().map(|pane| pane.attempts()).sum();
    state.records().len() + usize::try_from(in_panes).unwrap()
}

#[test]
fn two_builders_and_two_pods_at_once_count_every_event_once() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() });
    let whos = prop::collection::vec(0_u8..4, 20..120);
    let order = prop::collection::vec(0_usize..200, 20..150);
    let outcome = runner.run(&(whos, order, [1_usize..20, 1_usize..20]), |(whos, order, batches)| {
        let events = events(&whos);
        let mut expected: BTreeMap<(EntityKind, EntityId), usize> = BTreeMap::new();
        for entity in events.iter().flat_map(|event| event.entities.iter()) {
            // One more at the end.
            *expected.entry(entity).or_insert(1) += 1;
        }
        prop_assert_eq!(runtime.block_on(race(&events, &order, batches)), expected);
        Ok(())
    });
    outcome.unwrap();
}
