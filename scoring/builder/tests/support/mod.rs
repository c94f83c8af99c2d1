//! A region for tests: a real broker, real Redis shards, a plan file, and a builder in this process.
// Each test binary uses a part of it.
#![allow(dead_code)]

#[path = "../../../features/tests/common/mod.rs"]
mod common;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, SystemTime},
};

pub(crate) use common::payment;
use common::{Redis, free_port, plan};
use domain::{
    Epoch, HostPort, RegionName, RegionRole,
    headers::{HEARTBEAT, Source},
};
use kafka::{
    KafkaConfig, TopicSpec, end_offsets, ensure_topics,
    headers::{RecordHeaders, with_source},
    rdkafka::{
        Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer as _},
        message::{Header, OwnedHeaders, OwnedMessage},
        producer::{FutureProducer, FutureRecord},
    },
    testing::Broker,
};
use process::plan::PlanWatch;
use prost::Message as _;
use proto::fraud::v1;
use redis::FromRedisValue;
use scoring_builder::{app, config::Config};
use scoring_core::{
    event::{EntityId, EntityKind, Event},
    key::{entity_key, entity_of},
    published::Published,
    state::EntityState,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const RAW: &str = "fraud.events.raw";
pub(crate) const MIRROR: &str = "eu-west.fraud.events.raw";
pub(crate) const PROFILES: &str = "fraud.profiles";
pub(crate) const DEAD: &str = "fraud.events.dead-letter";
pub(crate) const TOPICS: [(&str, u32); 5] = [(RAW, 2), (MIRROR, 1), (PROFILES, 1), ("fraud.features", 1), (DEAD, 1)];
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// One heartbeat at the start and no more, so that nothing but the test moves the logs.
pub(crate) const QUIET: &str = "{heartbeat_interval: 60s, silence_max: 2m}";
pub(crate) const BEATING: &str = "{heartbeat_interval: 50ms, silence_max: 1s, publish_interval: 100ms, valid_for: 1s}";

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

pub(crate) fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

pub(crate) fn ours() -> OwnedHeaders {
    RecordHeaders { epoch: Epoch(1), origin: region("us-east") }.to_kafka()
}

pub(crate) fn heartbeat_headers() -> OwnedHeaders {
    ours().insert(Header { key: HEARTBEAT, value: Some("1") })
}

/// The log of eu-west, of which this region has a copy.
pub(crate) fn source(offset: i64) -> Source {
    Source { cluster_id: "eu".into(), topic_id: RAW.into(), partition: 0, offset }
}

/// The card of [`payment`]'s customer `who`.
pub(crate) fn card_of(who: u8) -> (EntityKind, EntityId) {
    (EntityKind::Card, payment("-", who, 0).entities.get(EntityKind::Card).unwrap())
}

/// us-east: broker, shards, plan file.
pub(crate) struct Region {
    pub(crate) broker: Broker,
    pub(crate) shards: Vec<Redis>,
    pub(crate) folder: tempfile::TempDir,
    producer: FutureProducer,
    pub(crate) admin_port: u16,
    freshness: &'static str,
}

impl Region {
    pub(crate) async fn start(topics: &[(&str, u32)], freshness: &'static str) -> Self {
        let broker = Broker::start().unwrap();
        let spec = |(name, partitions): &(&str, u32)| TopicSpec {
            name: (*name).into(),
            partitions: *partitions,
            replication: None,
            config: BTreeMap::new(),
        };
        ensure_topics(&broker.config(), &topics.iter().map(spec).collect::<Vec<_>>()).await.unwrap();
        let producer = broker.config().client_config("test").unwrap().create().unwrap();
        let shards = vec![Redis::start(), Redis::start()];
        Self { broker, shards, folder: tempfile::tempdir().unwrap(), producer, admin_port: free_port(), freshness }
    }

    /// While this region is not the active one, eu-west is.
    pub(crate) fn write_plan(&self, epoch: u64, role: RegionRole) -> PathBuf {
        let addresses: Vec<HostPort> = self.shards.iter().map(Redis::address).collect();
        let path = self.folder.path().join("plan.yaml");
        let mut plan = plan(epoch, role, &addresses);
        plan.active_region = region(if role == RegionRole::Active { "us-east" } else { "eu-west" });
        std::fs::write(&path, serde_yaml::to_string(&plan).unwrap()).unwrap();
        path
    }

    pub(crate) fn config(&self) -> Config {
        let kafka: KafkaConfig = self.broker.config();
        let text = format!(
            "{{pipeline: payments, region: us-east, origins: [eu-west], kafka: {{bootstrap_servers: ['x:1']}}, features: {{redis: {{}}}}, \
             freshness: {}, limits: {{fold_timeout: 1s, lag_interval: 200ms}}, admin: '127.0.0.1:{}'}}",
            self.freshness, self.admin_port
        );
        Config { kafka, ..serde_yaml::from_str(&text).unwrap() }
    }

    pub(crate) fn builder(&self) -> Running {
        let stop = CancellationToken::new();
        let watch = PlanWatch::follow(&self.folder.path().join("plan.yaml"), stop.clone()).unwrap();
        let task = tokio::spawn(app::serve(self.config(), watch, stop.clone()));
        Running { stop, task }
    }

    pub(crate) async fn produce(&self, topic: &str, partition: i32, payload: &[u8], headers: OwnedHeaders) -> i64 {
        self.produce_at(topic, partition, payload, headers, now_ms()).await
    }

    pub(crate) async fn produce_at(&self, topic: &str, partition: i32, payload: &[u8], headers: OwnedHeaders, time_ms: i64) -> i64 {
        let record = FutureRecord::<[u8], [u8]>::to(topic).partition(partition).payload(payload).key(b"card").headers(headers);
        self.producer.send(record.timestamp(time_ms), LIMIT).await.unwrap().offset
    }

    pub(crate) async fn produce_event(&self, event: &Event, partition: i32) -> i64 {
        self.produce(RAW, partition, &event.to_wire().encode_to_vec(), ours()).await
    }

    pub(crate) async fn produce_mirrored(&self, event: &Event, offset: i64) {
        self.produce(MIRROR, 0, &event.to_wire().encode_to_vec(), with_source(Some(&ours()), &source(offset))).await;
    }

    /// Asks a shard as an independent client, with words of any bytes.
    pub(crate) fn ask<T: FromRedisValue>(&self, shard: usize, words: &[&[u8]]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let client = redis::Client::open(("127.0.0.1", self.shards[shard].port)).unwrap();
        command.query(&mut client.get_connection().unwrap()).unwrap()
    }

    /// The same line to every shard.
    pub(crate) fn on_all(&self, line: &str) {
        for shard in &self.shards {
            shard.ask::<i64>(line);
        }
    }

    /// Whatever shard has it.
    pub(crate) fn state(&self, entity: (EntityKind, EntityId)) -> EntityState {
        let key = entity_key(entity.0, entity.1);
        let value: Vec<u8> =
            (0..self.shards.len()).map(|shard| self.ask::<Vec<u8>>(shard, &[b"GET", &key])).find(|v| !v.is_empty()).unwrap_or_default();
        EntityState::parse(&value, 512)
    }

    /// Payments of customer `who`.
    pub(crate) fn folded(&self, who: u8) -> usize {
        self.state(card_of(who)).records().count()
    }

    /// All entities of all shards.
    pub(crate) fn entities(&self) -> BTreeMap<(EntityKind, EntityId), EntityState> {
        let keys = |shard| self.ask::<Vec<Vec<u8>>>(shard, &[b"KEYS", b"{*"]);
        (0..self.shards.len()).flat_map(keys).filter_map(|key| entity_of(&key)).map(|entity| (entity, self.state(entity))).collect()
    }

    pub(crate) fn vectors(&self) -> Vec<BTreeMap<String, i64>> {
        self.shards.iter().map(|shard| shard.ask("HGETALL fp:vector")).collect()
    }

    /// What the builder has published in a shard.
    pub(crate) fn published(&self, shard: usize) -> Option<Published> {
        let bytes: Option<Vec<u8>> = self.ask(shard, &[b"GET", b"fp:fresh"]);
        Some(Published::from_wire(&v1::PublishedFreshness::decode(bytes?.as_slice()).unwrap()).unwrap())
    }

    pub(crate) async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let limit = tokio::time::Instant::now() + LIMIT;
        while !done(self) {
            assert!(
                tokio::time::Instant::now() < limit,
                "not within a minute: {what}; ready: {}; vectors {:?}; published {:?}; metrics {}",
                self.get("/readyz"),
                self.vectors(),
                self.published(0),
                self.metrics()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn get(&self, path: &str) -> String {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.admin_port)) else { return String::new() };
        let mut answer = String::new();
        // A process that is killed meanwhile has no answer.
        let _ = write!(stream, "GET {path} HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_string(&mut answer).map(drop));
        answer
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").contains("200 OK")
    }

    pub(crate) fn metrics(&self) -> String {
        self.get("/metrics")
    }

    pub(crate) fn metric(&self, line_start: &str) -> Option<f64> {
        self.metrics().lines().find(|line| line.starts_with(line_start)).and_then(|line| line.rsplit(' ').next()?.parse().ok())
    }

    /// All records of a topic, read by an independent consumer.
    pub(crate) async fn all_of(&self, topic: &str) -> Vec<OwnedMessage> {
        let ends = end_offsets(&self.broker.config(), &[topic.to_owned()], LIMIT).await.unwrap();
        let mut client = self.broker.config().client_config("reader").unwrap();
        let consumer: BaseConsumer = client.set("group.id", "reader").create().unwrap();
        let mut assignment = TopicPartitionList::new();
        for (name, partition) in ends.keys() {
            assignment.add_partition_offset(name, *partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let expected = usize::try_from(ends.values().sum::<i64>()).unwrap();
        tokio::task::spawn_blocking(move || {
            let records = std::iter::repeat_with(|| consumer.poll(LIMIT).expect("a record before the end").unwrap().detach());
            records.take(expected).collect()
        })
        .await
        .unwrap()
    }
}

pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}
