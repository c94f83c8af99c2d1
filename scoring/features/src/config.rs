//! How the feature store is configured, in the decision service and in the builder alike.

use std::{path::PathBuf, time::Duration};

use scoring_core::{
    state::{InvalidRetention, Retention, StateConfig},
    windows::{InvalidWindows, Window, Windows},
};
use serde::{Deserialize, Serialize};

/// Section `features` of a configuration file.
///
/// ```yaml
/// features:
///   windows: [5s, 1m, 1h, 24h]
///   redis: {user: decision, password_file: /etc/fraudpipeline/redis/decision}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeaturesConfig {
    /// Lengths of the windows, shortest first. Models are trained for them: other windows need another model.
    #[serde(default = "default_windows")]
    pub windows: Vec<Window>,
    /// How far the clocks of two pods may differ: windows end that much after the event.
    #[serde(default = "default_clock_skew", with = "domain::duration")]
    pub clock_skew: Duration,
    /// How many events of an entity count; older ones are left out, and the features say that they are saturated.
    #[serde(default = "default_events_per_entity_max")]
    pub events_per_entity_max: usize,
    #[serde(default)]
    pub retention: Retention,
    pub redis: RedisConfig,
}

/// A configuration that fits together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    pub windows: Windows,
    pub state: StateConfig,
    pub redis: RedisConfig,
}

/// Why a configuration does not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFeatures {
    #[error(transparent)]
    Windows(#[from] InvalidWindows),
    #[error("retention: {0}")]
    Retention(#[from] InvalidRetention),
}

/// How the shards are reached. Their addresses come with the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// ACL user. Left out together with `password_file`: no authentication, for tests on loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// File with the user's password. It is read for each new connection, so that a rotated password needs no restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    #[serde(default = "default_connect_timeout", with = "domain::duration")]
    pub connect_timeout: Duration,
    /// A connection on which nothing was answered for this long, while something was asked, is given up.
    #[serde(default = "default_silence_max", with = "domain::duration")]
    pub silence_max: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self { user: None, password_file: None, connect_timeout: default_connect_timeout(), silence_max: default_silence_max() }
    }
}

fn default_windows() -> Vec<Window> {
    Windows::default().lengths().to_vec()
}

fn default_clock_skew() -> Duration {
    Duration::from_millis(Windows::default().skew_ms().unsigned_abs())
}

fn default_events_per_entity_max() -> usize {
    Windows::default().events_max()
}

fn default_connect_timeout() -> Duration {
    Duration::from_secs(1)
}

fn default_silence_max() -> Duration {
    Duration::from_secs(1)
}

impl FeaturesConfig {
    /// # Errors
    /// When windows, skew or cap are out of bounds.
    pub fn checked_windows(&self) -> Result<Windows, InvalidWindows> {
        Windows::new(self.windows.clone(), self.clock_skew, self.events_per_entity_max)
    }

    /// # Errors
    /// When something is out of bounds, or the retention does not fit the windows.
    pub fn checked(&self) -> Result<StoreConfig, InvalidFeatures> {
        let windows = self.checked_windows()?;
        let state = StateConfig::configured(&windows, self.retention)?;
        Ok(StoreConfig { windows, state, redis: self.redis.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_the_values_that_models_are_trained_for() {
        let config: FeaturesConfig = serde_yaml::from_str("redis: {user: decision, password_file: /run/password}").unwrap();
        assert_eq!(config.checked_windows().unwrap(), Windows::default());
        assert_eq!(config.checked().unwrap().state, StateConfig::new(&Windows::default(), Retention::default()).unwrap());
        let written = serde_yaml::to_string(&config).unwrap();
        assert!(written.contains("clock_skew: 500ms") && written.contains("- 24h"), "{written}");
        assert_eq!(serde_yaml::from_str::<FeaturesConfig>(&written).unwrap(), config);
    }

    #[test]
    fn a_misspelt_field_and_a_wrong_window_are_named() {
        let error = |text: &str| serde_yaml::from_str::<FeaturesConfig>(text).unwrap_err().to_string();
        assert!(error("redis: {usr: a}").contains("usr"));
        assert!(error("{windows: [5y], redis: {}}").contains("5y"));
        let falling: FeaturesConfig = serde_yaml::from_str("{windows: [1h, 1m], redis: {}}").unwrap();
        assert_eq!(falling.checked_windows(), Err(InvalidWindows::Order));
        let narrow: FeaturesConfig = serde_yaml::from_str("{retention: {pane: 1500ms}, redis: {}}").unwrap();
        assert!(narrow.checked().unwrap_err().to_string().contains("retention: pane 1500ms"));
    }

    #[test]
    fn short_windows_need_no_other_retention_and_explicit_values_are_checked() {
        let short: FeaturesConfig = serde_yaml::from_str("{windows: [1s, 10s], events_per_entity_max: 4, redis: {}}").unwrap();
        assert_eq!(short.checked().unwrap().state.events_max(), 4);
        let explicit: FeaturesConfig = serde_yaml::from_str("{windows: [10s], retention: {exact_horizon: 2h}, redis: {}}").unwrap();
        assert!(explicit.checked().unwrap_err().to_string().contains("exact horizon 2h"));
    }
}
