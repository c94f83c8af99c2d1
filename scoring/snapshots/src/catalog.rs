//! The snapshots that there are.

use std::time::Duration;

use domain::{PipelineName, RegionName};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{
    Manifest, ShardManifest, SnapshotError, SnapshotId, Storage, copy_name,
    retention::{Found, to_delete},
};

const MANIFEST_NAME: &str = "manifest.json";
const MANIFESTS_AT_ONCE: usize = 8;

/// One pipeline's snapshots, of all regions.
#[derive(Clone)]
pub struct Catalog {
    pub storage: Storage,
    pub pipeline: PipelineName,
}

/// What is under a snapshot's name.
#[derive(Debug)]
pub struct Listed {
    pub region: RegionName,
    pub id: SnapshotId,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Complete(Box<Manifest>),
    /// It has a manifest that this version cannot use.
    Unusable(SnapshotError),
    /// It has no manifest: it is being taken, or was never finished. It cannot be restored.
    Torn,
}

impl Catalog {
    fn folder(&self, region: &RegionName, id: &SnapshotId) -> String {
        format!("{}/{region}/{id}", self.pipeline)
    }

    pub(crate) fn copy(&self, region: &RegionName, id: &SnapshotId, shard: u16) -> String {
        format!("{}/{}", self.folder(region, id), copy_name(shard))
    }

    /// Everything of one region, or of all, by time.
    ///
    /// # Errors
    /// When the storage does not answer.
    pub async fn list(&self, region: Option<&RegionName>) -> Result<Vec<Listed>, SnapshotError> {
        let regions = match region {
            Some(region) => vec![region.clone()],
            None => self.storage.names(self.pipeline.as_str()).await?.into_iter().filter_map(|name| RegionName::new(name).ok()).collect(),
        };
        let mut places = Vec::new();
        for region in regions {
            let names = self.storage.names(&format!("{}/{region}", self.pipeline)).await?;
            places.extend(names.iter().filter_map(|name| SnapshotId::parse(name)).map(|id| (region.clone(), id)));
        }
        let looks = places.into_iter().map(|(region, id)| self.look(region, id));
        let mut listed: Vec<Listed> = stream::iter(looks).buffer_unordered(MANIFESTS_AT_ONCE).try_collect().await?;
        listed.sort_by(|a, b| (&a.id, &a.region).cmp(&(&b.id, &b.region)));
        Ok(listed)
    }

    async fn look(&self, region: RegionName, id: SnapshotId) -> Result<Listed, SnapshotError> {
        let content = match self.storage.small(&format!("{}/{MANIFEST_NAME}", self.folder(&region, &id))).await {
            Ok(Some(bytes)) => match self.parse(&region, &id, &bytes) {
                Ok(manifest) => Content::Complete(Box::new(manifest)),
                Err(error) => Content::Unusable(error),
            },
            Ok(None) => Content::Torn,
            Err(error @ SnapshotError::Damaged { .. }) => Content::Unusable(error),
            Err(error) => return Err(error),
        };
        Ok(Listed { region, id, content })
    }

    fn parse(&self, region: &RegionName, id: &SnapshotId, bytes: &[u8]) -> Result<Manifest, SnapshotError> {
        let manifest = Manifest::parse(id, bytes)?;
        if (&manifest.pipeline, &manifest.region) != (&self.pipeline, region) {
            let problem = format!("it is that of pipeline {} in {}", manifest.pipeline, manifest.region);
            return Err(SnapshotError::Manifest { id: id.to_string(), problem });
        }
        Ok(manifest)
    }

    /// The complete snapshot of that name, or the newest.
    ///
    /// # Errors
    /// When there is none, or this version cannot use it.
    pub async fn find(&self, region: Option<&RegionName>, id: Option<&SnapshotId>) -> Result<Manifest, SnapshotError> {
        let mut complete = Vec::new();
        for listed in self.list(region).await? {
            match listed.content {
                Content::Complete(manifest) => complete.push(*manifest),
                Content::Unusable(error) if id == Some(&listed.id) => return Err(error),
                Content::Unusable(_) | Content::Torn => {}
            }
        }
        let place = match id {
            Some(id) => complete.iter().rposition(|manifest| manifest.id == *id),
            None => complete.len().checked_sub(1),
        };
        if let Some(place) = place {
            return Ok(complete.swap_remove(place));
        }
        let wanted = id.map_or_else(|| "complete snapshot".to_owned(), |id| format!("complete snapshot {id}"));
        let present: Vec<String> = complete.iter().map(|manifest| format!("{} of {}", manifest.id, manifest.region)).collect();
        let present = if present.is_empty() { "none".to_owned() } else { present.join(", ") };
        Err(SnapshotError::NoSnapshot { wanted: format!("{wanted} of pipeline {}", self.pipeline), present })
    }

    /// Makes the snapshot complete: nothing of it may be missing any more.
    pub(crate) async fn complete(&self, manifest: &Manifest) -> Result<(), SnapshotError> {
        let bytes = serde_json::to_vec_pretty(manifest)
            .map_err(|error| SnapshotError::Manifest { id: manifest.id.to_string(), problem: error.to_string() })?;
        self.storage.put_small(&format!("{}/{MANIFEST_NAME}", self.folder(&manifest.region, &manifest.id)), bytes).await
    }

    /// Reads every copy and compares it with the manifest.
    ///
    /// # Errors
    /// When one is missing, or is not what was written.
    pub async fn check(&self, manifest: &Manifest) -> Result<(), SnapshotError> {
        for shard in &manifest.shards {
            self.check_copy(manifest, shard).await?;
        }
        Ok(())
    }

    async fn check_copy(&self, manifest: &Manifest, shard: &ShardManifest) -> Result<(), SnapshotError> {
        let object = self.copy(&manifest.region, &manifest.id, shard.shard);
        let damaged = |problem: String| Err(SnapshotError::Damaged { object: object.clone(), problem });
        let size = self.storage.size(&object).await?;
        if size != shard.bytes {
            return damaged(format!("it has {size} bytes, and the manifest says {}", shard.bytes));
        }
        let mut digest = Sha256::new();
        let mut pieces = std::pin::pin!(self.storage.pieces(&object, size));
        while let Some(piece) = pieces.next().await {
            digest.update(&piece?);
        }
        let found = hex::encode(digest.finalize());
        if found == shard.sha256 { Ok(()) } else { damaged(format!("its SHA-256 is {found}, and the manifest says {}", shard.sha256)) }
    }

    /// Deletes what is older than `keep` of a region's snapshots, never the newest complete one; gives their names.
    ///
    /// # Errors
    /// When the storage does not do it.
    pub async fn prune(&self, region: &RegionName, keep: Duration, now: Timestamp) -> Result<Vec<SnapshotId>, SnapshotError> {
        let found = |listed: &Listed| match listed.content {
            Content::Complete(_) => Found::Complete,
            Content::Unusable(_) => Found::Unusable,
            Content::Torn => Found::Torn,
        };
        let present: Vec<_> = self.list(Some(region)).await?.iter().map(|listed| (listed.id.clone(), found(listed))).collect();
        let due = to_delete(&present, keep, now);
        for id in &due {
            // Without its manifest first: what is half deleted must not look complete.
            self.storage.delete_all(&self.folder(region, id), MANIFEST_NAME).await?;
        }
        Ok(due)
    }
}
