//! `spec.features`: the feature store.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::NameRef,
    text::{DecimalText, DurationText, EndpointText, ObjectNameText, QuantityText, RetentionText},
};

/// The feature store: Redis shards in every data-plane region, those of the active region being the primaries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "self.shards == oldSelf.shards",
    "features.shards cannot be changed: keys would map to other shards. Make a new pipeline with the number that you need"
))]
#[x_kube(validation = (
    "self.windows.map(window, duration(window)).isSorted()",
    "features.windows must be in ascending order, such as [5s, 1m, 1h, 24h]"
))]
pub struct FeaturesSpec {
    /// Number of shards in every region, from 1 to 256. It cannot be changed later. 10 GiB and 100,000 operations a
    /// second per shard are a good size.
    #[schemars(range(min = 1, max = 256))]
    pub shards: i32,
    /// Processes of each shard that have a copy of its data beside the one that leads, in every region, from 0 to 2. With
    /// none, a shard whose process is lost takes no writes until its data were fetched from another region. Default 1.
    #[serde(default = "FeaturesSpec::default_replicas_per_shard")]
    #[schemars(range(min = 0, max = 2))]
    pub replicas_per_shard: i32,
    /// Memory of each shard's Redis process, such as "10Gi". Default "1Gi".
    #[serde(default = "FeaturesSpec::default_memory")]
    pub memory: QuantityText,
    /// StorageClass of the volumes of this pipeline. Unset: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_class_name: Option<ObjectNameText>,
    /// Lengths of the sliding windows over which features are computed. The model is trained for them. Default
    /// [5s, 1m, 1h, 24h].
    #[serde(default = "FeaturesSpec::default_windows")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub windows: Vec<DurationText>,
    /// How old features may be before decisions become more careful.
    #[serde(default)]
    pub staleness: Staleness,
    /// Replication of the shards between regions.
    #[serde(default)]
    pub replication: FeatureReplication,
    /// Snapshots of the feature store. Unset: none; the store can be rebuilt from the logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Backup>,
}

impl FeaturesSpec {
    fn default_replicas_per_shard() -> i32 {
        1
    }

    fn default_memory() -> QuantityText {
        "1Gi".into()
    }

    fn default_windows() -> Vec<DurationText> {
        ["5s", "1m", "1h", "24h"].map(DurationText::from).into()
    }
}

/// How old features may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "duration(self.warn) < duration(self.raise) && duration(self.raise) < duration(self.stop)",
    "features.staleness must have warn < raise < stop"
))]
pub struct Staleness {
    /// Age at which an event and a metric warn. Default 1s.
    #[serde(default = "Staleness::default_warn")]
    pub warn: DurationText,
    /// Age at which windows count as incomplete and raise the thresholds. Default 5s.
    #[serde(default = "Staleness::default_raise")]
    pub raise: DurationText,
    /// Age at which windows count as missing. Default 60s.
    #[serde(default = "Staleness::default_stop")]
    pub stop: DurationText,
    /// By how much incomplete windows raise the thresholds, in log-odds, where no calibrated table says it.
    #[serde(default)]
    pub raise_by: RaiseBy,
}

impl Staleness {
    fn default_warn() -> DurationText {
        "1s".into()
    }

    fn default_raise() -> DurationText {
        "5s".into()
    }

    fn default_stop() -> DurationText {
        "60s".into()
    }
}

impl Default for Staleness {
    fn default() -> Self {
        Self { warn: Self::default_warn(), raise: Self::default_raise(), stop: Self::default_stop(), raise_by: RaiseBy::default() }
    }
}

/// By how much thresholds rise, in log-odds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RaiseBy {
    /// Rise of the review threshold, in quotes. Default "0.15".
    #[serde(default = "RaiseBy::default_review")]
    pub review: DecimalText,
    /// Rise of the decline threshold, in quotes. Default "0.05".
    #[serde(default = "RaiseBy::default_decline")]
    pub decline: DecimalText,
}

impl RaiseBy {
    fn default_review() -> DecimalText {
        "0.15".into()
    }

    fn default_decline() -> DecimalText {
        "0.05".into()
    }
}

impl Default for RaiseBy {
    fn default() -> Self {
        Self { review: Self::default_review(), decline: Self::default_decline() }
    }
}

/// Replication of the shards between regions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FeatureReplication {
    /// Lag beyond which the condition Replicating is False. Default 1s.
    #[serde(default = "FeatureReplication::default_lag_objective")]
    pub lag_objective: DurationText,
}

impl FeatureReplication {
    fn default_lag_objective() -> DurationText {
        "1s".into()
    }
}

impl Default for FeatureReplication {
    fn default() -> Self {
        Self { lag_objective: Self::default_lag_objective() }
    }
}

/// Snapshots of the feature store, taken in each region from replicas: in the active one from those beside the leading
/// processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "['10m', '12m', '15m', '20m', '30m', '1h', '2h', '3h', '4h', '6h', '8h', '12h', '24h'].exists(every, duration(every) == duration(self.every))",
    "features.backup.every must divide an hour or a day: 10m, 12m, 15m, 20m, 30m, 1h, 2h, 3h, 4h, 6h, 8h, 12h or 24h"
))]
pub struct Backup {
    /// Time between two snapshots, from 10m to 24h, as it divides an hour or a day. Default 4h.
    #[serde(default = "Backup::default_every")]
    pub every: DurationText,
    /// How long snapshots are kept. Default 7d.
    #[serde(default = "Backup::default_keep")]
    pub keep: RetentionText,
    /// Where snapshots go: exactly one of s3 and volumeClaim.
    pub destination: BackupDestination,
}

impl Backup {
    fn default_every() -> DurationText {
        "4h".into()
    }

    fn default_keep() -> RetentionText {
        "7d".into()
    }
}

/// Where snapshots go: a union of which exactly one member is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.s3) != has(self.volumeClaim)", "set exactly one of backup.destination.s3 and backup.destination.volumeClaim"))]
pub struct BackupDestination {
    /// A bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3: Option<S3Destination>,
    /// A volume of this cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<NameRef>,
}

/// A bucket for snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Destination {
    /// S3-compatible endpoint.
    pub endpoint: EndpointText,
    /// Name of the bucket.
    #[schemars(length(min = 3, max = 63))]
    pub bucket: String,
    /// Start of the keys, such as "features/". Unset: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub prefix: Option<String>,
    /// Secret with accessKeyId and secretAccessKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<NameRef>,
}
