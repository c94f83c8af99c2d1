//! Two brokers, replicators as real processes between them, and an independent reader of both logs.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use domain::{
    Epoch, PipelineName, PlanView, RegionName, RegionRole, Revision, SlotMap, Step,
    headers::{self, Source},
};
use kafka::{
    Admin, ConsumerOptions, KafkaConfig, KafkaMetrics, TopicSpec,
    rdkafka::{
        Message, Offset, TopicPartitionList,
        consumer::Consumer as _,
        message::{Header, Headers as _, OwnedHeaders},
        producer::{FutureProducer, FutureRecord},
        util::Timeout,
    },
    testing::Broker,
};
use serde_json::Value;

pub(crate) const TOPIC: &str = "fraud.events.raw";
pub(crate) const MIRRORED: &str = "us-east.fraud.events.raw";

/// A record as any reader of the log sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) time: Option<i64>,
    /// Without `fp-src`.
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
    pub(crate) source: Option<Source>,
}

impl Seen {
    /// What must be the same on both sides.
    pub(crate) fn content(&self) -> Self {
        Self { offset: 0, source: None, ..self.clone() }
    }
}

pub(crate) fn admin(config: &KafkaConfig) -> Admin {
    Admin::new(config, "test", &KafkaMetrics::default()).unwrap()
}

pub(crate) async fn make_topic(config: &KafkaConfig, name: &str, partitions: u32, settings: &[(&str, &str)]) {
    let config_of = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { name: name.into(), partitions, replication: None, config: config_of };
    let outcome = kafka::ensure_topics(config, &[spec]).await.unwrap().remove(0).outcome;
    assert!(!matches!(outcome, kafka::TopicOutcome::Failed { .. }), "{outcome:?}");
}

pub(crate) fn producer(config: &KafkaConfig) -> FutureProducer {
    let mut client = config.client_config("test").unwrap();
    client.set("enable.idempotence", "true").set("linger.ms", "1").create().unwrap()
}

pub(crate) async fn produce(producer: &FutureProducer, partition: i32, payload: &str, extra: Option<&Source>) -> i64 {
    let mut all = OwnedHeaders::new()
        .insert(Header { key: headers::EPOCH, value: Some("1") })
        .insert(Header { key: headers::ORIGIN, value: Some("us-east") })
        .insert(Header { key: "trace", value: None::<&str> });
    if let Some(source) = extra {
        all = all.insert(Header { key: headers::SOURCE, value: Some(&source.to_string()) });
    }
    // A minute ago: not the time at which a broker would stamp the copy, and too young for retention.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - Duration::from_secs(60);
    let time = i64::try_from(time.as_millis()).unwrap();
    let record = FutureRecord::to(TOPIC).partition(partition).key("card").payload(payload).timestamp(time).headers(all);
    producer.send(record, Timeout::Never).await.unwrap().offset
}

/// All committed records of a topic, by partition, read by nothing that the replicator uses.
pub(crate) async fn read(config: &KafkaConfig, topic: &str) -> BTreeMap<i32, Vec<Seen>> {
    let ends = kafka::end_offsets(config, &[topic.to_owned()], Duration::from_secs(10)).await.unwrap();
    let (config, topic) = (config.clone(), topic.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let mut all = BTreeMap::new();
        for ((_, partition), end) in ends {
            all.insert(partition, read_partition(&config, &topic, partition, end));
        }
        all
    });
    reading.await.unwrap()
}

fn read_partition(config: &KafkaConfig, topic: &str, partition: i32, end: i64) -> Vec<Seen> {
    let mut client = ConsumerOptions::new("reader", "reader").client_config(config).unwrap();
    let consumer: kafka::Consumer =
        client.set("enable.partition.eof", "true").create_with_context(kafka::Context::new("reader", &KafkaMetrics::default())).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let mut seen = Vec::new();
    let limit = Instant::now() + Duration::from_secs(20);
    loop {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(record)) => seen.push(to_seen(&record)),
            Some(Err(kafka::rdkafka::error::KafkaError::PartitionEOF(_))) => return seen,
            _ => assert!(Instant::now() < limit, "{topic}/{partition} cannot be read to {end}"),
        }
    }
}

