//! `RegionPlan`: one region's cell of the epoch register. Written by that region's operator only; users read it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::conditions,
    text::{RegionNameText, Sha256Text},
};

/// What this region has promised, accepted and knows to be committed. Ballots and epochs never go back: a cell that
/// was restored from a backup is refused by the API server, and its operator asks all other voters first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "fraudpipeline.dev",
    version = "v1alpha1",
    kind = "RegionPlan",
    namespaced,
    status = "RegionPlanStatus",
    shortname = "rp",
    category = "fraud",
    derive = "PartialEq",
    doc = "One region's cell of the epoch register. The operator writes it; users only read it.",
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = ".status.plan.activeRegion",
        description = "Active region of the committed plan"
    ),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.committed.epoch", description = "Epoch of the committed plan"),
    printcolumn(
        name = "Revision",
        type_ = "integer",
        json_path = ".spec.committed.revision",
        description = "Revision of the committed plan"
    ),
    printcolumn(name = "Step", type_ = "string", json_path = ".status.plan.step", description = "How far a move has come"),
    printcolumn(
        name = "Promised",
        type_ = "string",
        json_path = ".spec.promised.term",
        description = "Term of the highest ballot promised",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "!has(oldSelf.promised) || (has(self.promised) && (self.promised.term > oldSelf.promised.term || (self.promised.term == oldSelf.promised.term && (self.promised.region > oldSelf.promised.region || (self.promised.region == oldSelf.promised.region && self.promised.seq >= oldSelf.promised.seq)))))",
    "spec.promised cannot go back: a promise to a ballot holds for ever"
))]
#[x_kube(validation = (
    "!has(oldSelf.accepted) || (has(self.accepted) && (self.accepted.ballot.term > oldSelf.accepted.ballot.term || (self.accepted.ballot.term == oldSelf.accepted.ballot.term && (self.accepted.ballot.region > oldSelf.accepted.ballot.region || (self.accepted.ballot.region == oldSelf.accepted.ballot.region && self.accepted.ballot.seq >= oldSelf.accepted.ballot.seq)))))",
    "spec.accepted cannot go back to a lower ballot"
))]
#[x_kube(validation = (
    "!has(oldSelf.committed) || (has(self.committed) && (self.committed.epoch > oldSelf.committed.epoch || (self.committed.epoch == oldSelf.committed.epoch && self.committed.revision >= oldSelf.committed.revision)))",
    "spec.committed cannot go back to an older epoch or revision"
))]
#[x_kube(validation = (
    "!has(oldSelf.committed) || !has(self.committed) || self.committed.epoch != oldSelf.committed.epoch || self.committed.revision != oldSelf.committed.revision || self.committed.sha256 == oldSelf.committed.sha256",
    "spec.committed of one epoch and revision cannot get another content"
))]
#[x_kube(validation = (
    "self.voters.generation >= oldSelf.voters.generation && (self.voters.generation > oldSelf.voters.generation || self.voters == oldSelf.voters)",
    "spec.voters cannot go back, and changes only with a higher generation"
))]
#[x_kube(validation = (
    "!has(oldSelf.incarnation) || has(self.incarnation)",
    "spec.incarnation cannot be removed"
))]
pub struct RegionPlanSpec {
    /// Who votes.
    pub voters: Voters,
    /// The highest ballot that this region has promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised: Option<BallotRecord>,
    /// The plan that this region has accepted last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<PlanRecord>,
    /// The newest plan that this region knows to be committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed: Option<PlanRecord>,
    /// The acceptor process that may grant leases: a restarted acceptor writes a new one and waits one full lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub incarnation: Option<String>,
}

/// Who votes on the plan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Voters {
    /// Rises with each change of the voters.
    #[schemars(range(min = 0))]
    pub generation: i64,
    /// The voting cells.
    #[serde(default)]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["region"]))]
    pub members: Vec<Voter>,
}

/// A voting cell. A cell that was made anew has another uid and is another voter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Voter {
    /// Region of the cell.
    pub region: RegionNameText,
    /// metadata.uid of the RegionPlan in that region.
    #[schemars(length(min = 1, max = 64))]
    pub cell_uid: String,
}

/// Orders proposals: by term, then region, then sequence number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BallotRecord {
    /// Term of the proposer.
    #[schemars(range(min = 0))]
    pub term: i64,
    /// Region of the proposer.
    pub region: RegionNameText,
    /// Sequence number of the proposal in that region.
    #[schemars(range(min = 0))]
    pub seq: i64,
}

/// A plan as it was proposed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanRecord {
    /// Ballot under which the plan was proposed.
    pub ballot: BallotRecord,
    /// Epoch of the plan.
    #[schemars(range(min = 1))]
    pub epoch: i64,
    /// Revision of the plan.
    #[schemars(range(min = 0))]
    pub revision: i64,
    /// Canonical bytes of the plan, in base64. The decoded copy is in status.plan.
    #[schemars(length(min = 1, max = 524_288), extend("format" = "byte"))]
    pub plan: String,
    /// SHA-256 of the canonical bytes.
    pub sha256: Sha256Text,
}

/// The committed plan, decoded for readers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionPlanStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The committed plan. A copy for people and printer columns; the bytes in spec.committed are what counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub plan: Option<serde_json::Value>,
    /// Committed: this region knows a committed plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
