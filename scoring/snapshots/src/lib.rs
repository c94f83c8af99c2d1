//! Snapshots of the feature store: taken from replicas, kept in a bucket or a folder, and put back into empty shards.
//!
//! A shard's copy is Redis' own data set, handed over by a replica to somebody who looks like one that wants to follow it
//! (`copy`): no file is written there, and no primary is asked, because the copy costs the process that gives it time. The
//! positions in the logs (`fp:vector`) are part of the data, so each copy knows by itself what is in it: shards need not be
//! copied in the same moment, and a builder folds what came after.
//!
//! A snapshot is a folder of copies and a manifest, which is written last: what has none was never finished, and is neither
//! listed nor restored. Every copy is checked against the manifest's SHA-256 before anything is changed.
//!
//! A copy is put back without access to the process's files: the process is told to follow us, we hand it the copy as a
//! primary would (`offer`), and then it is made a primary, all under the epoch of the plan (`replace`). To rebuild a shard
//! from the logs alone is to put an empty data set back: the positions are gone, and the builder begins anew.
#![forbid(unsafe_code)]

mod catalog;
mod copy;
mod error;
mod manifest;
mod offer;
mod rdb;
mod replace;
mod restore;
mod retention;
mod secure;
mod storage;
mod take;
mod wire;

pub use catalog::{Catalog, Content, Listed};
pub use error::SnapshotError;
pub use manifest::{Manifest, ShardManifest, SnapshotId};
pub use replace::ReplaceOptions;
pub use restore::{Outcome, rebuild, restore};
pub use secure::Identity;
pub use storage::{Storage, StorageConfig};
pub use take::{Source, TakeOptions, take};

/// The object of a shard's copy.
pub(crate) fn copy_name(shard: u16) -> String {
    format!("shard-{shard:04}.rdb")
}
