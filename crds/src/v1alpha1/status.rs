//! `FraudPipeline.status`: facts, for transitions. Live numbers are in metrics.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{RecordInterval, conditions, date_time},
    text::{DurationText, RegionNameText},
};

/// What holds, as this region's operator sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FraudPipelineStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The region of the cluster in which this status is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_region: Option<RegionNameText>,
    /// The region that takes the traffic, by the committed plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_region: Option<RegionNameText>,
    /// Epoch of the committed plan: it rises by one with each change of the active region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Revision of the committed plan: it rises by one with any other change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<i64>,
    /// Digest of the spec that the committed plan was made from, default-valued fields left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub spec_digest: Option<String>,
    /// Version of the data-plane images that the committed plan has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub data_plane_version: Option<String>,
    /// What this region is doing, for display only: machines read conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Freshness of this region's features: Fresh, Raised, Stopped or Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureFreshness>,
    /// The model that scores in this region: the first 12 digits of its digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub model: Option<String>,
    /// Each region, as known here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub regions: Vec<RegionStatus>,
    /// Why nothing moves although something should, and the command that unblocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub waiting_on: Option<String>,
    /// Holds on automatic moves, by the name of the PipelineAction that placed each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub holds: Vec<Hold>,
    /// The last change of the active region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failover: Option<LastFailover>,
    /// Accepted, Ready, Reconciling, Stalled, Quorum, SpecInSync, InputsInSync, Replicating, FeaturesFresh, ModelsInSync,
    /// FailoverReady.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

/// What a region is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    Pending,
    Active,
    Standby,
    Handover,
    Isolated,
    Rejoining,
    Witness,
    Deleting,
}

/// One region, as this operator knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionStatus {
    /// Name of the region.
    pub name: RegionNameText,
    /// Role by the committed plan: Active, Standby, Handover, Isolated, Rejoining, Witness or Learner.
    #[schemars(length(max = 16))]
    pub role: String,
    /// Whether the region can do its work: Healthy, Unhealthy or Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Freshness of the region's features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureFreshness>,
    /// Mirrors in this region, by the region that they copy from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["origin"]))]
    pub mirror: Vec<MirrorStatus>,
    /// Models of the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<RegionModelStatus>,
}

/// Whether a region can do its work. Unknown is never taken for healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Health {
    Healthy,
    Unhealthy,
    Unknown,
}

/// How fresh features are. Unknown when not measured, never Fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FeatureFreshness {
    Fresh,
    Raised,
    Stopped,
    Unknown,
}

/// A mirror from one other region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorStatus {
    /// Region that is copied from.
    pub origin: RegionNameText,
    /// Copying, Late, SourceUnreachable, TargetUnreachable, NotAuthorised, Stopped or Unknown.
    pub state: MirrorState,
    /// Since when (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub since: Option<String>,
}

/// State of a mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MirrorState {
    Copying,
    Late,
    SourceUnreachable,
    TargetUnreachable,
    NotAuthorised,
    Stopped,
    Unknown,
}

/// Models of a region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionModelStatus {
    /// Digest of the model that scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub active: Option<String>,
    /// Digest of the model that is being rolled out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub candidate: Option<String>,
    /// Stage of the rollout, such as Fetching, Shadow or Canary10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub stage: Option<String>,
}

/// A hold on automatic moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Name of the PipelineAction that placed the hold.
    #[schemars(length(max = 253))]
    pub name: String,
    /// When the hold ends by itself (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub until: Option<String>,
    /// Why, in the words of whoever placed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub reason: Option<String>,
}

/// The last change of the active region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailover {
    /// Name of its RegionFailover.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Time without good answers, measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<DurationText>,
    /// Acknowledged records lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_records: Option<RecordInterval>,
}
