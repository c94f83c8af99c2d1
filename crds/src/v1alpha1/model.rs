//! `spec.model`: which model scores, and how a new one takes over.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{DurationText, ModelUriText, ProbabilityText, Sha256Text};

/// The model that scores. A region fetches it, checks the digest and the golden vectors, and only then uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Where the model is: s3://bucket/key on each region's own model.endpoint, or http(s):// or file://.
    pub uri: ModelUriText,
    /// SHA-256 of the file. A file with another digest is never loaded.
    pub sha256: Sha256Text,
    /// A small model inside the decision pods, for the tier LightModel and for when the inference service is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub light: Option<LightModel>,
    /// How a new model takes over. Unset: in one step, once every region has loaded and checked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// The small model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LightModel {
    /// Where the small model is, as spec.model.uri.
    pub uri: ModelUriText,
    /// SHA-256 of the file.
    pub sha256: Sha256Text,
}

/// How a new model takes over from the present one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.canary.isSorted()",
    "model.rollout.canary must be ascending percentages, such as [1, 10, 50]"
))]
pub struct Rollout {
    /// ShadowThenCanary: standby regions score live payments with the candidate, then a growing share of the active
    /// region's payments is decided by it. Default ShadowThenCanary.
    #[serde(default)]
    pub strategy: RolloutStrategy,
    /// How long the candidate only shadows.
    #[serde(default)]
    pub shadow: Shadow,
    /// Shares of payments that the candidate decides, step by step, in per cent. Default [1, 10, 50].
    #[serde(default = "Rollout::default_canary")]
    #[schemars(length(min = 1, max = 8), inner(range(min = 1, max = 99)), extend("x-kubernetes-list-type" = "set"))]
    pub canary: Vec<i32>,
    /// What ends a rollout.
    #[serde(default)]
    pub gates: Gates,
}

impl Rollout {
    fn default_canary() -> Vec<i32> {
        vec![1, 10, 50]
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutStrategy {
    #[default]
    ShadowThenCanary,
}

/// How long a candidate only shadows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    /// At least this long. Default 30m.
    #[serde(rename = "for", default = "Shadow::default_duration")]
    pub duration: DurationText,
    /// And at least this many events. No data means not passed. Default 200000.
    #[serde(default = "Shadow::default_events_min")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub events_min: i64,
}

impl Shadow {
    fn default_duration() -> DurationText {
        "30m".into()
    }

    fn default_events_min() -> i64 {
        200_000
    }
}

impl Default for Shadow {
    fn default() -> Self {
        Self { duration: Self::default_duration(), events_min: Self::default_events_min() }
    }
}

/// Bounds that a candidate must stay within.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gates {
    /// Population stability index of the scores. Default "0.2".
    #[serde(default = "Gates::default_psi")]
    pub psi: ProbabilityText,
    /// Payments that only the candidate declines, as a share of all declines. Default "0.2".
    #[serde(default = "Gates::default_decline_flips")]
    pub decline_flips: ProbabilityText,
    /// 99th percentile of the time to score. Default 25ms.
    #[serde(default = "Gates::default_p99")]
    pub p99: DurationText,
    /// Share of payments that the candidate fails to score. Default "0.001".
    #[serde(default = "Gates::default_errors")]
    pub errors: ProbabilityText,
}

impl Gates {
    fn default_psi() -> ProbabilityText {
        "0.2".into()
    }

    fn default_decline_flips() -> ProbabilityText {
        "0.2".into()
    }

    fn default_p99() -> DurationText {
        "25ms".into()
    }

    fn default_errors() -> ProbabilityText {
        "0.001".into()
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            psi: Self::default_psi(),
            decline_flips: Self::default_decline_flips(),
            p99: Self::default_p99(),
            errors: Self::default_errors(),
        }
    }
}
