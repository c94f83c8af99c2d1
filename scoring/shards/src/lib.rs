//! The one place that knows how to look at a shard's Redis process and how to change what it is.
//!
//! Redis knows no epochs, so a role changes only inside a transaction that first looks at the epoch written there
//! (`WATCH fp:epoch`, `GET`, `MULTI` … `EXEC`): a command of somebody who was overtaken aborts. A replica refuses writes
//! when they are queued, so a new primary writes its epoch by a script, which runs when it is a replica no more.
//!
//! [`ShardClient::promote_planned`] moves all shards to the other region without losing an acknowledged write;
//! [`ShardClient::promote_unplanned`] is for a primary that is gone.
#![forbid(unsafe_code)]

mod client;
mod error;
mod follow;
mod health;
mod info;
mod lag;
mod memory;
mod planned;
mod resync;
mod role;
mod seen;
mod settings;
mod unplanned;

pub use client::ShardClient;
pub use error::ShardError;
pub use follow::Upstream;
pub use health::{Health, ReplicaHealth};
pub use lag::LagReport;
pub use memory::near_memory_limit;
pub use planned::{
    options::PlannedOptions,
    report::{Outcome, Pair, PlannedReport, ShardReport, ShardState, Timings},
};
pub use resync::{Resyncs, resync_loop};
pub use role::Change;
pub use settings::{Finding, Settings, WantedSettings};
pub use unplanned::{Unplanned, UnplannedReport};

/// The epoch in which a process was made a primary.
pub(crate) const EPOCH_KEY: &str = "fp:epoch";
/// The primary's own clock in milliseconds, as it was when somebody last wrote it.
pub(crate) const HEARTBEAT_KEY: &str = "fp:heartbeat";
/// So many replicas nobody has: a primary that wants them refuses all writes, also after a pause has lapsed.
pub(crate) const NO_WRITES: u64 = 255;
