//! `ChaosDrill`: a rehearsed failure, once or on a schedule, with its verdict.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{NamedPhase, PipelineRef, conditions, date_time},
    text::{CronText, DurationText, ProbabilityText, RegionNameText},
};

/// A rehearsed failure. The pipeline must allow drills (spec.drills.policy), steady state must hold before it, and
/// every fault ends by itself after its duration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "fraudpipeline.dev",
    version = "v1alpha1",
    kind = "ChaosDrill",
    namespaced,
    status = "ChaosDrillStatus",
    shortname = "drill",
    category = "fraud",
    derive = "PartialEq",
    doc = "A rehearsed failure, once or on a schedule, with measured recovery time and loss.",
    printcolumn(name = "Pipeline", type_ = "string", json_path = ".spec.pipelineRef.name"),
    printcolumn(name = "Scenario", type_ = "string", json_path = ".spec.scenario"),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.schedule"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Verdict", type_ = "string", json_path = ".status.lastRun.verdict"),
    printcolumn(name = "RTO", type_ = "string", json_path = ".status.lastRun.rto"),
    printcolumn(name = "Lost", type_ = "integer", json_path = ".status.lastRun.lostRecords"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(oldSelf.schedule) || self == oldSelf",
    "a ChaosDrill without a schedule runs once and cannot be changed: delete it and make a new one"
))]
#[x_kube(validation = (
    "has(self.schedule) == has(oldSelf.schedule)",
    "a schedule can be neither added nor removed: delete the ChaosDrill and make a new one"
))]
#[x_kube(validation = (
    "duration(self.duration) >= duration('1s') && duration(self.duration) <= duration('1h')",
    "duration must be from 1s to 1h: every fault ends by itself"
))]
#[x_kube(validation = (
    "!(self.scenario in ['RegionLoss', 'RegionIsolation', 'ApiServerLoss', 'OperatorLoss', 'ReplicationStall', 'MirrorStall', 'KafkaLoss', 'ClockSkew', 'SlowNetwork']) || has(self.targets.regions)",
    "this scenario needs targets.regions: the regions that it disturbs"
))]
#[x_kube(validation = (
    "self.scenario != 'RedisShardLoss' || has(self.targets.shards)",
    "scenario: RedisShardLoss needs targets.shards: the shards that it ends"
))]
#[x_kube(validation = (
    "self.scenario == 'RedisShardLoss' || !has(self.targets.shards)",
    "targets.shards goes only with scenario: RedisShardLoss"
))]
#[x_kube(validation = (
    "self.scenario == 'RegionIsolation' || !has(self.direction)",
    "direction goes only with scenario: RegionIsolation"
))]
#[x_kube(validation = (
    "!(self.scenario in ['RegionLoss', 'RegionIsolation']) || has(self.objectives.rto)",
    "this scenario needs objectives.rto: the recovery time that counts as passed"
))]
pub struct ChaosDrillSpec {
    /// The pipeline that is disturbed.
    pub pipeline_ref: PipelineRef,
    /// What fails: RegionLoss, RegionIsolation, ApiServerLoss, OperatorLoss, RedisShardLoss, ReplicationStall,
    /// MirrorStall, KafkaLoss, InferenceLoss, InferenceSlow, ModelCorrupt, GraphLoss, ClockSkew, SlowNetwork or
    /// TotalScoringFailure.
    pub scenario: Scenario,
    /// Where it fails.
    pub targets: Targets,
    /// How long the fault lasts, from 1s to 1h, counted from when its target received it.
    pub duration: DurationText,
    /// With RegionIsolation: Both, Inbound or Outbound. Unset: Both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<IsolationDirection>,
    /// What must hold before the drill starts.
    #[serde(default)]
    pub steady_state: Bounds,
    /// What ends the drill at once when it no longer holds during the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_on: Option<Bounds>,
    /// What must have been reached for the verdict Passed.
    #[serde(default)]
    pub objectives: Objectives,
    /// When the drill runs, five cron fields in UTC. Unset: once, now. A run that is still going is never overtaken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<CronText>,
    /// true: check everything and change nothing. Default false.
    #[serde(default)]
    pub dry_run: bool,
    /// Who allowed it, where the pipeline's policy is WithApproval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scenario {
    RegionLoss,
    RegionIsolation,
    ApiServerLoss,
    OperatorLoss,
    RedisShardLoss,
    ReplicationStall,
    MirrorStall,
    KafkaLoss,
    InferenceLoss,
    InferenceSlow,
    ModelCorrupt,
    GraphLoss,
    ClockSkew,
    SlowNetwork,
    TotalScoringFailure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IsolationDirection {
    Both,
    Inbound,
    Outbound,
}

/// Where it fails.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.regions) || has(self.shards)", "targets must not be empty: name the regions or shards that are disturbed"))]
pub struct Targets {
    /// Regions that are disturbed. For a scenario inside one region: where it takes place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub regions: Option<Vec<RegionNameText>>,
    /// Shards that are ended, with RedisShardLoss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(range(min = 0, max = 255)), extend("x-kubernetes-list-type" = "set"))]
    pub shards: Option<Vec<i32>>,
}

/// Bounds on what is probed all the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    /// At least this share of requests is answered, such as "0.999".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability_min: Option<ProbabilityText>,
    /// 99th percentile of the time to a decision, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_max: Option<DurationText>,
    /// Share of decisions that differ from the reference stream, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision_difference_max: Option<ProbabilityText>,
    /// Lag of every mirror, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_max: Option<DurationText>,
    /// Age of features, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staleness_max: Option<DurationText>,
}

/// What must have been reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Objectives {
    /// Time without good answers, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<DurationText>,
    /// Time of acknowledged decisions that is lost for good, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<DurationText>,
    /// Acknowledged records that are lost for good, at most. 0 is allowed and a good objective.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub rpo_records: Option<i64>,
}

/// Who allowed the drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// Who allowed it.
    #[schemars(length(min = 1, max = 253))]
    pub approved_by: String,
    /// Where that is written, such as a change number.
    #[schemars(length(min = 1, max = 253))]
    pub reference: String,
}

/// What came of the drill.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChaosDrillStatus {
    /// The metadata.generation that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pending, Running, Waiting (for the schedule), Done or Refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<DrillPhase>,
    /// When the schedule fires next (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub next_run_at: Option<String>,
    /// The last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<DrillRun>,
    /// Accepted and Complete.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrillPhase {
    Pending,
    Running,
    Waiting,
    Done,
    Refused,
}

/// One run of a drill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrillRun {
    /// When the fault took effect (RFC 3339).
    #[schemars(schema_with = "date_time")]
    pub started_at: String,
    /// When the last fault was undone (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "date_time")]
    pub finished_at: Option<String>,
    /// Passed, Failed or Aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Why the verdict is not Passed, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub message: Option<String>,
    /// Time without good answers, measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<DurationText>,
    /// The phases of recovery, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub phases: Vec<NamedPhase>,
    /// Acknowledged by the pipeline, by the client's own ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_records: Option<i64>,
    /// Acknowledged and absent for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_records: Option<i64>,
    /// Acknowledged and arrived late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_records: Option<i64>,
    /// In a log more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_records: Option<i64>,
    /// ConfigMap with the whole report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub report: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    Passed,
    Failed,
    Aborted,
}
