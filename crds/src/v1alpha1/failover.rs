//! `spec.failover`: when another region takes over.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::DurationText;

/// When another region takes over, and what is given up for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "duration(self.lease) >= duration('1s') && duration(self.lease) <= duration('60s')",
    "failover.lease must be from 1s to 60s"
))]
#[x_kube(validation = (
    "duration(self.lease) >= duration(self.detection.probeInterval) + duration(self.detection.probeInterval) + duration(self.detection.probeInterval)",
    "failover.lease must be at least three times failover.detection.probeInterval, or one late probe ends it: raise lease or lower probeInterval"
))]
#[x_kube(validation = ("duration(self.cooldown) <= duration('24h')", "failover.cooldown must be at most 24h"))]
pub struct FailoverSpec {
    /// Automatic: the operators move the pipeline by themselves when a majority of at least three voting regions finds
    /// the active region dead. Manual: only a RegionFailover moves it. Default Manual.
    #[serde(default)]
    pub mode: FailoverMode,
    /// How long a region's authority lasts without renewal, from 1s to 60s. A region that loses its majority steps
    /// back within one lease; a failover waits for it. Default 3s.
    #[serde(default = "FailoverSpec::default_lease")]
    pub lease: DurationText,
    /// When a region counts as dead.
    #[serde(default)]
    pub detection: Detection,
    /// The most time of acknowledged decisions that an automatic failover may lose. Beyond it, or when the loss is not
    /// known, the failover waits for a human and says so in status.waitingOn. Default 60s.
    #[serde(default = "FailoverSpec::default_max_data_loss")]
    pub max_data_loss: DurationText,
    /// How long after a move the next voluntary move waits. It never delays leaving a region that is dead. Default 10m.
    #[serde(default = "FailoverSpec::default_cooldown")]
    pub cooldown: DurationText,
    /// What the active region does when it loses its majority: Serve goes on as before, Degrade raises thresholds and
    /// goes on, Refuse answers with the rule for total failure. Default Degrade.
    #[serde(default)]
    pub on_isolation: OnIsolation,
}

impl FailoverSpec {
    fn default_lease() -> DurationText {
        "3s".into()
    }

    fn default_max_data_loss() -> DurationText {
        "60s".into()
    }

    fn default_cooldown() -> DurationText {
        "10m".into()
    }
}

impl Default for FailoverSpec {
    fn default() -> Self {
        Self {
            mode: FailoverMode::default(),
            lease: Self::default_lease(),
            detection: Detection::default(),
            max_data_loss: Self::default_max_data_loss(),
            cooldown: Self::default_cooldown(),
            on_isolation: OnIsolation::default(),
        }
    }
}

/// Who may move the pipeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FailoverMode {
    Automatic,
    #[default]
    Manual,
}

/// What an active region without a majority does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnIsolation {
    Serve,
    #[default]
    Degrade,
    Refuse,
}

/// When a region counts as dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "duration(self.probeInterval) >= duration('100ms') && duration(self.probeInterval) <= duration('20s')",
    "failover.detection.probeInterval must be from 100ms to 20s"
))]
pub struct Detection {
    /// Time between two probes of another region's data plane, from 100ms to 20s. Default 500ms.
    #[serde(default = "Detection::default_probe_interval")]
    pub probe_interval: DurationText,
    /// Failed probes in a row after which an observer reports the region dead. Default 3.
    #[serde(default = "Detection::default_failures")]
    #[schemars(range(min = 1, max = 100))]
    pub failures: i32,
    /// How many regions must report it. More than one, so that one blind observer moves nothing. Default 2.
    #[serde(default = "Detection::default_observers_min")]
    #[schemars(range(min = 1, max = 6))]
    pub observers_min: i32,
}

impl Detection {
    fn default_probe_interval() -> DurationText {
        "500ms".into()
    }

    fn default_failures() -> i32 {
        3
    }

    fn default_observers_min() -> i32 {
        2
    }
}

impl Default for Detection {
    fn default() -> Self {
        Self {
            probe_interval: Self::default_probe_interval(),
            failures: Self::default_failures(),
            observers_min: Self::default_observers_min(),
        }
    }
}
