//! A real Redis on loopback, and payments to put into it.
// Each test binary uses a part of it.
#![allow(dead_code)]

use std::{
    collections::BTreeSet,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use domain::{Epoch, HostPort, PipelineName, PlanView, RegionName, RegionRole, Revision, ShardAddress, SlotMap, Step};
use prometheus_client::registry::Registry;
use redis::FromRedisValue;
use scoring_core::{
    event::{DecisionState, EntityId, EntityKind, Event, EventKind, Merchant, Money},
    key::entity_key,
    state::{Retention, StateConfig},
    windows::Windows,
};
use scoring_features::{FeatureMetrics, FeatureRead, LogPart, LogPartition, LogParts, Positions, RedisConfig, RedisStore, StoreConfig};
use tokio::time::Instant;

pub(crate) const NOW: i64 = 1_700_000_000_000;
pub(crate) const WITHIN: Duration = Duration::from_secs(5);

/// One process with its folder; ends when dropped.
pub(crate) struct Redis {
    process: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Redis {
    /// A primary without persistence, as an operator makes it.
    pub(crate) fn start() -> Self {
        Self::start_on(free_port(), &[])
    }

    pub(crate) fn start_on(port: u16, extra: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("fraudpipeline-redis-").tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need redis-server on the PATH: install Debian's package redis-server");
        let redis = Self { process, folder, port };
        redis.wait_until_up();
        redis
    }

    fn wait_until_up(&self) {
        for _ in 0..200 {
            if self.client().get_connection().is_ok() || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("redis-server did not take connections on port {}", self.port);
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(("127.0.0.1", self.port)).unwrap()
    }

    /// Asks as an independent client; words are separated by blanks.
    pub(crate) fn ask<T: FromRedisValue>(&self, line: &str) -> T {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.client().get_connection().unwrap()).unwrap()
    }

    /// The same with words of any bytes.
    pub(crate) fn ask_bytes<T: FromRedisValue>(&self, words: &[&[u8]]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        command.query(&mut self.client().get_connection().unwrap()).unwrap()
    }

    /// Makes this process a replica that has everything of `primary`.
    pub(crate) fn replicate(&self, primary: &Self) {
        self.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
        let up = || self.ask::<String>("INFO replication").contains("master_link_status:up");
        while !up() || self.ask::<u64>("DBSIZE") < primary.ask::<u64>("DBSIZE") {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn address(&self) -> HostPort {
        HostPort { host: "127.0.0.1".into(), port: self.port }
    }

    pub(crate) fn stop_answering(&self) {
        signal(self.process.id(), "STOP");
    }

    pub(crate) fn answer_again(&self) {
        signal(self.process.id(), "CONT");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn plan(epoch: u64, role: RegionRole, shards: &[HostPort]) -> PlanView {
    let index = |n: usize| u16::try_from(n).unwrap();
    PlanView {
        pipeline: PipelineName::new("payments").unwrap(),
        namespace: "fraud".into(),
        region: RegionName::new("us-east").unwrap(),
        epoch: Epoch(epoch),
        revision: Revision(1),
        active_region: RegionName::new("us-east").unwrap(),
        role,
        step: Step::Steady,
        slots: SlotMap::even(index(shards.len())).unwrap(),
        shards: (0..).zip(shards).map(|(n, address)| ShardAddress { shard: n, primary: address.clone(), replicas: vec![] }).collect(),
    }
}

/// The same, with a replica for each shard.
pub(crate) fn plan_with_replicas(epoch: u64, shards: &[(HostPort, HostPort)]) -> PlanView {
    let primaries: Vec<HostPort> = shards.iter().map(|(primary, _)| primary.clone()).collect();
    let mut plan = plan(epoch, RegionRole::Active, &primaries);
    for (address, (_, replica)) in plan.shards.iter_mut().zip(shards) {
        address.replicas = vec![replica.clone()];
    }
    plan
}

pub(crate) fn config() -> StoreConfig {
    config_of(Windows::default(), Retention::default())
}

pub(crate) fn config_of(windows: Windows, retention: Retention) -> StoreConfig {
    let redis = RedisConfig { silence_max: Duration::from_millis(200), ..RedisConfig::default() };
    StoreConfig { state: StateConfig::configured(&windows, retention).unwrap(), windows, redis }
}

pub(crate) fn store(epoch: u64, role: RegionRole, addresses: &[HostPort]) -> RedisStore {
    store_of(&plan(epoch, role, addresses))
}

pub(crate) fn store_of(plan: &PlanView) -> RedisStore {
    RedisStore::start(config(), FeatureMetrics::default(), plan).unwrap()
}

/// A store with figures, and what shows them.
pub(crate) fn measured_store(plan: &PlanView) -> (RedisStore, Registry) {
    measured_store_of(config(), plan)
}

pub(crate) fn measured_store_of(config: StoreConfig, plan: &PlanView) -> (RedisStore, Registry) {
    let mut registry = Registry::default();
    let metrics = FeatureMetrics::register(&mut registry);
    (RedisStore::start(config, metrics, plan).unwrap(), registry)
}

/// A figure; 0 when nothing has been counted yet.
pub(crate) fn figure(registry: &Registry, line: &str) -> f64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let found = text.lines().find_map(|shown| shown.strip_prefix("feature_store_")?.strip_prefix(line));
    found.map_or(0.0, |value| value.trim().parse().unwrap())
}

pub(crate) async fn connected(store: &RedisStore) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !store.disconnected().is_empty() {
        assert!(Instant::now() < limit, "shards {:?} stay disconnected", store.disconnected());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn in_time() -> Instant {
    Instant::now() + WITHIN
}

pub(crate) fn log(partition: i32) -> LogPartition {
    LogPartition { cluster_id: "c".into(), topic: "fraud.events.raw".into(), partition }
}

pub(crate) fn position(partition: i32, next: i64) -> Positions {
    [(log(partition), next)].into_iter().collect()
}

/// One partition's part of a log: `events` from `from` on, one after the other.
pub(crate) fn part(partition: i32, from: i64, events: &[Event]) -> LogParts {
    let events: Vec<(i64, Event)> = (from..).zip(events.iter().cloned()).collect();
    let next = from + i64::try_from(events.len()).unwrap();
    let from = (from > 0).then_some(from);
    [(log(partition), LogPart { from, next, events, profiles: vec![] })].into_iter().collect()
}

pub(crate) fn nobody() -> BTreeSet<(EntityKind, EntityId)> {
    BTreeSet::new()
}

pub(crate) fn cards(event: &Event) -> BTreeSet<(EntityKind, EntityId)> {
    event.entities.iter().filter(|(kind, _)| *kind == EntityKind::Card).collect()
}

pub(crate) fn key_of(event: &Event, kind: EntityKind) -> [u8; 19] {
    entity_key(kind, event.entities.get(kind).unwrap())
}

pub(crate) fn records(read: &FeatureRead, kind: EntityKind) -> usize {
    read.states.get(kind).unwrap().records().len()
}

/// A payment of one customer: `who` names all entities.
pub(crate) fn payment(transaction_id: &str, who: u8, event_time_ms: i64) -> Event {
    Event {
        transaction_id: transaction_id.into(),
        tenant: "default".into(),
        event_time_ms,
        client_time_ms: None,
        origin_region: RegionName::new("us-east").unwrap(),
        epoch: Epoch(1),
        kind: EventKind::PaymentAttempt,
        decision: DecisionState::Made,
        entities: EntityKind::ALL
            .iter()
            .zip(0..)
            .map(|(&kind, n)| (kind, EntityId([who, n, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7])))
            .collect(),
        pii_key_id: "k1".into(),
        amount: Some(Money { amount_minor: 1_000, currency: "USD".into(), amount_base_minor: Some(1_000), rate_version: String::new() }),
        merchant: Some(Merchant { id: format!("m-{transaction_id}"), category_code: None, country: None }),
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
