//! `spec.scoring`: the services that decide, their time, and what they fall back to.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{ContainerResources, PodTemplate, Replicas},
    text::{DecimalText, DurationText, HostPortText, ProbabilityText},
};

/// How payments are decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "duration(self.deadline) >= duration('10ms') && duration(self.deadline) <= duration('10s')",
    "scoring.deadline must be from 10ms to 10s"
))]
#[x_kube(validation = (
    "duration(self.budgets.features) + duration(self.budgets.rules) + duration(self.budgets.inference) + duration(self.budgets.graph) + duration(self.budgets.decision) + duration(self.budgets.handover) <= duration(self.deadline)",
    "the scoring.budgets must add up to at most scoring.deadline: lower a budget or raise the deadline"
))]
#[x_kube(validation = (
    "self.tiers.map(tier, double(tier.below)).isSorted()",
    "scoring.tiers must be in ascending order of below"
))]
pub struct ScoringSpec {
    /// The decision service: it answers Decide.
    #[serde(default)]
    pub decision: DecisionSpec,
    /// The inference service: it holds the model in memory.
    #[serde(default)]
    pub inference: InferenceSpec,
    /// Time in which every request is answered, at some declared level of degradation. A client's own shorter deadline
    /// counts. From 10ms to 10s, default 100ms.
    #[serde(default = "ScoringSpec::default_deadline")]
    pub deadline: DurationText,
    /// Most time that each stage gets of the deadline. Together at most the deadline.
    #[serde(default)]
    pub budgets: Budgets,
    /// Scores from which a payment is reviewed or declined.
    #[serde(default)]
    pub thresholds: Thresholds,
    /// Cheaper treatment of small payments: the first tier whose below is above the amount is used. Empty: every payment
    /// gets the full model. Default empty.
    #[serde(default)]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["below"]))]
    pub tiers: Vec<Tier>,
    /// What decides when nothing else can.
    #[serde(default)]
    pub fallback: Fallback,
    /// When a dependency that fails is left alone for a while.
    #[serde(default)]
    pub breakers: Breakers,
    /// What a decision pod keeps in memory.
    #[serde(default)]
    pub cache: Cache,
}

impl ScoringSpec {
    fn default_deadline() -> DurationText {
        "100ms".into()
    }
}

impl Default for ScoringSpec {
    fn default() -> Self {
        Self {
            decision: DecisionSpec::default(),
            inference: InferenceSpec::default(),
            deadline: Self::default_deadline(),
            budgets: Budgets::default(),
            thresholds: Thresholds::default(),
            tiers: Vec::new(),
            fallback: Fallback::default(),
            breakers: Breakers::default(),
            cache: Cache::default(),
        }
    }
}

/// The decision service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecisionSpec {
    /// Number of pods: the autoscaler moves between min and max. Default 2 to 20.
    #[serde(default)]
    pub replicas: Replicas,
    /// Resources of the container. Unset amounts: the operator's defaults.
    #[serde(default)]
    pub resources: ContainerResources,
    /// Additions to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

/// The inference service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InferenceSpec {
    /// Which engine computes scores.
    #[serde(default)]
    pub engine: Engine,
    /// Number of pods: the autoscaler moves between min and max. Default 2 to 20.
    #[serde(default)]
    pub replicas: Replicas,
    /// Resources of the container. Unset amounts: the operator's defaults.
    #[serde(default)]
    pub resources: ContainerResources,
    /// Additions to the pods.
    #[serde(default)]
    pub pod_template: PodTemplate,
}

/// Which engine computes scores: a union by type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "(self.type == 'External') == has(self.external)",
    "engine.external {address, modelName} goes with engine.type: External, and only with it"
))]
pub struct Engine {
    /// Builtin: the pipeline's own inference service. InProcess: the same engine inside the decision pods. External: any
    /// server of the Open Inference Protocol. Default Builtin.
    #[serde(rename = "type", default)]
    pub kind: EngineType,
    /// Where the server is, with type External.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalEngine>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EngineType {
    #[default]
    Builtin,
    InProcess,
    External,
}

/// A server of the Open Inference Protocol that somebody else runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalEngine {
    /// host:port of its gRPC service.
    pub address: HostPortText,
    /// Name of the model there.
    #[schemars(length(min = 1, max = 253))]
    pub model_name: String,
}

