//! `FraudPipeline`: what the pipeline is, in all regions. The same manifest is applied in every region's cluster.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    failover::FailoverSpec,
    features::FeaturesSpec,
    inputs::{CurrencySpec, DnsSpec, DrillsSpec, GraphSpec, PrivacySpec, RulesSpec},
    kafka::KafkaSpec,
    mirror::MirrorSpec,
    model::ModelSpec,
    region::RegionSpec,
    scoring::ScoringSpec,
    status::FraudPipelineStatus,
    text::VersionText,
};

/// What the pipeline is, in all regions. Which region is active is not said here: it is a fact, in status and in the
/// RegionPlan, and a RegionFailover moves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "fraudpipeline.dev",
    version = "v1alpha1",
    kind = "FraudPipeline",
    namespaced,
    status = "FraudPipelineStatus",
    shortname = "fp",
    category = "fraud",
    derive = "PartialEq",
    doc = "A multi-region fraud-scoring pipeline. Apply the same manifest in every region's cluster.",
    printcolumn(name = "Active", type_ = "string", json_path = ".status.activeRegion", description = "Region that takes the traffic"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", description = "Rises with each change of the active region"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "For display; machines read conditions"),
    printcolumn(name = "Features", type_ = "string", json_path = ".status.features", description = "Freshness of this region's features"),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.model", description = "Model that scores here, by the start of its digest"),
    printcolumn(
        name = "Failover-Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='FailoverReady')].status",
        description = "Whether another region could take over now"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether this region performs its role"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = (
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$')",
        "the name of a FraudPipeline starts the names of its objects: use 1 to 32 lower-case letters, digits and '-'"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.failover.mode != 'Automatic' || self.regions.size() >= 3",
    "failover.mode: Automatic needs at least three voting regions: add a region or a Witness, or write mode: Manual"
))]
#[x_kube(validation = (
    "self.failover.mode != 'Automatic' || self.failover.detection.observersMin < self.regions.size()",
    "failover.detection.observersMin must be less than the number of regions: the dead region does not report itself"
))]
#[x_kube(validation = (
    "self.regions.exists(region, region.type == 'DataPlane')",
    "at least one region must have type: DataPlane, or nothing would score"
))]
#[x_kube(validation = (
    "self.regions.all(one, !has(one.preference) || self.regions.exists_one(other, has(other.preference) && other.preference == one.preference))",
    "regions[].preference must be unique: number the regions 1, 2, 3, ..."
))]
#[x_kube(validation = (
    "self.regions.all(region, !has(region.features) || region.features.expose.type != 'NodePort' || region.features.expose.port + self.features.shards <= 32768)",
    "features.expose.port + features.shards - 1 must not exceed 32767 with type NodePort: shard k has port + k. Lower the port"
))]
#[x_kube(validation = (
    "self.scoring.tiers.all(tier, tier.use != 'LightModel') || has(self.model.light)",
    "a tier uses LightModel: say which one in model.light {uri, sha256}"
))]
#[x_kube(validation = (
    "!(self.model.uri.startsWith('s3://') || (has(self.model.light) && self.model.light.uri.startsWith('s3://'))) || self.regions.all(region, region.type == 'Witness' || has(region.model))",
    "a model uri that starts with s3:// needs regions[].model.endpoint in every DataPlane region"
))]
#[x_kube(validation = (
    "!has(self.dns) || self.regions.all(region, has(region.dns))",
    "with dns set, every region needs its name server: regions[].dns {nameserver, addresses}"
))]
#[x_kube(validation = (
    "oldSelf.regions.filter(old, !self.regions.exists(region, region.name == old.name)).size() + self.regions.filter(region, !oldSelf.regions.exists(old, old.name == region.name)).size() <= 1",
    "add or remove one region at a time, and wait for the condition Reconciling to be False before the next: voters change one by one"
))]
pub struct FraudPipelineSpec {
    /// Version of the data-plane images, one of the chart's value images. Unset: the version that the plan has, so that
    /// an upgrade of the operator restarts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionText>,
    /// The regions, 1 to 7. Each has a vote on which region is active.
    #[schemars(length(min = 1, max = 7), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub regions: Vec<RegionSpec>,
    /// When another region takes over, and what may be lost by it. Default: only when a RegionFailover asks for it.
    #[serde(default)]
    pub failover: FailoverSpec,
    /// The services that decide: their size, their time, thresholds and what they fall back to.
    #[serde(default)]
    pub scoring: ScoringSpec,
    /// The feature store: shards, memory, windows, and how old features may be.
    pub features: FeaturesSpec,
    /// The pipeline's topics.
    #[serde(default)]
    pub kafka: KafkaSpec,
    /// Copies of the other regions' topics.
    #[serde(default)]
    pub mirror: MirrorSpec,
    /// The model that scores.
    pub model: ModelSpec,
    /// Rules before and after the score.
    pub rules: RulesSpec,
    /// Keys that protect personal data.
    pub privacy: PrivacySpec,
    /// Base currency and exchange rates.
    #[serde(default)]
    pub currency: CurrencySpec,
    /// Graph features.
    #[serde(default)]
    pub graph: GraphSpec,
    /// The pipeline's name in DNS. Unset: clients know the regions themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsSpec>,
    /// Whether drills may disturb this pipeline.
    #[serde(default)]
    pub drills: DrillsSpec,
}

impl FraudPipelineSpec {
    pub fn region(&self, name: &str) -> Option<&RegionSpec> {
        self.regions.iter().find(|region| region.name.as_str() == name)
    }
}
