//! The feature store: what is known of users, cards, devices, addresses and mailboxes, in Redis shards or in memory.
//!
//! The decision service calls [`FeatureStore::record_and_read`]: one round trip per shard that appends the event to the values
//! of its entities and reads them back, so that payments in flight on other pods count. It never fails: what could not be
//! recorded or read is said in the [`FeatureRead`]. The builder calls [`RedisStore::fold`], which folds events from the logs
//! and the positions up to which the logs have been folded, by one guarded call per shard. Both may do so for the same event,
//! in any order: an entity has each event once.
//!
//! What a value is, how it is encoded, folded and evaluated is in `scoring-core`; here is only IO, and what is done when a
//! shard is full, slow or silent.
#![forbid(unsafe_code)]

mod commands;
mod config;
mod fold;
mod fresh;
mod functions;
mod health;
mod hot;
mod keep_warm;
mod link;
mod logs;
mod memory;
mod metrics;
mod over_long;
mod read;
mod redis_store;
mod request;
mod round_trip;
mod shards;
#[cfg(test)]
mod testing;

use scoring_core::event::Event;
use tokio::time::Instant;

pub use config::{FeaturesConfig, InvalidFeatures, RedisConfig, StoreConfig};
pub use fold::{FoldCounts, FoldError, Folded};
pub use logs::{LogPart, LogPartition, LogParts, Positions};
pub use memory::MemoryStore;
pub use metrics::FeatureMetrics;
pub use read::FeatureRead;
pub use redis_store::RedisStore;
pub use shards::UnusablePlan;

/// Where a decision service keeps what it knows of entities.
pub enum FeatureStore {
    Redis(RedisStore),
    /// In this process alone: `--standalone`.
    Memory(MemoryStore),
}

impl FeatureStore {
    /// Records the event in the values of its entities and reads them, as far as that goes until `deadline`.
    pub async fn record_and_read(&self, event: &Event, deadline: Instant) -> FeatureRead {
        match self {
            Self::Redis(store) => store.record_and_read(event, deadline).await,
            Self::Memory(store) => store.record_and_read(event),
        }
    }
}
