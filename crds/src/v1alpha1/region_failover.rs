//! `RegionFailover`: a request to move the pipeline to another region, and the record of how it went.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Chosen, NamedPhase, PipelineRef, RecordInterval, conditions, date_time},
    text::{DurationText, RegionNameText},
};

/// A request to move the pipeline to another region. One shot: it never starts after its deadline, and an old copy
/// that comes back by GitOps or a restore ends as Expired, because its expectedEpoch is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "fraudpipeline.dev",
    version = "v1alpha1",
    kind = "RegionFailover",
    namespaced,
    status = "RegionFailoverStatus",
    shortname = "rfo",
    category = "fraud",
    derive = "PartialEq",
    doc = "Moves a pipeline to another region, once. The operator writes the same object for automatic failovers.",
    printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipelineRef.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "From", type_ = "string", json_path = ".status.fromRegion"),
    printcolumn(name = "To", type_ = "string", json_path = ".spec.targetRegion"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch"),
    printcolumn(name = "RTO", type_ = "string", json_path = ".status.rto", description = "Time without good answers, measured"),
    printcolumn(
        name = "Lost-Max",
        type_ = "integer",
        json_path = ".status.lossRecords.max",
        description = "At most this many acknowledged records lost"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self == oldSelf", "a RegionFailover cannot be changed once it exists: delete it and make a new one"))]
#[x_kube(validation = (
    "self.type != 'Switchover' || !has(self.failover)",
    "type: Switchover loses nothing and needs no failover: remove the field failover, or write type: Failover"
))]
#[x_kube(validation = (
    "self.type != 'Failover' || (has(self.failover) && !has(self.switchover))",
    "type: Failover needs failover.acceptDataLoss {upTo: 60s} or {unknown: {}}, and no field switchover"
))]
#[x_kube(validation = (
    "duration(self.deadline) >= duration('10s') && duration(self.deadline) <= duration('24h')",
    "deadline must be from 10s to 24h, counted from the creation of the object"
))]
pub struct RegionFailoverSpec {
    /// The pipeline to move.
    pub pipeline_ref: PipelineRef,
    /// status.epoch of the pipeline when the request was made. With any other epoch the request ends as Expired.
    #[schemars(range(min = 1))]
    pub expected_epoch: i64,
    /// The region that shall be active.
    pub target_region: RegionNameText,
    /// How long after its creation the request may still start. Default 10m.
    #[serde(default = "RegionFailoverSpec::default_deadline")]
    pub deadline: DurationText,
    /// true: only check whether the move could be made, and report its cost in status. Default false.
    #[serde(default)]
    pub dry_run: bool,
    /// Switchover: planned, loses nothing, needs the active region. Failover: leaves a region that is dead or cut off.
    #[serde(rename = "type")]
    pub kind: FailoverType,
    /// Settings of a switchover. There are none yet; the field may be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<Chosen>,
    /// Settings of a failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<FailoverRequest>,
    /// Who asked: User, Operator for automatic failovers, Drill. Default User.
    #[serde(default)]
    pub initiator: Initiator,
    /// Why, for the record: an incident number, a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

impl RegionFailoverSpec {
    fn default_deadline() -> DurationText {
        "10m".into()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverType {
    Switchover,
    Failover,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Initiator {
    #[default]
    User,
    Operator,
    Drill,
}

/// What a failover may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FailoverRequest {
    /// How much may be lost: exactly one of upTo and unknown.
    pub accept_data_loss: AcceptDataLoss,
    /// How it is known that the old region no longer writes, where the operators cannot see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fencing: Option<Fencing>,
}

/// How much may be lost: a union of which exactly one member is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.upTo) != has(self.unknown)",
    "set exactly one of acceptDataLoss.upTo, such as 60s, and acceptDataLoss.unknown: {}"
))]
pub struct AcceptDataLoss {
    /// At most this much time of acknowledged decisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<DurationText>,
    /// Move although nobody knows how much is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<Chosen>,
}

/// How it is known that the old region no longer writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fencing {
    /// In a sentence: what was switched off, by whom, and when.
    #[schemars(length(min = 1, max = 1024))]
    pub evidence: String,
}

/// How the move went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionFailoverStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Running, Succeeded, Refused, Expired or Failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<FailoverPhase>,
    /// The region that was active before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_region: Option<RegionNameText>,
    /// Epoch that the move made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// When the move began (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub started_at: Option<String>,
    /// When the move ended (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub finished_at: Option<String>,
    /// The phases that were reached, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub phases: Vec<NamedPhase>,
    /// Time without good answers, measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<DurationText>,
    /// Acknowledged records lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_records: Option<RecordInterval>,
    /// What the move waits for, and the command that unblocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub waiting_on: Option<String>,
    /// Accepted and Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// How far a move is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverPhase {
    Pending,
    Running,
    Succeeded,
    Refused,
    Expired,
    Failed,
}
