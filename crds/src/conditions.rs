//! Types and reasons of conditions. A reason is the anchor of a runbook and the name in an alert: it never changes its
//! meaning.

/// The spec is one that this operator can run. False: the data plane stays as it was.
pub const ACCEPTED: &str = "Accepted";
/// This region performs the role that the plan gives it. A dead peer does not make it False.
pub const READY: &str = "Ready";
/// Something is being brought to what the spec says.
pub const RECONCILING: &str = "Reconciling";
/// Nothing goes on without a human.
pub const STALLED: &str = "Stalled";
/// A majority of voters answers.
pub const QUORUM: &str = "Quorum";
/// All regions have the same spec.
pub const SPEC_IN_SYNC: &str = "SpecInSync";
/// All regions have the same rules, keys and rates.
pub const INPUTS_IN_SYNC: &str = "InputsInSync";
/// Feature store and logs are copied between regions, within their objectives.
pub const REPLICATING: &str = "Replicating";
/// This region's features are fresh.
pub const FEATURES_FRESH: &str = "FeaturesFresh";
/// All regions have the same models.
pub const MODELS_IN_SYNC: &str = "ModelsInSync";
/// Another region could take over now.
pub const FAILOVER_READY: &str = "FailoverReady";

/// The condition types of a FraudPipeline, in the order in which they are shown.
pub const OF_A_PIPELINE: [&str; 11] = [
    ACCEPTED,
    READY,
    RECONCILING,
    STALLED,
    QUORUM,
    SPEC_IN_SYNC,
    INPUTS_IN_SYNC,
    REPLICATING,
    FEATURES_FRESH,
    MODELS_IN_SYNC,
    FAILOVER_READY,
];

/// Reasons why a manifest is not accepted, in CamelCase as the API conventions want them. Those of the other conditions
/// are the planner's.
pub mod reasons {
    /// Accepted: the spec uses fields that this version does not act on.
    pub const NOT_IMPLEMENTED: &str = "NotImplemented";
    /// Accepted: the spec does not have the region of this cluster.
    pub const REGION_MISSING: &str = "RegionMissing";
    /// Accepted: the chart has no images for spec.version.
    pub const VERSION_UNKNOWN: &str = "VersionUnknown";
    /// Accepted: another, older pipeline uses the same topic prefix, name or node port.
    pub const CONFLICTS_WITH_PIPELINE: &str = "ConflictsWithPipeline";
    /// Accepted: a Secret or ConfigMap that the spec refers to does not exist or cannot be used.
    pub const INPUT_MISSING: &str = "InputMissing";
}
