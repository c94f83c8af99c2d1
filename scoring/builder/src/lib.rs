//! The feature builder: folds the event logs, this region's own and the mirrors of the others, into the feature store.
//!
//! It works only while the plan makes this region the active one, because the shards of the others are read-only; elsewhere
//! it waits, ready. For each plan it runs one session: resume from the positions that the shards hold, then batch after
//! batch, in this order: unreadable records to the dead-letter topic, acknowledged; events and positions into all shards;
//! the new features to `<prefix>.features`.
//!
//! Guarantees: an acknowledged record is folded at least once, and counts once because sets hold each transaction once; a
//! position never claims more than what has been folded. After a crash the last batch is folded again. Its feature updates
//! may be missing: `<prefix>.features` can be recomputed from the events and is no source of truth.
//!
//! One process a region does the work. A second one (during a rollout) is harmless to the store.
#![forbid(unsafe_code)]

pub mod app;
mod batch;
pub mod config;
mod dead_letter;
mod lag;
mod log;
mod metrics;
mod publish;
mod session;
