//! `spec.mirror`: copies of every other region's topics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{DurationText, TopicText};

/// Mirrors pull the other regions' topics into this region's Kafka, as <region>.<topic>, all the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MirrorSpec {
    /// Topics to mirror beside the pipeline's own. Default none.
    #[serde(default)]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "set"))]
    pub additional_topics: Vec<TopicText>,
    /// Lag beyond which the condition Replicating is False. Default 1s.
    #[serde(default = "MirrorSpec::default_lag_objective")]
    pub lag_objective: DurationText,
}

impl MirrorSpec {
    fn default_lag_objective() -> DurationText {
        "1s".into()
    }
}

impl Default for MirrorSpec {
    fn default() -> Self {
        Self { additional_topics: Vec::new(), lag_objective: Self::default_lag_objective() }
    }
}
