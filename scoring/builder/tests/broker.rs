//! The builder between a real broker and real Redis shards (feature `broker-tests`; see `kafka::testing` for what it needs).
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../features/tests/common/mod.rs"]
mod common;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use common::{Redis, free_port, payment, plan};
use domain::{Epoch, HostPort, RegionName, RegionRole, headers::Source};
use kafka::{
    KafkaConfig, TopicSpec, end_offsets, ensure_topics,
    headers::{RecordHeaders, with_source},
    rdkafka::{
        Message, Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer as _},
        message::{Headers as _, OwnedHeaders},
        producer::{FutureProducer, FutureRecord},
    },
    testing::Broker,
};
use process::plan::PlanWatch;
use prost::Message as _;
use proto::fraud::v1;
use scoring_builder::{app, config::Config};
use scoring_core::event::Event;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const RAW: &str = "fraud.events.raw";
const MIRROR: &str = "eu-west.fraud.events.raw";
const DEAD: &str = "fraud.events.dead-letter";
const LIMIT: Duration = Duration::from_secs(60);

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// A region: broker, shards, plan file.
struct Region {
    broker: Broker,
    shards: Vec<Redis>,
    folder: tempfile::TempDir,
    producer: FutureProducer,
    admin_port: u16,
}

impl Region {
    async fn start(topics: &[(&str, u32)]) -> Self {
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
        Self { broker, shards, folder: tempfile::tempdir().unwrap(), producer, admin_port: free_port() }
    }

    fn write_plan(&self, epoch: u64, role: RegionRole) -> PathBuf {
        let addresses: Vec<HostPort> = self.shards.iter().map(Redis::address).collect();
        let path = self.folder.path().join("plan.yaml");
        std::fs::write(&path, serde_yaml::to_string(&plan(epoch, role, &addresses)).unwrap()).unwrap();
        path
    }

    fn config(&self) -> Config {
        let kafka: KafkaConfig = self.broker.config();
        let text = format!(
            "{{pipeline: payments, region: us-east, origins: [eu-west], kafka: {}, features: {{redis: {{}}}}, admin: '127.0.0.1:{}'}}",
            "{bootstrap_servers: ['x:1']}", self.admin_port
        );
        Config { kafka, ..serde_yaml::from_str(&text).unwrap() }
    }

    fn builder(&self) -> Running {
        let stop = CancellationToken::new();
        let watch = PlanWatch::follow(&self.folder.path().join("plan.yaml"), stop.clone()).unwrap();
        let task = tokio::spawn(app::serve(self.config(), watch, stop.clone()));
        Running { stop, task }
    }

    async fn produce(&self, topic: &str, partition: i32, payload: &[u8], headers: OwnedHeaders) -> i64 {
        let record = FutureRecord::<[u8], [u8]>::to(topic).partition(partition).payload(payload).key(b"card").headers(headers);
        self.producer.send(record, LIMIT).await.unwrap().offset
    }

    async fn produce_event(&self, event: &Event, partition: i32) -> i64 {
        self.produce(RAW, partition, &event.to_wire().encode_to_vec(), ours()).await
    }

    async fn produce_mirrored(&self, event: &Event, offset: i64) {
        let source = Source { cluster_id: "eu".into(), topic_id: RAW.into(), partition: 0, offset };
        self.produce(MIRROR, 0, &event.to_wire().encode_to_vec(), with_source(Some(&ours()), &source)).await;
    }

    /// Transactions of customer `who`, by the size of the card's set.
    fn folded(&self, who: u8) -> u64 {
        let key = |shard: &Redis| shard.ask::<Vec<String>>(&format!("KEYS e:{{card:{}*", hex_byte(who))).pop();
        self.shards.iter().filter_map(|shard| key(shard).map(|key| shard.ask::<u64>(&format!("ZCARD {key}")))).sum()
    }

