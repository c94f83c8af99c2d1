//! The plan: one value, agreed on by regions, from which everything that runs derives its role.
//!
//! A plan is stored and exchanged as canonical bytes with their SHA-256, so that operators of different versions
//! cannot hold different values under one name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Epoch, PipelineName, RegionName, Revision, SlotMap};

/// What a region is for, in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RegionRole {
    /// Takes the traffic and holds the primaries of the feature store.
    Active,
    /// Follows, ready to take over.
    Standby,
    /// Was active until this switchover; answers, and no longer writes the feature store.
    Handover,
    /// Must not act until a human has decided.
    Isolated,
    /// Came back after losing authority; catches up before it is a standby.
    Rejoining,
    /// Votes and runs nothing.
    Witness,
    /// Not yet a voter.
    Learner,
}

impl fmt::Display for RegionRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How far the move to this plan's active region has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Step {
    /// Nothing is under way.
    Steady,
    /// The old region stops writing the feature store and drains.
    Handover,
    /// The new region's shards become primaries.
    Promote,
    /// Names point to the new region.
    Route,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Which region holds the primaries of the feature store, in which generation of shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeaturePrimaries {
    pub region: RegionName,
    /// Generation of shard StatefulSets; resharding builds the next one.
    pub generation: u32,
    pub slots: SlotMap,
    /// How a region's shards are reached by the other regions: region -> address by shard.
    pub exposed: BTreeMap<RegionName, Vec<HostPort>>,
    /// Shards that have been primaries in this generation. Until then an empty one may become a primary although other
    /// copies cannot be asked; afterwards it may only where every other copy is known to be empty too (invariant I10).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub seeded_shards: BTreeSet<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelRef {
    pub uri: String,
    pub sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleOfRegion {
    pub name: RegionName,
    pub role: RegionRole,
    /// A small number that the region keeps while it is in the plan, whatever regions come and go beside it. Mirrors keep
    /// their positions in the partition of that number.
    #[serde(default)]
    pub ordinal: u8,
}

/// What the register holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    pub pipeline: PipelineName,
    pub namespace: String,
    pub epoch: Epoch,
    pub revision: Revision,
    pub active_region: RegionName,
    /// In the order of the manifest.
    pub roles: Vec<RoleOfRegion>,
    pub step: Step,
    pub features: FeaturePrimaries,
    /// What the name of the pipeline resolves to.
    pub dns_answer: Vec<String>,
    pub model: ModelRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub light_model: Option<ModelRef>,
    pub data_plane_version: String,
    /// Why automatic moves are held back, if they are.
    pub holds: Vec<String>,
    /// The spec that all this was derived from, default-valued fields left out. A failover uses it and needs no
    /// manifest to be equal anywhere.
    pub effective_spec: serde_json::Value,
    pub cause: String,
    /// SHA-256 of the plan that this one replaces; none for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

impl Plan {
    pub fn role_of(&self, region: &RegionName) -> Option<RegionRole> {
        self.roles.iter().find(|entry| &entry.name == region).map(|entry| entry.role)
    }

    /// # Errors
    /// Never for plans made by this program; an effective spec with a number that JSON cannot hold is refused.
    pub fn to_bytes(&self) -> Result<PlanBytes, PlanError> {
        let value = serde_json::to_value(self).map_err(|error| PlanError::Encode(error.to_string()))?;
        Ok(PlanBytes::of(canonical_json(&value).into_bytes()))
    }
}

/// Canonical JSON (object keys sorted, no white space) and its SHA-256 in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanBytes {
    bytes: Vec<u8>,
    sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error("plan cannot be written as JSON: {0}")]
    Encode(String),
    #[error(
        "plan bytes have SHA-256 {found}, their record says {expected}: the stored plan is damaged, restore this region's RegionPlan from its peers"
    )]
    Digest { expected: String, found: String },
    #[error("plan bytes cannot be read by this version of the operator: {0}")]
    Decode(String),
}

impl PlanBytes {
    fn of(bytes: Vec<u8>) -> Self {
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Self { bytes, sha256 }
    }

