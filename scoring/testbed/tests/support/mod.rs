//! Regions on loopback: in each a real broker, real Redis shards, the builder, and what a decision service does with an
//! event; between them real mirrors and lines that can be cut.
// Each test binary uses a part of it.
#![allow(dead_code)]

pub(crate) mod mirror;
pub(crate) mod oracle;
pub(crate) mod traffic;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use domain::{Epoch, HostPort, PipelineName, PlanView, RegionName, RegionRole, Revision, ShardAddress, SlotMap, Step};
use feature_shards::{Change, ShardClient, ShardError, Upstream};
use kafka::{
    KafkaConfig, TopicSpec, ensure_topics,
    headers::RecordHeaders,
    rdkafka::producer::{FutureProducer, FutureRecord},
    testing::Broker,
};
use operator_planner::ShardFacts;
use process::plan::PlanWatch;
use prost::Message as _;
use proto::fraud::v1;
use redis_testbed::{Line, Server, free_port};
use scoring_builder::{app, config::Config};
use scoring_core::{event::Event, published::Published};
use scoring_features::{FeatureMetrics, FeatureRead, RedisStore};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use oracle::{States, states_of};

pub(crate) const RAW: &str = "fraud.events.raw";
pub(crate) const PARTITIONS: i32 = 2;
const TOPICS: [(&str, u32); 4] = [(RAW, 2), ("fraud.profiles", 1), ("fraud.features", 1), ("fraud.events.dead-letter", 1)];
pub(crate) const SHARDS: usize = 2;
pub(crate) const US: &str = "us-east";
pub(crate) const EU: &str = "eu-west";
/// Nothing here takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long a decision waits for the shards.
const DECISION: Duration = Duration::from_millis(30);
/// So few that of every entity some are summed up.
pub(crate) const EXACT_EVENTS: usize = 12;
const ONE_WAY: Duration = Duration::from_millis(10);

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

pub(crate) fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

/// Whoever changes what a process is.
pub(crate) fn operator() -> ShardClient {
    ShardClient::without_login()
}

pub(crate) struct Region {
    pub(crate) name: RegionName,
    broker: Mutex<Broker>,
    pub(crate) kafka: KafkaConfig,
    shards: Vec<Mutex<Server>>,
    pub(crate) addresses: Vec<HostPort>,
    /// How the other region reaches the shards.
    pub(crate) lines: Vec<Line>,
    folder: tempfile::TempDir,
    admin_port: u16,
    producer: FutureProducer,
    decisions: RedisStore,
}

impl Region {
    /// Its shards are replicas of nowhere yet.
    pub(crate) async fn start(name: &str, plan: (u64, &str)) -> Arc<Self> {
        let broker = tokio::task::spawn_blocking(|| Broker::start().unwrap()).await.unwrap();
        let kafka = broker.config();
        let spec =
            |(name, partitions): (&str, u32)| TopicSpec { name: name.into(), partitions, replication: None, config: BTreeMap::new() };
        ensure_topics(&kafka, &TOPICS.map(spec)).await.unwrap();
        let mut client = kafka.client_config("decisions").unwrap();
        client.set("acks", "all").set("enable.idempotence", "true").set("linger.ms", "1");
        let shards: Vec<Server> = (0..SHARDS).map(|_| Server::start("").unwrap()).collect();
        let addresses: Vec<HostPort> = shards.iter().map(Server::address).collect();
        let mut lines = Vec::new();
        for address in &addresses {
            lines.push(Line::start(address.clone(), ONE_WAY).await.unwrap());
        }
        let (name, folder, admin_port) = (region(name), tempfile::tempdir().unwrap(), free_port().unwrap());
        let view = view(&name, plan, 1, &addresses);
        std::fs::write(folder.path().join("plan.yaml"), serde_yaml::to_string(&view).unwrap()).unwrap();
        let store = builder_config(&name, &kafka, admin_port).features.checked().unwrap();
        Arc::new(Self {
            decisions: RedisStore::start(store, FeatureMetrics::default(), &view).unwrap(),
            producer: client.create().unwrap(),
            shards: shards.into_iter().map(Mutex::new).collect(),
            broker: Mutex::new(broker),
            name,
            kafka,
            addresses,
            lines,
            folder,
            admin_port,
        })
    }

