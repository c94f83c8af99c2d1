//! Pieces that several areas of the spec share.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{ObjectNameText, QuantityText, RegionNameText};

/// Refers to an object in the pipeline's namespace by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name of the object, in the namespace of the object that refers to it.
    pub name: ObjectNameText,
}

/// Refers to a FraudPipeline in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PipelineRef {
    /// Name of the FraudPipeline, in the same namespace.
    pub name: ObjectNameText,
}

/// An empty object: chosen by being present.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Chosen {}

/// How many pods run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.min <= self.max", "replicas.min must not exceed replicas.max: lower min or raise max"))]
pub struct Replicas {
    /// Fewest pods, also when there is no traffic. Default 2.
    #[serde(default = "Replicas::default_min")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: i32,
    /// Most pods that the autoscaler may start. Default 20.
    #[serde(default = "Replicas::default_max")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: i32,
}

impl Replicas {
    fn default_min() -> i32 {
        2
    }

    fn default_max() -> i32 {
        20
    }
}

impl Default for Replicas {
    fn default() -> Self {
        Self { min: Self::default_min(), max: Self::default_max() }
    }
}

/// Compute resources of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerResources {
    /// What the scheduler sets aside for the container. Unset: the operator's default for the component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,
    /// What the container may not exceed. Leave limits.cpu unset: throttling raises the 99th percentile from 5 to 40 ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
}

/// Amounts of processor and memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceAmounts {
    /// Processors, such as "500m" or "2".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<QuantityText>,
    /// Memory, such as "512Mi".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<QuantityText>,
}

/// What is added to the pods that the operator writes. The rest of the pod belongs to the operator, which keeps it
/// within the restricted Pod Security level.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels added to the pods. Keys under app.kubernetes.io and fraudpipeline.dev stay the operator's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), schema_with = "label_map")]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), schema_with = "annotation_map")]
    pub annotations: BTreeMap<String, String>,
    /// Labels that a node must have to run the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16), schema_with = "label_map")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the pods put up with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<PodToleration>,
    /// PriorityClass of the pods. Unset: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<ObjectNameText>,
}

fn label_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}})
}

fn annotation_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "additionalProperties": {"type": "string", "maxLength": 1024}})
}

/// A taint that pods put up with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.operator != 'Exists' || !has(self.value)", "a toleration with operator Exists has no value: remove value, or use operator Equal"))]
pub struct PodToleration {
    /// Key of the taint. Unset with operator Exists: every taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key: Option<String>,
    /// Equal compares value, Exists only needs the key. Default Equal.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// Value of the taint, with operator Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,
    /// NoSchedule, PreferNoSchedule or NoExecute. Unset: every effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// With effect NoExecute: how long the pod stays on a node that gets the taint, in seconds. Unset: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 86400))]
    pub toleration_seconds: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    #[default]
    Equal,
    Exists,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// How many acknowledged records are lost, as an interval: it narrows once the old region's log has been audited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordInterval {
    /// At least this many records.
    #[schemars(range(min = 0))]
    pub min: i64,
    /// At most this many records. Unset: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max: Option<i64>,
}

/// A region and since when something holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedPhase {
    /// Name of the phase, such as detected, fenced, promoted, routed.
    #[schemars(length(max = 32))]
    pub name: String,
    /// When the phase was reached (RFC 3339).
    #[schemars(schema_with = "date_time")]
    pub at: String,
    /// How long the phase took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<super::text::DurationText>,
}

/// Regions that an object names.
pub type RegionNames = Vec<RegionNameText>;

pub(crate) fn date_time(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "format": "date-time", "maxLength": 40})
}

/// The schema of `metav1.Condition`, with bounds.
pub(crate) fn conditions(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 24,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "What is judged, such as Ready."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "True, False or Unknown."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "description": "Why, in one stable word: the anchor of the runbook."},
                "message": {"type": "string", "maxLength": 32768, "description": "Why, in a sentence, with what to do."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "Since when the status has had this value."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "The metadata.generation that was judged."},
            },
        },
    })
}
