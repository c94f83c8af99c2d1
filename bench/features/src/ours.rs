//! The product's own client, through its public interface.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use domain::{Epoch, HostPort, PipelineName, PlanView, RegionName, RegionRole, Revision, ShardAddress, SlotMap, Step};
use scoring_core::decide::FeatureState;
use scoring_core::event::Event;
use scoring_core::schema::FeatureSchema;
use scoring_core::state::StateConfig;
use scoring_core::windows::Windows;
use scoring_features::{FeatureMetrics, LogPart, LogPartition, LogParts, RedisConfig, RedisStore, StoreConfig};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::contender::Contender;
use crate::workload::Workload;

/// Far beyond what is measured: a decision that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(2);
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
const FOLDED_WITHIN: Duration = Duration::from_secs(30);
const EVENTS_PER_BATCH: usize = 2_000;
/// How often the builder folds what the decisions have logged meanwhile.
const FOLD_EVERY: Duration = Duration::from_millis(100);

pub struct Ours {
    store: RedisStore,
    schema: FeatureSchema,
    card_count_place: usize,
    /// Events of the log that have been folded.
    folded: Mutex<i64>,
}

impl Ours {
    /// # Errors
    /// When the store is not connected in time.
    pub async fn connect(port: u16) -> Result<Self> {
        let windows = Windows::default();
        let schema = FeatureSchema::full(&windows);
        let card_count_place = schema.names().position(|name| name == "card_count_1m").context("the schema has no card_count_1m")?;
        let config = StoreConfig { state: StateConfig::fitting(&windows), windows, redis: RedisConfig::default() };
        let store = RedisStore::start(config, FeatureMetrics::default(), &plan(port)?)?;
        let give_up = Instant::now() + CONNECTED_WITHIN;
        while !store.disconnected().is_empty() {
            if Instant::now() > give_up {
                bail!("the store has no connection to port {port} after {CONNECTED_WITHIN:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self { store, schema, card_count_place, folded: Mutex::new(0) })
    }

    /// Folds events of the log, as the builder does.
    ///
    /// # Errors
    /// When Redis does not take them.
    pub async fn fold(&self, events: &[Event], now_ms: i64) -> Result<()> {
        let count = i64::try_from(events.len())?;
        let from = {
            let mut folded = self.folded.lock().unwrap_or_else(PoisonError::into_inner);
            *folded += count;
            *folded - count
        };
        let partition = LogPartition { cluster_id: "bench".to_string(), topic: "events".to_string(), partition: 0 };
        let events = (from..).zip(events.iter().cloned()).collect();
        // The log has a beginning that no shard has folded yet.
        let begins = (from > 0).then_some(from);
        let part = LogPart { from: begins, next: from + count, events, profiles: Vec::new() };
        self.store.fold(&LogParts::from([(partition, part)]), &BTreeSet::new(), now_ms, FOLDED_WITHIN).await?;
        Ok(())
    }
}

impl Contender for Ours {
    async fn fill(&self, workload: &Workload) -> Result<()> {
        let mut batch = Vec::new();
        for customer in 0..workload.customers {
            batch.extend(workload.history(customer));
            if batch.len() >= EVENTS_PER_BATCH || customer + 1 == workload.customers {
                self.fold(&batch, workload.now_ms).await?;
                batch.clear();
            }
        }
        Ok(())
    }

    async fn decide(&self, payment: &Event) -> Result<u64> {
        let read = self.store.record_and_read(payment, Instant::now() + DEADLINE).await;
        if read.state() != FeatureState::Whole {
            bail!("the read is {:?}", read.state());
        }
        let vector = self.schema.assemble(payment, &read.states);
        count(vector.values()[self.card_count_place])
    }
}

/// Counts are whole numbers far below 2^24, exact in 32-bit floats.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn count(value: f32) -> Result<u64> {
    anyhow::ensure!(value.is_finite() && value >= 0.0, "the count is {value}");
    Ok(value as u64)
}

/// Ours, while the builder folds the same events behind the decisions.
pub struct OursWithBuilder {
    ours: Arc<Ours>,
    log: Arc<Mutex<Log>>,
    builder: JoinHandle<()>,
}

#[derive(Default)]
struct Log {
    events: Vec<Event>,
    broken: Option<String>,
}

impl OursWithBuilder {
    /// # Errors
    /// When the store is not connected in time.
    pub async fn connect(port: u16) -> Result<Self> {
        let (ours, log) = (Arc::new(Ours::connect(port).await?), Arc::new(Mutex::new(Log::default())));
        let builder = tokio::spawn(build(ours.clone(), log.clone()));
        Ok(Self { ours, log, builder })
    }
}

async fn build(ours: Arc<Ours>, log: Arc<Mutex<Log>>) {
    let lock = || log.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        tokio::time::sleep(FOLD_EVERY).await;
        let events = std::mem::take(&mut lock().events);
        for batch in events.chunks(EVENTS_PER_BATCH) {
            if let Err(error) = ours.fold(batch, now_ms()).await {
                lock().broken = Some(format!("{error:#}"));
                return;
            }
        }
    }
}

impl Contender for OursWithBuilder {
    fn fill(&self, workload: &Workload) -> impl Future<Output = Result<()>> + Send {
        self.ours.fill(workload)
    }

    async fn decide(&self, payment: &Event) -> Result<u64> {
        let count = self.ours.decide(payment).await?;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &log.broken {
            bail!("the builder stopped: {why}");
        }
        log.events.push(payment.clone());
        Ok(count)
    }
}

impl Drop for OursWithBuilder {
    fn drop(&mut self) {
        self.builder.abort();
    }
}

/// The wall clock, in which events are stamped.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

fn plan(port: u16) -> Result<PlanView> {
    let region = RegionName::new("us-east").context("the region of the benchmark")?;
    Ok(PlanView {
        pipeline: PipelineName::new("payments").context("the pipeline of the benchmark")?,
        namespace: "fraud".to_string(),
        region: region.clone(),
        epoch: Epoch(1),
        revision: Revision(1),
        active_region: region,
        role: RegionRole::Active,
        step: Step::Steady,
        slots: SlotMap::even(1)?,
        shards: vec![ShardAddress {
            shard: 0,
            primary: HostPort { host: "127.0.0.1".to_string(), port },
            replicas: Vec::new(),
            process: 0,
            term: 0,
        }],
    })
}
