//! Shards of real processes, a log of payments, and what the log says by the definition.
// Each test binary uses a part of it.
#![allow(dead_code, unused_imports)]

#[path = "../../../features/tests/common/mod.rs"]
mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

pub(crate) use common::{NOW, WITHIN, connected, in_time, log, nobody, part, payment};
use common::{config, plan, store_of};
use domain::{Epoch, HostPort, PipelineName, RegionName, RegionRole, SlotMap};
use feature_shards::{Change, ShardClient};
use feature_snapshots::{Catalog, Manifest, Source, Storage, StorageConfig, TakeOptions, take};
use jiff::Timestamp;
use operator_planner::{Link, ShardRole};
use redis_testbed::Server;
use scoring_core::{
    event::{EntityId, EntityKind, Event},
    key::{entity_key, entity_of},
    record::{Record, RecordId},
    state::{Additions, EntityState, fold},
};
use scoring_features::{LogParts, RedisStore};

pub(crate) const DAY: i64 = 86_400_000;

pub(crate) fn client() -> ShardClient {
    ShardClient::without_login()
}

pub(crate) async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !done().await {
        assert!(started.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes `copy` a copy of `primary` that has everything.
pub(crate) async fn follow(client: &ShardClient, copy: &Server, primary: &Server, epoch: u64) {
    client.change(&copy.address(), &Change::Follow(primary.address()), Epoch(epoch)).await.unwrap();
    let up = async || {
        let seen = client.contents(&copy.address()).await;
        seen.is_ok_and(|seen| matches!(seen.role, ShardRole::Following { link: Link::Up, .. }))
    };
    until("a copy", up).await;
}

/// Two shards, each with a primary of epoch 3 and a copy.
pub(crate) struct Shards {
    pub(crate) primaries: Vec<Server>,
    pub(crate) copies: Vec<Server>,
}

impl Shards {
    pub(crate) async fn start() -> Self {
        let servers = || (0..2).map(|_| Server::start("").unwrap()).collect::<Vec<_>>();
        let shards = Self { primaries: servers(), copies: servers() };
        for (primary, copy) in shards.primaries.iter().zip(&shards.copies) {
            client().change(&primary.address(), &Change::Primary, Epoch(3)).await.unwrap();
            follow(&client(), copy, primary, 3).await;
        }
        shards
    }

    pub(crate) fn source(&self) -> Source {
        let processes = self.primaries.iter().zip(&self.copies).map(|(primary, copy)| vec![primary.address(), copy.address()]).collect();
        Source { region: region(), slots: SlotMap::even(2).unwrap(), processes }
    }
}

pub(crate) fn region() -> RegionName {
    RegionName::new("us-east").unwrap()
}

pub(crate) fn addresses(servers: &[Server]) -> Vec<HostPort> {
    servers.iter().map(Server::address).collect()
}

pub(crate) async fn store(epoch: u64, servers: &[Server]) -> RedisStore {
    let store = store_of(&plan(epoch, RegionRole::Active, &addresses(servers)));
    connected(&store).await;
    store
}

/// Snapshots in a folder that ends with the test.
pub(crate) struct Kept {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) catalog: Catalog,
}

impl Kept {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uri = format!("file://{}", folder.path().display());
        let storage = Storage::open(&StorageConfig { uri, ..StorageConfig::default() }).unwrap();
        Self { folder, catalog: Catalog { storage, pipeline: PipelineName::new("payments").unwrap() } }
    }

    pub(crate) async fn take(&self, shards: &Shards) -> Manifest {
        take(&self.catalog, &client(), &shards.source(), &TakeOptions::default(), Timestamp::now()).await.unwrap()
    }

    /// Of the copy of a shard.
    pub(crate) fn path(&self, manifest: &Manifest, shard: u16) -> std::path::PathBuf {
        self.folder.path().join(format!("payments/us-east/{}/shard-{shard:04}.rdb", manifest.id))
    }
}

/// The log of one partition: payments of a few customers over the last hours, some much older than any window, none near a
/// border that would make it matter when they are folded.
pub(crate) fn events(count: usize) -> Vec<Event> {
    let age_ms = |n: usize| match n % 10 {
        0 => 2 * DAY,
        1..=4 => 7_200_000 + i64::try_from(n).unwrap() * 1_000,
        _ => 60_000,
    };
    let who = |n: usize| u8::try_from(n % 7).unwrap();
    (0..count).map(|n| payment(&format!("t-{n}"), who(n), NOW - age_ms(n) + i64::try_from(n).unwrap())).collect()
}

/// The part of the log from one offset up to another one.
pub(crate) fn some(events: &[Event], from: usize, to: usize) -> LogParts {
    part(0, i64::try_from(from).unwrap(), &events[from..to.min(events.len())])
}

/// Folds the log from where the shards stand, as a builder that begins anew; gives that place.
pub(crate) async fn fold_the_rest(store: &RedisStore, events: &[Event], batch: usize) -> usize {
    let positions = store.positions(WITHIN).await.unwrap();
    let begun = usize::try_from(positions.get(&log(0)).copied().unwrap_or(0)).unwrap();
    for from in (begun..events.len()).step_by(batch) {
        store.fold(&some(events, from, from + batch), &nobody(), NOW, WITHIN).await.unwrap();
    }
    begun
}

pub(crate) type Entities = BTreeMap<(EntityKind, EntityId), EntityState>;

/// What the log says of each entity, folded in one go by the pure function.
pub(crate) fn oracle(events: &[Event]) -> Entities {
    let mut records: BTreeMap<(EntityKind, EntityId), Vec<Record>> = BTreeMap::new();
    for event in events {
        event.entities.iter().for_each(|entity| records.entry(entity).or_default().push(Record::of(event)));
    }
    let config = config().state;
    let folded = |((kind, id), records): ((EntityKind, EntityId), Vec<Record>)| {
        let folded = fold(kind, Vec::new(), Additions { records: &records, values: &[] }, NOW, &config);
        ((kind, id), EntityState::parse(&folded.value, config.events_max()))
    };
    records.into_iter().map(folded).collect()
}

/// What the processes have.
pub(crate) fn entities(servers: &[Server]) -> Entities {
    let mut found = Entities::new();
    for server in servers {
        let mut connection = server.connection().unwrap();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg(b"{*").query(&mut connection).unwrap();
        for (kind, id) in keys.iter().filter_map(|key| entity_of(key)) {
            let value: Vec<u8> = redis::cmd("GET").arg(&entity_key(kind, id)).query(&mut connection).unwrap();
            assert!(found.insert((kind, id), EntityState::parse(&value, 512)).is_none(), "in two shards");
        }
    }
    found
}

fn ids(state: &EntityState) -> BTreeSet<RecordId> {
    state.records().map(|record| record.id).collect()
}

pub(crate) fn assert_same(found: &Entities, expected: &Entities) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (entity, expected) in expected {
        let state = &found[entity];
        assert_eq!(ids(state), ids(expected), "{entity:?}");
        assert_eq!(state.panes(), expected.panes(), "{entity:?}");
        assert_eq!(state.profile(), expected.profile(), "{entity:?}");
    }
}
