//! The feature store: event sets of users, cards, devices, addresses and mailboxes, in Redis shards or in memory.
//!
//! The decision service calls [`FeatureStore::record_and_read`]: one round trip per shard that records the event in the sets
//! of its entities and reads them back, so that payments in flight on other pods count. It never fails: what could not be
//! recorded or read is said in the [`FeatureRead`]. The builder calls [`RedisStore::fold`], which adds events from the log
//! and the position up to which the log has been folded, in one transaction per shard. Both may do so for the same event, in
//! any order: a set holds each event once.
//!
//! What a set is, how it is encoded and how windows are computed from it is in `scoring-core`; here is only IO.
#![forbid(unsafe_code)]

mod commands;
mod config;
mod fold;
mod link;
mod memory;
mod metrics;
mod read;
mod redis_store;
mod shards;

use scoring_core::event::Event;
use tokio::time::Instant;

pub use config::{FeaturesConfig, RedisConfig};
pub use fold::{FoldError, Folded, LogPartition, Positions};
pub use memory::MemoryStore;
pub use metrics::FeatureMetrics;
pub use read::FeatureRead;
pub use redis_store::RedisStore;
pub use scoring_dial::TlsConfig;
pub use shards::UnusablePlan;

/// Where a decision service keeps event sets.
pub enum FeatureStore {
    Redis(RedisStore),
    /// In this process alone: `--standalone`.
    Memory(MemoryStore),
}

impl FeatureStore {
    /// Records the event in the sets of its entities and reads them, as far as that goes until `deadline`. Windows are those
    /// at the event's own time.
    pub async fn record_and_read(&self, event: &Event, deadline: Instant) -> FeatureRead {
        match self {
            Self::Redis(store) => store.record_and_read(event, deadline).await,
            Self::Memory(store) => store.record_and_read(event),
        }
    }
}
