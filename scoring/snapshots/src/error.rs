//! Why there is no snapshot, or why one was not put back.

use std::time::Duration;

use domain::HostPort;
use feature_shards::ShardError;

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Shard(#[from] ShardError),
    #[error(
        "shard {shard} has no process that copies can be taken from: {seen}. A snapshot costs a primary time, so only replicas give one"
    )]
    NoCopy { shard: u16, seen: String },
    #[error("all shards of this region are primaries: take the snapshot in a region that follows, or give the shards replicas")]
    AllPrimaries,
    #[error("{address} gives no copy: {problem}")]
    Copy { address: HostPort, problem: String },
    #[error("{what} took longer than {} s", within.as_secs())]
    Late { what: String, within: Duration },
    #[error("--store {uri}: {problem}")]
    BadUri { uri: String, problem: String },
    #[error("--credentials-dir: {file} cannot be read: {source}")]
    Credentials { file: String, source: std::io::Error },
    #[error("{what}: {source}")]
    Storage { what: String, source: object_store::Error },
    #[error("there is no {wanted}. Complete snapshots: {present}")]
    NoSnapshot { wanted: String, present: String },
    #[error("snapshot {id}: its manifest cannot be used: {problem}")]
    Manifest { id: String, problem: String },
    #[error("snapshot {id} has format {format}, and this version reads up to {}: use a newer fraud-features", crate::manifest::FORMAT)]
    NewerFormat { id: String, format: u32 },
    #[error(
        "snapshot {id}: {problem}. Entities would be looked for in other shards than they are in: restore into the same number of shards"
    )]
    OtherSlots { id: String, problem: String },
    #[error("{object} is damaged: {problem}. Nothing was changed; take another snapshot")]
    Damaged { object: String, problem: String },
    #[error(
        "{address} is not empty, it holds {entities} entities: nothing was changed. Name an empty process, or replace what it holds with --overwrite"
    )]
    NotEmpty { address: HostPort, entities: u64 },
    #[error(
        "{address} runs Redis {version}, and the snapshot was taken from Redis {taken_from}: nothing was changed. Use the same version or a newer one"
    )]
    OlderRedis { address: HostPort, version: String, taken_from: String },
    #[error(
        "the shards speak TLS and would not follow us: name a certificate of their authority, and its key, with --tls-cert and --tls-key"
    )]
    NoIdentity,
    #[error("{address} has not taken its copy: {problem}")]
    NotTaken { address: HostPort, problem: String },
}

impl SnapshotError {
    pub(crate) fn copy(address: &HostPort, problem: impl Into<String>) -> Self {
        Self::Copy { address: address.clone(), problem: problem.into() }
    }

    pub(crate) fn not_taken(address: &HostPort, problem: impl Into<String>) -> Self {
        Self::NotTaken { address: address.clone(), problem: problem.into() }
    }

    pub(crate) fn storage(what: impl Into<String>) -> impl FnOnce(object_store::Error) -> Self {
        let what = what.into();
        |source| Self::Storage { what, source }
    }

    /// Whether a rule forbade it, and nothing was changed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Shard(error) => error.is_refusal(),
            Self::NoCopy { .. }
            | Self::AllPrimaries
            | Self::NoIdentity
            | Self::NewerFormat { .. }
            | Self::OtherSlots { .. }
            | Self::Damaged { .. }
            | Self::NotEmpty { .. }
            | Self::OlderRedis { .. } => true,
            _ => false,
        }
    }
}