fn to_seen(record: &impl Message) -> Seen {
    let all = record.headers().into_iter().flat_map(|headers| headers.iter());
    let foreign = all.filter(|header| header.key != headers::SOURCE);
    Seen {
        offset: record.offset(),
        key: record.key().map(<[u8]>::to_vec),
        payload: record.payload().map(<[u8]>::to_vec),
        time: record.timestamp().to_millis(),
        headers: foreign.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect(),
        source: kafka::headers::read(record.headers()).unwrap().source,
    }
}

/// A replicator process from us-east to eu-west. Ended when dropped.
pub(crate) struct Replicator {
    process: Child,
    port: u16,
    log: PathBuf,
}

impl Replicator {
    pub(crate) fn start(folder: &Path, source: &Broker, target: &Broker) -> Self {
        Self::start_at(folder, source, target, 1)
    }

    pub(crate) fn start_at(folder: &Path, source: &Broker, target: &Broker, epoch: u64) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (config, plan) = (folder.join(format!("config-{port}.yaml")), folder.join(format!("plan-{port}.yaml")));
        let text = format!(
            "pipeline: payments\nregion: eu-west\norigin: us-east\nsource: {{bootstrap_servers: ['{}'], client: {{statistics_interval: 1s}}}}\n\
             target: {{bootstrap_servers: ['{}'], client: {{statistics_interval: 1s}}}}\ntopic_prefix: fraud\npositions_partition: 0\n\
             limits: {{topic_sync_interval: 1s, lag_interval: 200ms, commit_timeout: 5s}}\nadmin: 127.0.0.1:{port}\n",
            source.bootstrap(),
            target.bootstrap()
        );
        std::fs::write(&config, text).unwrap();
        std::fs::write(&plan, serde_yaml::to_string(&plan_view(epoch)).unwrap()).unwrap();
        let log = folder.join(format!("log-{port}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_replicator"));
        command.arg("--config").arg(config).arg("--plan").arg(plan).stdin(Stdio::null()).stderr(File::create(&log).unwrap());
        Self { process: command.spawn().unwrap(), port, log }
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
        self.process.wait().unwrap().code()
    }

    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(connection, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        Some(answer.split_once("\r\n\r\n")?.1.to_owned())
    }

    pub(crate) fn positions(&self) -> Value {
        self.get("/positions").and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
    }

    pub(crate) fn state(&self) -> String {
        self.positions()["state"].as_str().unwrap_or("none").to_owned()
    }

    pub(crate) async fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let limit = Instant::now() + Duration::from_secs(45);
        while !done(self) {
            assert!(Instant::now() < limit, "waited for {what}: {}\n{}", self.positions(), self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn wait_for_state(&self, state: &str) {
        self.wait(state, |replicator| replicator.state() == state).await;
    }

    /// Until everything below these source offsets is in the target.
    pub(crate) async fn wait_for(&self, ends: &BTreeMap<i32, i64>) {
        let reached = |replicator: &Self| {
            let view = replicator.positions();
            let empty = Vec::new();
            let partitions = view["partitions"].as_array().unwrap_or(&empty);
            let next = |partition: i32| {
                let found = partitions.iter().find(|entry| entry["topic"] == TOPIC && entry["partition"] == partition);
                found.and_then(|entry| entry["next"].as_i64()).unwrap_or(-1)
            };
            ends.iter().all(|(partition, end)| next(*partition) >= *end)
        };
        self.wait(&format!("{ends:?}"), reached).await;
    }

    fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.kill();
    }
}

fn plan_view(epoch: u64) -> PlanView {
    PlanView {
        pipeline: PipelineName::new("payments").unwrap(),
        namespace: "fraud".into(),
        region: RegionName::new("eu-west").unwrap(),
        epoch: Epoch(epoch),
        revision: Revision(1),
        active_region: RegionName::new("us-east").unwrap(),
        role: RegionRole::Standby,
        step: Step::Steady,
        slots: SlotMap::even(1).unwrap(),
        shards: vec![],
    }
}

/// Small and seeded: when to kill.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        println!("seed {seed}");
        Self(seed | 1)
    }

    pub(crate) fn up_to_ms(&mut self, ms: u64) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(self.0 % ms)
    }
}
