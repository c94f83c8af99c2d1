//! Takes a snapshot: a copy of each shard from one of its replicas, then the manifest.

use std::time::Duration;

use bytes::Bytes;
use domain::{HostPort, RegionName, SlotMap};
use feature_shards::{Contents, ShardClient};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use operator_planner::{Link, ShardRole};
use sha2::{Digest, Sha256};

use crate::{
    Catalog, Manifest, ShardManifest, SnapshotError, SnapshotId,
    copy::Copying,
    manifest::FORMAT,
    rdb::{self, HEAD_BYTES, TAIL_BYTES},
    storage::Upload,
};

/// What a snapshot is taken of.
#[derive(Debug, Clone)]
pub struct Source {
    pub region: RegionName,
    pub slots: SlotMap,
    /// The processes of each shard, by its number; the first that is a copy with its link up gives one.
    pub processes: Vec<Vec<HostPort>>,
}

#[derive(Debug, Clone, Copy)]
pub struct TakeOptions {
    pub at_once: usize,
    /// For all shards together.
    pub within: Duration,
}

impl Default for TakeOptions {
    fn default() -> Self {
        Self { at_once: 2, within: Duration::from_secs(3_600) }
    }
}

/// A process that gives a copy, as it was when it was looked at.
struct Giver {
    shard: u16,
    address: HostPort,
    seen: Contents,
}

/// Takes a snapshot, and gives its manifest. What goes wrong leaves no complete snapshot.
///
/// # Errors
/// When a shard has no process that copies can be taken from, a copy ends before it is whole, the storage takes one not, or
/// it takes too long.
pub async fn take(
    catalog: &Catalog,
    client: &ShardClient,
    source: &Source,
    options: &TakeOptions,
    now: Timestamp,
) -> Result<Manifest, SnapshotError> {
    let taking = Box::pin(take_unbounded(catalog, client, source, options.at_once.max(1), SnapshotId::begun_at(now)));
    let late = |_| SnapshotError::Late { what: "the snapshot".into(), within: options.within };
    tokio::time::timeout(options.within, taking).await.map_err(late)?
}

async fn take_unbounded(
    catalog: &Catalog,
    client: &ShardClient,
    source: &Source,
    at_once: usize,
    id: SnapshotId,
) -> Result<Manifest, SnapshotError> {
    let givers = givers(client, source).await?;
    let (region, id_of) = (&source.region, &id);
    let copies = givers.into_iter().map(|giver| async move {
        let object = catalog.copy(region, id_of, giver.shard);
        copy(catalog, client, &object, giver).await
    });
    let mut shards: Vec<ShardManifest> = stream::iter(copies).buffer_unordered(at_once).try_collect().await?;
    shards.sort_by_key(|shard| shard.shard);
    let manifest = Manifest {
        format: FORMAT,
        id,
        pipeline: catalog.pipeline.clone(),
        region: source.region.clone(),
        finished_at: Timestamp::now().to_string(),
        slots: source.slots.clone(),
        shards,
    };
    catalog.complete(&manifest).await?;
    Ok(manifest)
}

/// Looks at all shards before anything is copied.
async fn givers(client: &ShardClient, source: &Source) -> Result<Vec<Giver>, SnapshotError> {
    let (mut givers, mut without, mut primaries) = (Vec::new(), None, 0);
    for (shard, processes) in (0_u16..).zip(&source.processes) {
        match giver(client, shard, processes).await? {
            Ok(giver) => givers.push(giver),
            Err(seen) => {
                primaries += usize::from(seen.all_primaries);
                without = without.or(Some((shard, seen.text)));
            }
        }
    }
    match without {
        None => Ok(givers),
        Some(_) if primaries == source.processes.len() => Err(SnapshotError::AllPrimaries),
        Some((shard, seen)) => Err(SnapshotError::NoCopy { shard, seen }),
    }
}

/// What there is instead of a process that gives a copy.
struct Nobody {
    all_primaries: bool,
    text: String,
}

async fn giver(client: &ShardClient, shard: u16, processes: &[HostPort]) -> Result<Result<Giver, Nobody>, SnapshotError> {
    let (mut texts, mut all_primaries, mut failure) = (Vec::new(), true, None);
    for address in processes {
        let seen = match client.contents(address).await {
            Ok(seen) => seen,
            Err(error) => {
                all_primaries = false;
                texts.push(error.to_string());
                failure = failure.or(Some(error));
                continue;
            }
        };
        match &seen.role {
            ShardRole::Following { link: Link::Up, .. } => return Ok(Ok(Giver { shard, address: address.clone(), seen })),
            ShardRole::Primary | ShardRole::Held => texts.push(format!("{address} is a primary")),
            ShardRole::Nowhere => texts.push(format!("{address} follows nobody")),
            ShardRole::Following { upstream, .. } => texts.push(format!("{address} has no link to {upstream}, which it follows")),
        }
        all_primaries &= matches!(seen.role, ShardRole::Primary | ShardRole::Held);
    }
    // Of a single process the reason itself is told: it may be a wrong password.
    match failure {
        Some(error) if processes.len() == 1 => Err(error.into()),
        _ => Ok(Err(Nobody { all_primaries: all_primaries && !processes.is_empty(), text: texts.join("; ") })),
    }
}

async fn copy(catalog: &Catalog, client: &ShardClient, object: &str, giver: Giver) -> Result<ShardManifest, SnapshotError> {
    let Giver { shard, address, seen } = giver;
    let mut copying = Copying::begin(client, &address).await?;
    let mut upload = catalog.storage.upload(object).await?;
    let written = match write(&mut copying, &mut upload, &address).await {
        Ok(written) => written,
        Err(error) => {
            upload.abort().await;
            return Err(error);
        }
    };
    upload.finish().await?;
    Ok(ShardManifest {
        shard,
        bytes: written.bytes,
        sha256: hex::encode(written.digest.finalize()),
        taken_from: address,
        redis_version: seen.version,
        rdb_version: written.rdb_version,
        epoch: seen.epoch,
        replication_id: copying.replication_id.clone(),
        offset: copying.offset,
        positions: seen.positions,
    })
}

struct Written {
    bytes: u64,
    digest: Sha256,
    rdb_version: u16,
}

async fn write(copying: &mut Copying, upload: &mut Upload, address: &HostPort) -> Result<Written, SnapshotError> {
    let (mut head, mut tail) = (Vec::with_capacity(HEAD_BYTES), Vec::new());
    let mut written = Written { bytes: 0, digest: Sha256::new(), rdb_version: 0 };
    while let Some(bytes) = copying.next().await? {
        written.bytes += bytes.len() as u64;
        written.digest.update(&bytes);
        head.extend(bytes.iter().take(HEAD_BYTES - head.len()));
        keep_tail(&mut tail, &bytes);
        upload.write(bytes).await?;
    }
    let strange = || SnapshotError::copy(address, "what it sent is no data set of Redis");
    written.rdb_version = rdb::version(&head).filter(|_| rdb::ends_whole(&tail)).ok_or_else(strange)?;
    Ok(written)
}

/// The last bytes of everything so far.
fn keep_tail(tail: &mut Vec<u8>, bytes: &Bytes) {
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL_BYTES)..]);
    tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_kept_however_the_bytes_come() {
        let mut tail = Vec::new();
        for bytes in [b"abcdefghijkl".as_slice(), b"", b"mn", b"o"] {
            keep_tail(&mut tail, &Bytes::copy_from_slice(bytes));
        }
        assert_eq!(tail, b"ghijklmno");
    }
}