    pub(crate) fn shard(&self, shard: usize) -> MutexGuard<'_, Server> {
        self.shards[shard].lock().unwrap()
    }

    pub(crate) fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap()
    }

    pub(crate) fn plan_path(&self) -> PathBuf {
        self.folder.path().join("plan.yaml")
    }

    /// This region gets another plan: its epoch, and who is active.
    pub(crate) fn adopt(&self, plan: (u64, &str)) {
        self.adopt_with(plan, 1, &self.addresses);
    }

    pub(crate) fn adopt_with(&self, plan: (u64, &str), revision: u64, addresses: &[HostPort]) {
        let view = view(&self.name, plan, revision, addresses);
        std::fs::write(self.plan_path(), serde_yaml::to_string(&view).unwrap()).unwrap();
        self.decisions.follow(&view).unwrap();
    }

    pub(crate) async fn make_primary(&self, epoch: u64) {
        for address in &self.addresses {
            insist(async || operator().change(address, &Change::Primary, Epoch(epoch)).await).await;
        }
    }

    /// All shards follow those of the other region, over its lines.
    pub(crate) async fn follow(&self, other: &Self, epoch: u64) {
        for (address, line) in self.addresses.iter().zip(&other.lines) {
            let upstream = Upstream { address: line.address(), from_follower: line.address() };
            insist(async || operator().follow(address, &upstream, Epoch(epoch), false).await).await;
        }
    }

    /// Nobody in the other region reaches this one's shards, and nobody is told.
    pub(crate) fn cut(&self) {
        self.lines.iter().for_each(Line::freeze);
    }

    pub(crate) fn mend(&self) {
        self.lines.iter().for_each(Line::thaw);
    }

    pub(crate) fn builder(&self) -> Builder {
        let stop = CancellationToken::new();
        let watch = PlanWatch::follow(&self.plan_path(), stop.clone()).unwrap();
        let config = builder_config(&self.name, &self.kafka, self.admin_port);
        Builder { task: tokio::spawn(app::serve(config, watch, stop.clone())), stop }
    }

    /// As a decision service reads and records an event.
    pub(crate) async fn decide(&self, event: &Event) -> FeatureRead {
        self.decisions.record_and_read(event, Instant::now() + DECISION).await
    }

    /// A payment is decided upon and then put into the log. True when that is acknowledged.
    pub(crate) async fn accept(&self, event: &Event) -> bool {
        self.decide(event).await;
        self.log(event, i32::from(event.identity().0[15]) % PARTITIONS).await
    }

    pub(crate) async fn log(&self, event: &Event, partition: i32) -> bool {
        let payload = event.to_wire().encode_to_vec();
        let headers = RecordHeaders { epoch: event.epoch, origin: self.name.clone() }.to_kafka();
        let record = FutureRecord::<[u8], [u8]>::to(RAW).partition(partition).payload(&payload).key(b"card").headers(headers);
        self.producer.send(record, LIMIT).await.is_ok()
    }

    /// All entities of all shards.
    pub(crate) fn states(&self) -> States {
        (0..self.shards.len()).flat_map(|shard| states_of(&self.shard(shard))).collect()
    }

    pub(crate) async fn look(&self, shard: usize) -> ShardFacts {
        insist(async || operator().look(&self.addresses[shard]).await).await
    }

    /// What the builder has published in a shard.
    pub(crate) fn published(&self, shard: usize) -> Option<Published> {
        let bytes: Option<Vec<u8>> = self.shard(shard).ask("GET fp:fresh").unwrap();
        Some(Published::from_wire(&v1::PublishedFreshness::decode(bytes?.as_slice()).unwrap()).unwrap())
    }

    pub(crate) fn get(&self, path: &str) -> String {
        use std::io::{Read as _, Write as _};
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.admin_port)) else { return String::new() };
        let mut answer = String::new();
        let _ = write!(stream, "GET {path} HTTP/1.0\r\n\r\n").and_then(|()| stream.read_to_string(&mut answer).map(drop));
        answer
    }

    pub(crate) fn metric(&self, line_start: &str) -> Option<f64> {
        let metrics = self.get("/metrics");
        metrics.lines().find(|line| line.starts_with(line_start)).and_then(|line| line.rsplit(' ').next()?.parse().ok())
    }
}