/// Most time that a stage gets. When it is used up, the stage's result counts as missing and the answer says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Budgets {
    /// Recording the event and reading the windows. Default 15ms.
    #[serde(default = "Budgets::default_features")]
    pub features: DurationText,
    /// Rules, before and after the score. Default 5ms.
    #[serde(default = "Budgets::default_rules")]
    pub rules: DurationText,
    /// The model. Default 30ms.
    #[serde(default = "Budgets::default_inference")]
    pub inference: DurationText,
    /// Graph features. Default 18ms.
    #[serde(default = "Budgets::default_graph")]
    pub graph: DurationText,
    /// Thresholds and the answer itself. Default 3ms.
    #[serde(default = "Budgets::default_decision")]
    pub decision: DurationText,
    /// Waiting until event and decision are safe, in Kafka or in the pod's log. Default 5ms.
    #[serde(default = "Budgets::default_handover")]
    pub handover: DurationText,
}

impl Budgets {
    fn default_features() -> DurationText {
        "15ms".into()
    }

    fn default_rules() -> DurationText {
        "5ms".into()
    }

    fn default_inference() -> DurationText {
        "30ms".into()
    }

    fn default_graph() -> DurationText {
        "18ms".into()
    }

    fn default_decision() -> DurationText {
        "3ms".into()
    }

    fn default_handover() -> DurationText {
        "5ms".into()
    }
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            features: Self::default_features(),
            rules: Self::default_rules(),
            inference: Self::default_inference(),
            graph: Self::default_graph(),
            decision: Self::default_decision(),
            handover: Self::default_handover(),
        }
    }
}

/// Scores from which a payment is not simply approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "double(self.review) < double(self.decline)",
    "thresholds.review must be below thresholds.decline"
))]
pub struct Thresholds {
    /// Payments that score at least this are reviewed. From 0 to 1, in quotes, default "0.5".
    #[serde(default = "Thresholds::default_review")]
    pub review: ProbabilityText,
    /// Payments that score at least this are declined. From 0 to 1, in quotes, default "0.9".
    #[serde(default = "Thresholds::default_decline")]
    pub decline: ProbabilityText,
}

impl Thresholds {
    fn default_review() -> ProbabilityText {
        "0.5".into()
    }

    fn default_decline() -> ProbabilityText {
        "0.9".into()
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self { review: Self::default_review(), decline: Self::default_decline() }
    }
}

/// Cheaper treatment of payments below an amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tier {
    /// Payments below this amount, in the base currency, such as "10".
    pub below: DecimalText,
    /// RulesOnly: no model. LightModel: spec.model.light. FullModel: spec.model.
    #[serde(rename = "use")]
    pub treatment: TierTreatment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TierTreatment {
    RulesOnly,
    LightModel,
    FullModel,
}

/// What decides when nothing else can: small payments are approved, within a limit per card, device and address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "double(self.approveBelow) <= double(self.cumulativePerEntity)",
    "fallback.approveBelow must not exceed fallback.cumulativePerEntity"
))]
pub struct Fallback {
    /// Payments below this amount, in the base currency, are approved; the others are reviewed. Default "100".
    #[serde(default = "Fallback::default_approve_below")]
    pub approve_below: DecimalText,
    /// Most that one card, device, address or merchant gets approved this way. Without it the limit is a gift to card
    /// testers. Default "300".
    #[serde(default = "Fallback::default_cumulative_per_entity")]
    pub cumulative_per_entity: DecimalText,
}

impl Fallback {
    fn default_approve_below() -> DecimalText {
        "100".into()
    }

    fn default_cumulative_per_entity() -> DecimalText {
        "300".into()
    }
}

impl Default for Fallback {
    fn default() -> Self {
        Self { approve_below: Self::default_approve_below(), cumulative_per_entity: Self::default_cumulative_per_entity() }
    }
}

/// When a dependency that fails is left alone for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breakers {
    /// The inference service. Default: 5 failures, open for 30s.
    #[serde(default = "Breakers::default_inference")]
    pub inference: Breaker,
    /// Graph features. Default: 10 failures, open for 60s.
    #[serde(default = "Breakers::default_graph")]
    pub graph: Breaker,
}

impl Breakers {
    fn default_inference() -> Breaker {
        Breaker { failures: 5, open: "30s".into() }
    }

    fn default_graph() -> Breaker {
        Breaker { failures: 10, open: "60s".into() }
    }
}

impl Default for Breakers {
    fn default() -> Self {
        Self { inference: Self::default_inference(), graph: Self::default_graph() }
    }
}

/// A circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// Failures in a row after which the dependency is left alone.
    #[schemars(range(min = 1, max = 1000))]
    pub failures: i32,
    /// How long it is left alone before a few requests try it again.
    pub open: DurationText,
}

/// What a decision pod keeps in memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cache {
    /// Users whose slow-moving profile is kept. 0 keeps none. Default 1000.
    #[serde(default = "Cache::default_users")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub users: i32,
}

impl Cache {
    fn default_users() -> i32 {
        1000
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self { users: Self::default_users() }
    }
}
