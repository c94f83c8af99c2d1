//! `spec.regions[]`: which regions there are, how they are reached, and what differs in each.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{ContainerResources, NameRef, PodTemplate, Replicas},
    kafka::RegionKafka,
    text::{AddressText, CidrText, EndpointText, HostTemplateText, HostText, ObjectNameText, QuantityText, RegionNameText},
};

/// One region of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.type != 'DataPlane' || has(self.preference)", "a DataPlane region needs a preference: 1 is active first, then 2, 3, ..."))]
#[x_kube(validation = ("self.type != 'DataPlane' || has(self.kafka)", "a DataPlane region needs kafka.bootstrapServers: the addresses of the Kafka in that region"))]
#[x_kube(validation = ("self.type != 'DataPlane' || has(self.features)", "a DataPlane region needs features.expose: how the other regions reach its feature store"))]
#[x_kube(validation = ("self.type != 'DataPlane' || has(self.ingress)", "a DataPlane region needs ingress: one of addresses, hostname or service"))]
#[x_kube(validation = (
    "self.type != 'Witness' || !(has(self.preference) || has(self.ingress) || has(self.features) || has(self.kafka) || has(self.model) || has(self.overrides))",
    "a Witness votes and runs nothing: leave preference, ingress, features, kafka, model and overrides out"
))]
#[x_kube(validation = ("self.type == oldSelf.type", "the type of a region cannot be changed: remove the region, wait until it is gone from status.regions, and add it again"))]
pub struct RegionSpec {
    /// Name of the region, such as us-east. It becomes part of topic names and object names, so it stays for ever.
    pub name: RegionNameText,
    /// DataPlane runs the pipeline and votes. Witness only votes on which region is active, so that two data-plane
    /// regions and a witness have a majority. Default DataPlane.
    #[serde(rename = "type", default)]
    pub kind: RegionType,
    /// Which region is active when none is yet: the lowest number. It never causes an automatic fail-back. Required
    /// for a DataPlane region, unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub preference: Option<i32>,
    /// How clients reach this region's decision service: exactly one of addresses, hostname, service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,
    /// This region's name server for the pipeline's name. Needed in every region once spec.dns is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<RegionDns>,
    /// How the other regions reach this region's feature store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<RegionFeatures>,
    /// This region's Kafka. It belongs to the platform; the pipeline only uses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<RegionKafka>,
    /// Where this region fetches models from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<RegionModel>,
    /// Address blocks of this region's pods and nodes, for the network policies of the other regions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub cidrs: Vec<CidrText>,
    /// What is different in this region from the rest of the spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overrides: Option<RegionOverrides>,
}

impl RegionSpec {
    pub fn runs_the_data_plane(&self) -> bool {
        self.kind == RegionType::DataPlane
    }
}

/// What a region is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RegionType {
    #[default]
    DataPlane,
    Witness,
}

/// How clients reach a region: a union of which exactly one member is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "[has(self.addresses), has(self.hostname), has(self.service)].filter(chosen, chosen).size() == 1",
    "set exactly one of ingress.addresses, ingress.hostname and ingress.service"
))]
pub struct Ingress {
    /// Addresses of a load balancer that the platform runs in front of the decision service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Option<Vec<AddressText>>,
    /// Name of a load balancer that the platform runs in front of the decision service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<HostText>,
    /// The operator makes the decision Service reachable itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<IngressService>,
}

/// The Service in front of the decision pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.nodePorts) || self.type == 'NodePort'", "nodePorts needs ingress.service.type: NodePort"))]
pub struct IngressService {
    /// LoadBalancer or NodePort.
    #[serde(rename = "type")]
    pub kind: IngressServiceType,
    /// Annotations of the Service, as the cloud's load balancer wants them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "service_annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Fixed node ports, with type NodePort. Unset: the cluster picks them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_ports: Option<IngressNodePorts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IngressServiceType {
    LoadBalancer,
    NodePort,
}

/// Node ports of the decision Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.grpc != self.rest", "nodePorts.grpc and nodePorts.rest must differ"))]
pub struct IngressNodePorts {
    /// Node port of gRPC, from 30000 to 32767.
    #[schemars(range(min = 30000, max = 32767))]
    pub grpc: i32,
    /// Node port of REST, from 30000 to 32767.
    #[schemars(range(min = 30000, max = 32767))]
    pub rest: i32,
}

fn service_annotations(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 1024}})
}

/// A region's name server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionDns {
    /// Host name of this region's name server, as the parent zone's NS record says it.
    pub nameserver: HostText,
    /// Addresses of this region's name server.
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<AddressText>,
}

/// A region's part of the feature store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionFeatures {
    /// How the other regions' shards reach this region's, to replicate from them.
    pub expose: FeatureExposure,
}

/// How shards are reached from other regions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.type == 'PodIP' || has(self.hostTemplate)",
    "hostTemplate is needed with type LoadBalancer and NodePort: the host that the other regions use, such as \"fs-{shard}.us-east.example.com\""
))]
#[x_kube(validation = (
    "self.type != 'PodIP' || !has(self.hostTemplate)",
    "with type PodIP the other regions use the pods' own addresses: leave hostTemplate out"
))]
#[x_kube(validation = (
    "self.type != 'NodePort' || (self.port >= 30000 && self.port <= 32767)",
    "with type NodePort, port is the node port of shard 0, from 30000 to 32767; shard k has port + k"
))]
#[x_kube(validation = (
    "self.type != 'LoadBalancer' || !has(self.hostTemplate) || self.hostTemplate.contains('{shard}')",
    "with type LoadBalancer every shard has its own host: write {shard} in hostTemplate, such as \"fs-{shard}.us-east.example.com\""
))]
pub struct FeatureExposure {
    /// LoadBalancer makes one Service per shard, NodePort uses node ports, PodIP needs routable pod addresses.
    #[serde(rename = "type")]
    pub kind: FeatureExposureType,
    /// Host under which the other regions reach a shard. {shard} stands for its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_template: Option<HostTemplateText>,
    /// Port under which the other regions reach a shard. With NodePort that of shard 0: shard k has port + k.
    /// Default 6379.
    #[serde(default = "FeatureExposure::default_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Annotations of the exposing Services, as the cloud's load balancer wants them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "service_annotations")]
    pub annotations: BTreeMap<String, String>,
}

impl FeatureExposure {
    fn default_port() -> i32 {
        6379
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FeatureExposureType {
    LoadBalancer,
    NodePort,
    #[serde(rename = "PodIP")]
    PodIp,
}

/// A region's model bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionModel {
    /// S3-compatible endpoint in this region, for models whose uri starts with s3://.
    pub endpoint: EndpointText,
    /// Secret with accessKeyId and secretAccessKey. Unset: requests are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}

/// What is different in one region: the same paths as in the spec, as far as a region may differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionOverrides {
    /// Overrides of spec.scoring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scoring: Option<ScoringOverrides>,
    /// Overrides of spec.features.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<FeatureOverrides>,
}

/// What scoring may have different in one region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScoringOverrides {
    /// The decision service in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<WorkloadOverrides>,
    /// The inference service in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inference: Option<WorkloadOverrides>,
}

/// What a workload may have different in one region. A set field replaces that of the spec as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadOverrides {
    /// Number of pods in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// Resources of the container in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ContainerResources>,
    /// Additions to the pods in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// What the feature store may have different in one region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeatureOverrides {
    /// Memory of each shard in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<QuantityText>,
    /// StorageClass of volumes in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<ObjectNameText>,
}
