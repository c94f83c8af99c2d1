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
/// A request (RegionFailover, PipelineAction, ChaosDrill) has come to its end, whichever.
pub const COMPLETE: &str = "Complete";
/// A RegionPlan knows a committed plan.
pub const COMMITTED: &str = "Committed";

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

/// Reasons, in CamelCase as the API conventions want them.
pub mod reasons {
    /// Accepted: nothing is wrong with the spec.
    pub const VALID: &str = "Valid";
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
    /// Ready: every owned object does its work.
    pub const PERFORMS_ROLE: &str = "PerformsRole";
    /// Ready: pods are not available yet.
    pub const PODS_NOT_AVAILABLE: &str = "PodsNotAvailable";
    /// Ready: shards of the feature store do not have the role that the plan gives them.
    pub const SHARDS_NOT_IN_ROLE: &str = "ShardsNotInRole";
    /// Ready: Kafka cannot be reached or lacks topics.
    pub const KAFKA_NOT_READY: &str = "KafkaNotReady";
    /// Reconciling: what the spec says is what runs.
    pub const UP_TO_DATE: &str = "UpToDate";
    /// Reconciling: owned objects are being changed.
    pub const APPLYING: &str = "Applying";
    /// Stalled: nothing waits for a human.
    pub const PROGRESSING: &str = "Progressing";
    /// Any: not measured, which is never taken for good.
    pub const NOT_MEASURED: &str = "NotMeasured";
    /// Any: there is only one region, so that there is nothing to compare or to copy.
    pub const SINGLE_REGION: &str = "SingleRegion";
}
