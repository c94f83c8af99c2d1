//! What a snapshot consists of. Pure.

use std::collections::BTreeMap;

use domain::{Epoch, HostPort, PipelineName, RegionName, SlotMap};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::SnapshotError;

/// Rises when an older version could not read what a newer one writes.
pub(crate) const FORMAT: u32 = 1;
const ID_FORMAT: &str = "%Y%m%dT%H%M%S.%3fZ";

/// Names a snapshot and says when it was begun: `20261120T080000.000Z`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(String);

impl SnapshotId {
    pub fn begun_at(time: Timestamp) -> Self {
        Self(time.strftime(ID_FORMAT).to_string())
    }

    /// `None` for the names of other things.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(text.to_owned());
        (Self::begun_at(id.time()?).0 == text).then_some(id)
    }

    fn time(&self) -> Option<Timestamp> {
        let time = DateTime::strptime(ID_FORMAT, &self.0).ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }

    /// When it was begun.
    pub fn begun(&self) -> Timestamp {
        self.time().unwrap_or(Timestamp::MAX)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The last object of a snapshot that is written: without it there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format: u32,
    pub id: SnapshotId,
    pub pipeline: PipelineName,
    /// Whose processes it was taken from.
    pub region: RegionName,
    pub finished_at: String,
    pub slots: SlotMap,
    /// By number.
    pub shards: Vec<ShardManifest>,
}

/// A shard's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardManifest {
    pub shard: u16,
    pub bytes: u64,
    pub sha256: String,
    pub taken_from: HostPort,
    pub redis_version: String,
    pub rdb_version: u16,
    /// In which the process that it followed was a primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The history that it was in, and how far.
    pub replication_id: String,
    pub offset: u64,
    /// Up to where the logs had been folded, at least: read just before the copy began, which has its own.
    pub positions: BTreeMap<String, i64>,
}

/// What is read first, because the rest of a newer format may be anything.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

impl Manifest {
    /// # Errors
    /// When the bytes are none of this format, or contradict themselves or the place where they were found.
    pub(crate) fn parse(id: &SnapshotId, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let wrong = |problem: String| SnapshotError::Manifest { id: id.to_string(), problem };
        let Head { format } = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if format > FORMAT {
            return Err(SnapshotError::NewerFormat { id: id.to_string(), format });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        manifest.contradiction(id).map_or(Ok(manifest), |problem| Err(wrong(problem)))
    }

    fn contradiction(&self, id: &SnapshotId) -> Option<String> {
        if self.id != *id {
            return Some(format!("it is that of snapshot {}", self.id.as_str().chars().take(64).collect::<String>()));
        }
        if !self.shards.iter().map(|shard| shard.shard).eq(0..self.slots.shards()) {
            return Some(format!("its slots belong to {} shards, and it does not have each of them once", self.slots.shards()));
        }
        let bad = |shard: &&ShardManifest| shard.bytes == 0 || hex::decode(&shard.sha256).map_or(0, |digest| digest.len()) != 32;
        self.shards.iter().find(bad).map(|shard| format!("size or sha256 of shard {} is missing", shard.shard))
    }

    /// Whether its shards can be put into processes that slots map to in this way.
    pub(crate) fn check_slots(&self, slots: &SlotMap) -> Result<(), SnapshotError> {
        let other = |problem| Err(SnapshotError::OtherSlots { id: self.id.to_string(), problem });
        if self.slots.shards() != slots.shards() {
            return other(format!("it has {} shards, and there are {} to restore", self.slots.shards(), slots.shards()));
        }
        if self.slots != *slots {
            return other("its slots are assigned to shards in another way".to_owned());
        }
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// The newest of its shards' epochs.
    pub fn epoch(&self) -> Option<Epoch> {
        self.shards.iter().filter_map(|shard| shard.epoch).max()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn manifest(shards: u16) -> Manifest {
        let shard = |shard| ShardManifest {
            shard,
            bytes: 100,
            sha256: "ab".repeat(32),
            taken_from: HostPort { host: "a".into(), port: 1 },
            redis_version: "7.0.15".into(),
            rdb_version: 10,
            epoch: Some(Epoch(3)),
            replication_id: "0".repeat(40),
            offset: 7,
            positions: BTreeMap::from([("c/t/0".to_owned(), 5)]),
        };
        Manifest {
            format: FORMAT,
            id: SnapshotId::begun_at("2026-11-20T08:00:00Z".parse().unwrap()),
            pipeline: PipelineName::new("payments").unwrap(),
            region: RegionName::new("us-east").unwrap(),
            finished_at: "2026-11-20T08:00:05Z".into(),
            slots: SlotMap::even(shards).unwrap(),
            shards: (0..shards).map(shard).collect(),
        }
    }

    fn parse(manifest: &Manifest, change: impl FnOnce(&mut serde_json::Value)) -> Result<Manifest, SnapshotError> {
        let mut value = serde_json::to_value(manifest).unwrap();
        change(&mut value);
        Manifest::parse(&manifest.id, &serde_json::to_vec(&value).unwrap())
    }

    #[test]
    fn ids_say_when_and_sort_by_it() {
        let id = SnapshotId::parse("20261120T080000.000Z").unwrap();
        assert_eq!(id.begun(), "2026-11-20T08:00:00Z".parse().unwrap());
        assert!(SnapshotId::begun_at("2026-11-20T08:00:00.5Z".parse().unwrap()) > id);
        for other in ["", "latest", "20261120T080000Z", "20261320T080000.000Z", "../20261120T080000.000Z"] {
            assert_eq!(SnapshotId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_manifest_reads_back_and_what_contradicts_itself_is_refused() {
        let written = manifest(3);
        assert_eq!(parse(&written, |_| {}).unwrap(), written);
        let problem = |change: fn(&mut serde_json::Value)| parse(&manifest(3), change).unwrap_err().to_string();
        assert!(problem(|m| m["format"] = 2.into()).contains("use a newer fraud-features"));
        assert!(problem(|m| m["id"] = "20261120T080000.001Z".into()).contains("it is that of snapshot"));
        assert!(problem(|m| m["shards"][1]["shard"] = 2.into()).contains("each of them once"));
        assert!(problem(|m| m["shards"][1]["sha256"] = "ab".into()).contains("shard 1"));
        assert!(problem(|m| m["pipeline"] = "../x".into()).contains("pipeline name"));
        assert!(Manifest::parse(&written.id, b"{").unwrap_err().to_string().contains("cannot be used"));
    }

    #[test]
    fn a_snapshot_fits_only_the_slots_that_it_was_taken_with() {
        assert!(manifest(3).check_slots(&SlotMap::even(3).unwrap()).is_ok());
        let error = manifest(3).check_slots(&SlotMap::even(2).unwrap()).unwrap_err();
        assert!(error.is_refusal() && error.to_string().contains("it has 3 shards, and there are 2"), "{error}");
    }
}