    /// # Errors
    /// When the bytes do not have the digest that was stored with them.
    pub fn checked(bytes: Vec<u8>, sha256: &str) -> Result<Self, PlanError> {
        let found = Self::of(bytes);
        if found.sha256 == sha256 {
            return Ok(found);
        }
        Err(PlanError::Digest { expected: sha256.chars().take(64).collect(), found: found.sha256 })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// # Errors
    /// When the bytes are not a plan that this version understands.
    pub fn decode(&self) -> Result<Plan, PlanError> {
        serde_json::from_slice(&self.bytes).map_err(|error| PlanError::Decode(error.to_string()))
    }
}

/// JSON with object keys sorted at every depth and no white space: equal values have equal text.
pub fn canonical_json(value: &serde_json::Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

/// Writes object keys in sorted order at every depth, whatever map the JSON library was built with.
fn write_canonical(value: &serde_json::Value, out: &mut String) {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            out.push('{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(item, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// What one region's data plane needs to know of the plan. Written by that region's operator, read by its pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanView {
    pub pipeline: PipelineName,
    pub namespace: String,
    /// The region in which this view is read.
    pub region: RegionName,
    pub epoch: Epoch,
    pub revision: Revision,
    pub active_region: RegionName,
    pub role: RegionRole,
    pub step: Step,
    pub slots: SlotMap,
    /// This region's own shards, by index.
    pub shards: Vec<ShardAddress>,
}

/// One shard of this region's feature store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShardAddress {
    pub shard: u16,
    /// Where writes go while this region is active, and reads otherwise. The name stays when the process behind it changes.
    pub primary: HostPort,
    /// Processes of this region that have what the primary has, by their own names: for hedged reads. One of them takes over
    /// when the primary is lost; the primary takes no writes without one of them as long as any is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<HostPort>,
    /// Which of the shard's processes `primary` leads to: the number of its pod.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub process: u16,
    /// Rises, inside an epoch, each time `primary` leads to another process. Who has seen one refuses a lower one.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub term: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
fn is_zero(process: &u16) -> bool {
    *process == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it so
fn is_none_yet(term: &u64) -> bool {
    *term == 0
}

impl PlanView {
    /// Whether this region's pods may write the feature store.
    pub fn writes_features(&self) -> bool {
        self.role == RegionRole::Active
    }

    pub fn shard(&self, shard: u16) -> Option<&ShardAddress> {
        self.shards.iter().find(|found| found.shard == shard)
    }

    /// A shard whose primary goes back to an earlier process of the same epoch, if this view comes after `before`.
    pub fn shard_going_back(&self, before: &Self) -> Option<u16> {
        let older = |shard: &&ShardAddress| before.shard(shard.shard).is_some_and(|known| shard.term < known.term);
        self.shards.iter().find(older).filter(|_| self.epoch == before.epoch).map(|shard| shard.shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let region = RegionName::new("us-east").unwrap();
        Plan {
            pipeline: PipelineName::new("payments").unwrap(),
            namespace: "fraud".into(),
            epoch: Epoch::FIRST,
            revision: Revision(1),
            active_region: region.clone(),
            roles: vec![RoleOfRegion { name: region.clone(), role: RegionRole::Active, ordinal: 0 }],
            step: Step::Steady,
            features: FeaturePrimaries {
                region,
                generation: 1,
                slots: SlotMap::even(2).unwrap(),
                exposed: BTreeMap::new(),
                seeded_shards: BTreeSet::new(),
            },
            dns_answer: vec![],
            model: ModelRef { uri: "s3://models/a.onnx".into(), sha256: "00".into() },
            light_model: None,
            data_plane_version: "0.1.0".into(),
            holds: vec![],
            effective_spec: serde_json::json!({"b": {"z": 1, "a": 2}, "a": "x\"y"}),
            cause: "first plan".into(),
            parent: None,
        }
    }

    #[test]
    fn plan_bytes_are_canonical_and_read_back() {
        let bytes = plan().to_bytes().unwrap();
        let text = std::str::from_utf8(bytes.bytes()).unwrap();
        assert!(text.contains(r#""effectiveSpec":{"a":"x\"y","b":{"a":2,"z":1}}"#), "{text}");
        let read = PlanBytes::checked(bytes.bytes().to_vec(), bytes.sha256()).unwrap();
        assert_eq!(read.decode().unwrap(), plan());
    }

    #[test]
    fn a_damaged_plan_is_refused() {
        let bytes = plan().to_bytes().unwrap();
        let mut damaged = bytes.bytes().to_vec();
        damaged[10] ^= 1;
        assert!(matches!(PlanBytes::checked(damaged, bytes.sha256()), Err(PlanError::Digest { .. })));
    }
}