    fn vectors(&self) -> Vec<BTreeMap<String, i64>> {
        self.shards.iter().map(|shard| shard.ask("HGETALL fp:vector")).collect()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let limit = tokio::time::Instant::now() + LIMIT;
        while !done(self) {
            assert!(
                tokio::time::Instant::now() < limit,
                "not within a minute: {what}; vectors {:?}; metrics {}",
                self.vectors(),
                self.metrics()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn get(&self, path: &str) -> String {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.admin_port)) else { return String::new() };
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn metrics(&self) -> String {
        self.get("/metrics")
    }

    fn metric(&self, line_start: &str) -> Option<f64> {
        self.metrics().lines().find(|line| line.starts_with(line_start)).and_then(|line| line.rsplit(' ').next()?.parse().ok())
    }

    /// All records of a topic, read by an independent consumer.
    async fn all_of(&self, topic: &str) -> Vec<kafka::rdkafka::message::OwnedMessage> {
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

struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn ours() -> OwnedHeaders {
    RecordHeaders { epoch: Epoch(1), origin: RegionName::new("us-east").unwrap() }.to_kafka()
}

fn hex_byte(byte: u8) -> String {
    format!("{byte:02x}")
}

const TOPICS: [(&str, u32); 4] = [(RAW, 2), (MIRROR, 1), ("fraud.features", 1), (DEAD, 1)];

#[tokio::test(flavor = "multi_thread")]
async fn every_log_is_folded_once_and_a_restart_resumes_where_the_shards_stand() {
    let region = Region::start(&TOPICS).await;
    region.write_plan(1, RegionRole::Active);
    let now = now_ms();
    for n in 0..20 {
        region.produce_event(&payment(&format!("t-{n}"), 1, now + n), i32::try_from(n % 2).unwrap()).await;
    }
    // The same transaction again, as a retry of its producer, and twice by the mirror.
    region.produce_event(&payment("t-0", 1, now), 0).await;
    region.produce_mirrored(&payment("t-eu", 1, now), 5).await;
    region.produce_mirrored(&payment("t-eu", 1, now), 5).await;

    let builder = region.builder();
    region.until("21 transactions", |region| region.folded(1) == 21).await;
    region.until("lag 0", |region| region.metric("builder_feature_lag_ms") == Some(0.0)).await;
    assert!(region.get("/readyz").contains("200 OK"));
    let vectors = region.vectors();
    assert_eq!(vectors[0], vectors[1]);
    assert_eq!(vectors[0]["eu/fraud.events.raw/0"], 6);
    assert_eq!(vectors[0].values().sum::<i64>(), 11 + 10 + 2 + 6);
    builder.stop().await;

    region.produce_event(&payment("t-after", 1, now + 30), 1).await;
    let builder = region.builder();
    region.until("22 transactions", |region| region.folded(1) == 22).await;
    // Only the new record was read again.
    region.until("metrics", |region| region.metric("builder_events_folded_total") == Some(1.0)).await;
    builder.stop().await;

    let updates: Vec<v1::FeatureUpdate> =
        region.all_of("fraud.features").await.iter().map(|record| v1::FeatureUpdate::decode(record.payload().unwrap()).unwrap()).collect();
    let last = updates.iter().find(|update| update.transaction_id == "t-after").unwrap();
    let count = last.values.iter().find(|value| value.name == "card_count_24h").unwrap().value;
    assert_eq!((count, last.epoch), (22.0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_goes_to_the_dead_letter_topic_as_it_was_and_the_log_goes_on() {
    // Without the topic the log waits, and says why; with it, it goes on.
    let region = Region::start(&TOPICS[..3]).await;
    region.write_plan(1, RegionRole::Active);
    let poison = [0xff, 0x00, 0x13];
    let offset = region.produce(RAW, 0, &poison, ours()).await;
    region.produce_event(&payment("t-1", 1, now_ms()), 0).await;
    let builder = region.builder();
    region.until("a reason in readyz", |region| region.get("/readyz").contains(DEAD)).await;
    assert_eq!(region.folded(1), 0);

    let spec = TopicSpec { name: DEAD.into(), partitions: 1, replication: None, config: BTreeMap::new() };
    ensure_topics(&region.broker.config(), &[spec]).await.unwrap();
    region.until("the payment after it", |region| region.folded(1) == 1).await;
    region.until("ready again", |region| region.get("/readyz").contains("200 OK")).await;
    builder.stop().await;

    let letters = region.all_of(DEAD).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].payload(), letters[0].key()), (Some(poison.as_slice()), Some(b"card".as_slice())));
    let header = |key: &str| {
        let found = letters[0].headers().unwrap().iter().find(|header| header.key == key).unwrap();
        String::from_utf8(found.value.unwrap().to_vec()).unwrap()
    };
    assert!(header("fp-dead-coordinates").ends_with(&format!("/{RAW}/0/{offset}")));
    assert!(header("fp-dead-reason").contains("not an Event"));
    assert_eq!(header("fp-origin"), "us-east");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_waits_ready_and_after_the_takeover_folds_what_the_other_region_had_not() {
    let region = Region::start(&TOPICS).await;
    region.write_plan(1, RegionRole::Standby);
    let now = now_ms();
    for n in 0..10 {
        region.produce_mirrored(&payment(&format!("t-{n}"), 1, now + n), n).await;
    }
    // What replication had carried over: the old region's builder stood at offset 7.
    for shard in &region.shards {
        shard.ask::<()>("HSET fp:vector eu/fraud.events.raw/0 7");
    }
    let builder = region.builder();
    region.until("ready", |region| region.get("/readyz").contains("200 OK")).await;
    assert!(region.metric("builder_feature_lag_ms").is_some_and(f64::is_nan));
    assert_eq!((region.folded(1), region.metric("builder_folding")), (0, Some(0.0)));

    region.write_plan(2, RegionRole::Active);
    region.until("the three that were missing", |region| region.folded(1) == 3).await;
    region.until("lag 0", |region| region.metric("builder_feature_lag_ms") == Some(0.0)).await;
    assert_eq!(region.metric("builder_events_already_folded_total"), Some(7.0));
    assert_eq!(region.vectors()[1]["eu/fraud.events.raw/0"], 10);
    builder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_shard_stops_folding_and_nothing_is_missing_when_it_is_back() {
    let region = Region::start(&TOPICS).await;
    region.write_plan(1, RegionRole::Active);
    let builder = region.builder();
    let now = now_ms();
    region.produce_event(&payment("t-0", 1, now), 0).await;
    region.until("the first", |region| region.folded(1) == 1).await;
    region.shards[1].stop_answering();
    for n in 1..30 {
        region.produce_event(&payment(&format!("t-{n}"), u8::try_from(n).unwrap(), now + n), 0).await;
    }
    region.until("not ready", |region| !region.get("/readyz").contains("200 OK")).await;
    region.shards[1].answer_again();
    region.until("all", |region| (1..30).all(|who| region.folded(who) >= 1)).await;
    region.until("ready again", |region| region.get("/readyz").contains("200 OK")).await;
    builder.stop().await;
}
