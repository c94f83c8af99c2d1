//! Puts a snapshot back into a region's shards, or nothing at all, so that they are rebuilt from the logs.

use std::time::Duration;

use domain::{HostPort, SlotMap};
use feature_shards::{Contents, READ_FROM_KEY, ShardClient, ShardError};
use futures::{StreamExt, stream};
use jiff::Timestamp;

use crate::{Catalog, Manifest, ReplaceOptions, ShardManifest, SnapshotError, offer::DataSet, rdb, replace::replace};

/// How long the builder may take to come to all logs after a rebuild was begun.
const READ_FROM_LIVES: Duration = Duration::from_secs(7 * 86_400);

/// What became of one shard.
#[derive(Debug)]
pub struct Outcome {
    pub shard: u16,
    pub address: HostPort,
    pub result: Result<(), SnapshotError>,
}

/// Puts a snapshot into the shards' processes, given by number, and makes them primaries. Everything is checked before
/// anything is changed: whether the snapshot fits the shards and is whole, and whether each process may be replaced.
///
/// # Errors
/// When nothing was changed. What went wrong with a shard later is in its outcome.
pub async fn restore(
    catalog: &Catalog,
    client: &ShardClient,
    manifest: &Manifest,
    (slots, targets): (&SlotMap, &[HostPort]),
    options: &ReplaceOptions,
) -> Result<Vec<Outcome>, SnapshotError> {
    manifest.check_slots(slots)?;
    for (target, shard) in targets.iter().zip(&manifest.shards) {
        let seen = admit(client, target, options).await?;
        check_shard(target, &seen, shard, options)?;
    }
    catalog.check(manifest).await?;
    let data = |shard: &ShardManifest| DataSet::Stored {
        storage: catalog.storage.clone(),
        object: catalog.copy(&manifest.region, &manifest.id, shard.shard),
        bytes: shard.bytes,
        sha256: shard.sha256.clone(),
    };
    let work = targets.iter().zip(&manifest.shards).map(|(target, shard)| (target, data(shard), shard.offset)).collect();
    Ok(replace_all(client, work, options).await)
}

/// Empties the shards' processes, given by number, and makes them primaries: without positions the builder folds the logs
/// anew, from what the longest window needs, or from `read_from` if that is earlier.
///
/// # Errors
/// When nothing was changed. What went wrong with a shard later is in its outcome.
pub async fn rebuild(
    client: &ShardClient,
    targets: &[HostPort],
    read_from: Option<Timestamp>,
    options: &ReplaceOptions,
) -> Result<Vec<Outcome>, SnapshotError> {
    for target in targets {
        admit(client, target, options).await?;
    }
    let from = read_from.map(|time| (READ_FROM_KEY, time.as_millisecond().max(0).to_string(), Some(READ_FROM_LIVES)));
    let empty = rdb::with_keys(from.as_slice(), Timestamp::now());
    let work = targets.iter().map(|target| (target, DataSet::Bytes(empty.clone().into()), 1)).collect();
    Ok(replace_all(client, work, options).await)
}

async fn replace_all(client: &ShardClient, work: Vec<(&HostPort, DataSet, u64)>, options: &ReplaceOptions) -> Vec<Outcome> {
    let replacing = (0_u16..).zip(work).map(|(shard, (target, data, offset))| async move {
        let result = Box::pin(replace(client, target, &data, offset, options)).await;
        Outcome { shard, address: target.clone(), result }
    });
    let mut outcomes: Vec<Outcome> = stream::iter(replacing).buffer_unordered(options.at_once()).collect().await;
    outcomes.sort_by_key(|outcome| outcome.shard);
    outcomes
}

async fn admit(client: &ShardClient, target: &HostPort, options: &ReplaceOptions) -> Result<Contents, SnapshotError> {
    if client.tls().is_some() && options.identity.is_none() {
        return Err(SnapshotError::NoIdentity);
    }
    let seen = client.contents(target).await?;
    if let Some(newer) = seen.epoch.filter(|epoch| *epoch > options.epoch) {
        return Err(ShardError::NewerEpoch { address: target.clone(), seen: newer, ours: options.epoch }.into());
    }
    if seen.entities > 0 && !options.overwrite {
        return Err(SnapshotError::NotEmpty { address: target.clone(), entities: seen.entities });
    }
    Ok(seen)
}

fn check_shard(target: &HostPort, seen: &Contents, shard: &ShardManifest, options: &ReplaceOptions) -> Result<(), SnapshotError> {
    // After loading, the process would hold this epoch, and take no order of an older one.
    if let Some(newer) = shard.epoch.filter(|epoch| *epoch > options.epoch) {
        return Err(ShardError::NewerEpoch { address: shard.taken_from.clone(), seen: newer, ours: options.epoch }.into());
    }
    if release(&seen.version) < release(&shard.redis_version) {
        let (version, taken_from) = (seen.version.clone(), shard.redis_version.clone());
        return Err(SnapshotError::OlderRedis { address: target.clone(), version, taken_from });
    }
    Ok(())
}

/// Of `7.0.15` the first two: within a release, versions read each other's data.
fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use domain::Epoch;
    use operator_planner::ShardRole;

    use super::*;
    use crate::manifest::tests::manifest;

    #[test]
    fn a_shard_takes_neither_data_of_a_newer_redis_nor_of_a_newer_epoch() {
        let target = HostPort { host: "a".into(), port: 1 };
        let check = |version: &str, epoch| {
            let seen = Contents {
                role: ShardRole::Nowhere,
                version: version.into(),
                epoch: None,
                entities: 0,
                positions: std::collections::BTreeMap::new(),
            };
            check_shard(&target, &seen, &manifest(1).shards[0], &ReplaceOptions::in_epoch(Epoch(epoch)))
        };
        assert!(check("7.0.1", 3).is_ok() && check("8.2.0", 4).is_ok());
        for (refused, why) in [(check("6.2.9", 3), "runs Redis 6.2.9"), (check("7.0.15", 2), "newer than epoch 2")] {
            let error = refused.unwrap_err();
            assert!(error.is_refusal() && error.to_string().contains(why), "{error}");
        }
    }
}
