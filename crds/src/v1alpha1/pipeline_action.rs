//! `PipelineAction`: a verb for one pipeline, said once: holds, recovery, and what people do with models.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Chosen, PipelineRef, conditions, date_time},
    text::{RegionNameText, Sha256Text},
};

/// A verb for one pipeline, said once. The member that belongs to the type carries what the verb needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "fraudpipeline.dev",
    version = "v1alpha1",
    kind = "PipelineAction",
    namespaced,
    status = "PipelineActionStatus",
    shortname = "pa",
    category = "fraud",
    derive = "PartialEq",
    doc = "A verb for one pipeline, said once: hold or recover failover, pause, promote or roll back a model.",
    printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipelineRef.name"),
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self == oldSelf", "a PipelineAction cannot be changed once it exists: delete it and make a new one"))]
#[x_kube(validation = ("(self.type == 'HoldFailover') == has(self.holdFailover)", "holdFailover {until} goes with type: HoldFailover, and only with it"))]
#[x_kube(validation = ("(self.type == 'Recover') == has(self.recover)", "recover {voters, expectedEpoch, evidence} goes with type: Recover, and only with it"))]
#[x_kube(validation = ("(self.type == 'Readmit') == has(self.readmit)", "readmit {region} goes with type: Readmit, and only with it"))]
#[x_kube(validation = ("self.type == 'ReleaseHold' || !has(self.releaseHold)", "releaseHold goes only with type: ReleaseHold"))]
#[x_kube(validation = (
    "self.type in ['ModelPromote', 'ModelReject', 'ModelRetry'] ? has(self.model) : true",
    "type: ModelPromote, ModelReject and ModelRetry need model.sha256: the digest that you mean"
))]
#[x_kube(validation = (
    "!has(self.model) || self.type.startsWith('Model')",
    "model.sha256 goes only with a type that starts with Model"
))]
pub struct PipelineActionSpec {
    /// The pipeline that is meant.
    pub pipeline_ref: PipelineRef,
    /// The verb: HoldFailover, ReleaseHold, Recover, Readmit, ModelPause, ModelResume, ModelPromote, ModelReject,
    /// ModelRollback or ModelRetry.
    #[serde(rename = "type")]
    pub kind: ActionType,
    /// With HoldFailover: no automatic or voluntary move until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_failover: Option<HoldFailover>,
    /// With ReleaseHold: which hold ends. Unset: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_hold: Option<ReleaseHold>,
    /// With Recover: a new generation of voters when the majority is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recover: Option<Recover>,
    /// With Readmit: a region that votes again after a recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readmit: Option<Readmit>,
    /// With the Model verbs: which model is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<MeantModel>,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActionType {
    HoldFailover,
    ReleaseHold,
    Recover,
    Readmit,
    ModelPause,
    ModelResume,
    ModelPromote,
    ModelReject,
    ModelRollback,
    ModelRetry,
}

/// No automatic or voluntary move for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HoldFailover {
    /// When the hold ends by itself (RFC 3339), such as "2026-11-27T06:00:00Z". A hold without an end would outlive
    /// its reason.
    #[schemars(schema_with = "date_time")]
    pub until: String,
}

/// Which hold ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.name) != has(self.all)", "set exactly one of releaseHold.name and releaseHold.all: {}"))]
pub struct ReleaseHold {
    /// Name of the PipelineAction that placed the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,
    /// Every hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<Chosen>,
}

/// A new generation of voters when the majority is lost for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recover {
    /// The regions that vote from now on. Cells of the others abstain until they are readmitted.
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub voters: Vec<RegionNameText>,
    /// status.epoch of the pipeline when this was written. With any other epoch nothing happens.
    #[schemars(range(min = 1))]
    pub expected_epoch: i64,
    /// How it is known that the other regions no longer act: what was switched off, by whom, and when.
    #[schemars(length(min = 1, max = 1024))]
    pub evidence: String,
}

/// A region that votes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Readmit {
    /// The region.
    pub region: RegionNameText,
}

/// Which model is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeantModel {
    /// Digest of the model, so that the verb never hits a newer one.
    pub sha256: Sha256Text,
}

/// What became of the action.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PipelineActionStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Done, Refused or Expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<ActionPhase>,
    /// What happened, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// When it was carried out or refused (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub finished_at: Option<String>,
    /// Accepted and Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// How far an action is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActionPhase {
    Pending,
    Done,
    Refused,
    Expired,
}
