//! `spec.kafka` and `spec.regions[].kafka`: topics, and how each region's Kafka is reached.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{common::NameRef, text::HostPortText};

/// The pipeline's topics, in every region's own Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.topicPrefix == oldSelf.topicPrefix",
    "kafka.topicPrefix cannot be changed: the logs under the old prefix would be left behind. Make a new pipeline"
))]
#[x_kube(validation = (
    "self.partitions >= oldSelf.partitions",
    "kafka.partitions cannot be lowered: Kafka keeps partitions for ever. Write the old number or a higher one"
))]
#[x_kube(validation = (
    "self.topicPrefix.matches('^[a-z0-9]([a-z0-9_-]*[a-z0-9])?$')",
    "kafka.topicPrefix must be lower-case letters, digits, '-' and '_', such as \"fraud\""
))]
pub struct KafkaSpec {
    /// First part of every topic name: the prefix fraud gives fraud.events.raw. Two pipelines on one Kafka need two
    /// prefixes. It cannot be changed later. Default "fraud".
    #[serde(default = "KafkaSpec::default_topic_prefix")]
    #[schemars(length(min = 1, max = 64))]
    pub topic_prefix: String,
    /// Partitions of each topic, the same in all regions. They can only be raised. Default 12.
    #[serde(default = "KafkaSpec::default_partitions")]
    #[schemars(range(min = 1, max = 1024))]
    pub partitions: i32,
    /// true: the operator creates the topics, and the mirrors' ones. false: the platform has created them. Default true.
    #[serde(default = "KafkaSpec::default_manage_topics")]
    pub manage_topics: bool,
}

impl KafkaSpec {
    fn default_topic_prefix() -> String {
        "fraud".into()
    }

    fn default_partitions() -> i32 {
        12
    }

    fn default_manage_topics() -> bool {
        true
    }
}

impl Default for KafkaSpec {
    fn default() -> Self {
        Self {
            topic_prefix: Self::default_topic_prefix(),
            partitions: Self::default_partitions(),
            manage_topics: Self::default_manage_topics(),
        }
    }
}

/// One region's Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionKafka {
    /// Addresses of brokers, host:port. They must be reachable from every region.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub bootstrap_servers: Vec<HostPortText>,
    /// TLS to the brokers. Unset: plain text; an empty object uses the system's certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<KafkaTls>,
    /// Secret with mechanism, username and password. It must exist in every cluster, since every region reads this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<NameRef>,
}

/// TLS to the brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaTls {
    /// Secret whose ca.crt is trusted. Unset: the system's certificate authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<NameRef>,
}
