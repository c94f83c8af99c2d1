//! The builder's process is killed again and again while it folds; in the end the shards hold what the log says, once
//! (feature `broker-tests`; see `kafka::testing`). How often: the environment variable `FRAUDPIPELINE_BUILDER_KILLS`; when:
//! `FRAUDPIPELINE_BUILDER_KILLS_SEED`. `cargo xtask soak builder-kills` runs it with many.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use domain::RegionRole;
use futures::future::join_all;
use kafka::{headers::is_heartbeat, rdkafka::Message as _};
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::{
    event::{EntityId, EntityKind, Event},
    record::{Record, RecordId},
    state::{Additions, EntityState, fold},
};
use scoring_features::{FeatureMetrics, RedisStore};
use support::*;

const KILLS: &str = "FRAUDPIPELINE_BUILDER_KILLS";
const KILLS_DEFAULT: u32 = 10;
const SEED: &str = "FRAUDPIPELINE_BUILDER_KILLS_SEED";
/// A builder lives for so long before it is killed: sometimes it has hardly begun.
const LIFE_MS: std::ops::Range<u64> = 250..1_250;
/// Written at once.
const EVENTS_AT_ONCE: u32 = 8;
/// With fewer for so many kills an entity would get more events than it keeps, and nobody could say what is lost.
const CUSTOMERS_PER_KILL: u32 = 3;
const CUSTOMERS: std::ops::RangeInclusive<u32> = 12..=250;

/// Spread over the range by the mixing function of SplitMix64.
fn life(seed: u64, kill: u32) -> Duration {
    let mut z = seed.wrapping_add(u64::from(kill).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Duration::from_millis(LIFE_MS.start + (z ^ (z >> 31)) % (LIFE_MS.end - LIFE_MS.start))
}

/// Of every sort: young ones, those that are summed up at once, and a few of nobody else.
fn event(number: u32, customers: u32, now_ms: i64) -> Event {
    let who = u8::try_from(number % customers).unwrap();
    // Far from the horizon of an hour, so that it does not matter when they are folded.
    let age_ms = if (number / customers).is_multiple_of(3) { 60_000 } else { 7_200_000 + i64::from(number % 700) * 60_000 };
    payment(&format!("t-{number}"), who, now_ms - age_ms)
}

struct Process(Child);

impl Process {
    fn start(region: &Region) -> Self {
        let config = region.folder.path().join("config.yaml");
        fs::write(&config, serde_yaml::to_string(&region.config()).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_scoring-builder"));
        command.arg("--config").arg(config).arg("--plan").arg(region.folder.path().join("plan.yaml"));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    /// SIGKILL.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Writes an event to the log; a decision service has recorded every second one.
async fn write(region: &Region, decisions: &RedisStore, number: u32, customers: u32) {
    let event = event(number, customers, now_ms());
    if number.is_multiple_of(2) {
        decisions.record_and_read(&event, tokio::time::Instant::now() + Duration::from_millis(20)).await;
    }
    region.produce_event(&event, i32::from(number.is_multiple_of(5))).await;
}

/// What the log says of each entity, folded in one go by the pure function.
async fn oracle(region: &Region) -> BTreeMap<(EntityKind, EntityId), EntityState> {
    let mut records: BTreeMap<(EntityKind, EntityId), Vec<Record>> = BTreeMap::new();
    for message in region.all_of(RAW).await.iter().filter(|message| !is_heartbeat(message.headers())) {
        let event = Event::from_wire(&v1::Event::decode(message.payload().unwrap()).unwrap()).unwrap();
        event.entities.iter().for_each(|entity| records.entry(entity).or_default().push(Record::of(&event)));
    }
    let config = region.config().features.checked().unwrap().state;
    let folded = |((kind, id), records): ((EntityKind, EntityId), Vec<Record>)| {
        let folded = fold(kind, Vec::new(), Additions { records: &records, values: &[] }, now_ms(), &config);
        ((kind, id), EntityState::parse(&folded.value, config.events_max()))
    };
    records.into_iter().map(folded).collect()
}

fn ids(state: &EntityState) -> BTreeSet<RecordId> {
    state.records().map(|record| record.id).collect()
}

fn summed_up(state: &EntityState) -> u64 {
    state.panes().as_slice().iter().map(|pane| u64::from(pane.attempts())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_builder_that_is_killed_again_and_again_loses_nothing_and_folds_nothing_twice() {
    let kills: u32 = std::env::var(KILLS).map_or(KILLS_DEFAULT, |kills| kills.parse().expect("a number of kills"));
    let seed: u64 = std::env::var(SEED).map_or(1, |seed| seed.parse().expect("a seed"));
    let customers = (CUSTOMERS_PER_KILL * kills).clamp(*CUSTOMERS.start(), *CUSTOMERS.end());
    let region = Region::start(&TOPICS, BEATING).await;
    let plan = region.write_plan(1, RegionRole::Active);
    // A decision service records what it decides beside the builder.
    let plan = serde_yaml::from_str(&fs::read_to_string(plan).unwrap()).unwrap();
    let decisions = RedisStore::start(region.config().features.checked().unwrap(), FeatureMetrics::default(), &plan).unwrap();
    let mut number = 0;
    for kill in 0..kills {
        let process = Process::start(&region);
        let life = life(seed, kill);
        let end = Instant::now() + life;
        while Instant::now() < end {
            join_all((number..number + EVENTS_AT_ONCE).map(|number| write(&region, &decisions, number, customers))).await;
            number += EVENTS_AT_ONCE;
        }
        drop(process);
        println!("kill {} of {kills}, after {} ms: {number} events written", kill + 1, life.as_millis());
    }
    let expected = oracle(&region).await;
    let _process = Process::start(&region);
    let done = |region: &Region| {
        let found = region.entities();
        expected.iter().all(|(entity, state)| found.get(entity).is_some_and(|found| ids(found).is_superset(&ids(state))))
    };
    region.until("everything is folded", done).await;
    region.until("at the end of the logs", |region| region.metric("builder_feature_lag_ms").is_some_and(|lag_ms| lag_ms < 1_000.0)).await;
    let found = region.entities();
    let events = u64::from(number);
    let mut total = 0;
    for (entity, expected) in &expected {
        let state = &found[entity];
        assert_eq!(ids(state), ids(expected), "{entity:?}");
        assert_eq!(state.panes(), expected.panes(), "{entity:?}");
        assert_eq!(state.profile(), expected.profile(), "{entity:?}");
        if entity.0 == EntityKind::Card {
            total += summed_up(state) + state.records().count() as u64;
        }
    }
    assert!(expected.values().any(|state| summed_up(state) > 0), "some were summed up");
    assert_eq!((total, found.len()), (events, expected.len()), "0 lost, 0 double");
    println!("{kills} kills, {events} events, {} entities: 0 lost, 0 double", found.len());
}