/// What an operator does that does not get through: it tries again.
pub(crate) async fn insist<T>(mut act: impl AsyncFnMut() -> Result<T, ShardError>) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        match act().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < limit, "not within a minute: {error}"),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// The rule that forbids it, as opposed to a process that did not answer.
pub(crate) async fn refusal<T>(mut act: impl AsyncFnMut() -> Result<T, ShardError>) -> ShardError {
    let limit = Instant::now() + LIMIT;
    loop {
        match act().await {
            Ok(_) => panic!("it was not refused"),
            Err(error) if error.is_refusal() && !matches!(error, ShardError::UnknownUpstream { .. }) => return error,
            Err(error) => assert!(Instant::now() < limit, "not within a minute: {error}"),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !done().await {
        assert!(Instant::now() < limit, "not within a minute: {what}");
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Waits until nothing is wrong any more.
pub(crate) async fn until_right(what: &str, wrong: impl Fn() -> Option<String>) {
    let limit = Instant::now() + LIMIT;
    while let Some(wrong) = wrong() {
        assert!(Instant::now() < limit, "not within a minute: {what}: {wrong}");
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// us-east is active in epoch 1, and eu-west has copies of its shards.
pub(crate) async fn two_regions() -> (Arc<Region>, Arc<Region>) {
    let (us, eu) = tokio::join!(Region::start(US, (1, US)), Region::start(EU, (1, US)));
    us.make_primary(1).await;
    eu.follow(&us, 1).await;
    (us, eu)
}

fn view(name: &RegionName, (epoch, active): (u64, &str), revision: u64, addresses: &[HostPort]) -> PlanView {
    let address = |(shard, primary): (u16, &HostPort)| ShardAddress { shard, primary: primary.clone(), replicas: vec![] };
    PlanView {
        pipeline: PipelineName::new("payments").unwrap(),
        namespace: "fraud".into(),
        region: name.clone(),
        epoch: Epoch(epoch),
        revision: Revision(revision),
        active_region: region(active),
        role: if name.as_str() == active { RegionRole::Active } else { RegionRole::Standby },
        step: Step::Steady,
        slots: SlotMap::even(u16::try_from(addresses.len()).unwrap()).unwrap(),
        shards: (0..).zip(addresses).map(address).collect(),
    }
}

fn builder_config(name: &RegionName, kafka: &KafkaConfig, admin_port: u16) -> Config {
    let other = if name.as_str() == US { EU } else { US };
    let text = format!(
        "{{pipeline: payments, region: {name}, origins: [{other}], kafka: {{bootstrap_servers: ['x:1']}}, features: {{retention: {{exact_events: {EXACT_EVENTS}}}, redis: {{}}}}, \
         freshness: {{heartbeat_interval: 100ms, silence_max: 1s, publish_interval: 100ms, valid_for: 1s}}, \
         limits: {{fold_timeout: 1s, lag_interval: 200ms, kafka_timeout: 2s}}, admin: '127.0.0.1:{admin_port}'}}"
    );
    Config { kafka: kafka.clone(), ..serde_yaml::from_str(&text).unwrap() }
}

/// Ends with the test's runtime, unless it is stopped before.
pub(crate) struct Builder {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Builder {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }
}
