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
use tokio::time::Instant;

use crate::contender::Contender;
use crate::workload::Workload;

/// Far beyond what is measured: a decision that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(2);
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
const FOLDED_WITHIN: Duration = Duration::from_secs(30);
const EVENTS_PER_FILL: usize = 2_000;

pub struct Ours {
    store: RedisStore,
    schema: FeatureSchema,
    card_count_place: usize,
    /// Events of the log that have been folded, by this client or another one of the same Redis.
    folded: Arc<Mutex<i64>>,
}

impl Ours {
    /// # Errors
    /// When the store is not connected in time.
    pub async fn connect(port: u16) -> Result<Self> {
        Self::connect_at(port, Arc::default()).await
    }

    /// How many events of the log have been folded, for another client of the same Redis that goes on there.
    pub(crate) fn position(&self) -> Arc<Mutex<i64>> {
        self.folded.clone()
    }

    pub(crate) async fn connect_at(port: u16, folded: Arc<Mutex<i64>>) -> Result<Self> {
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
        Ok(Self { store, schema, card_count_place, folded })
    }

    /// Folds events of the log, as the builder does.
    ///
    /// # Errors
    /// When Redis does not take them.
    pub async fn fold(&self, events: &[Event], now_ms: i64) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
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
            if batch.len() >= EVENTS_PER_FILL || customer + 1 == workload.customers {
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
        shards: vec![ShardAddress { shard: 0, primary: HostPort { host: "127.0.0.1".to_string(), port }, replicas: Vec::new() }],
    })
}
