//! The file that `--config` names. The operator renders it; `tests/config.yaml` is the full sample that both sides test. Does
//! no IO.

use std::{net::SocketAddr, time::Duration};

use domain::{PipelineName, RegionName, topics::Topic};
use kafka::KafkaConfig;
use scoring_features::FeaturesConfig;
use serde::{Deserialize, Serialize};

/// ```yaml
/// pipeline: payments
/// region: us-east
/// origins: [eu-west, ap-south]
/// topic_prefix: fraud
/// kafka: {bootstrap_servers: ["kafka:9092"]}
/// features:
///   redis: {user: builder, password_file: /etc/fraudpipeline/redis/builder}
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub pipeline: PipelineName,
    /// The region in which this process runs.
    pub region: RegionName,
    /// The other regions with a data plane: their mirrored logs are folded too, once they exist.
    #[serde(default)]
    pub origins: Vec<RegionName>,
    /// `spec.kafka.topicPrefix`.
    #[serde(default = "topic_prefix")]
    pub topic_prefix: String,
    /// This region's own Kafka.
    pub kafka: KafkaConfig,
    /// The feature store. Addresses of shards come from the plan.
    pub features: FeaturesConfig,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub freshness: FreshnessConfig,
    /// `/livez`, `/readyz`, `/metrics`.
    #[serde(default = "admin")]
    pub admin: SocketAddr,
    /// Most time between SIGTERM and the end: the batch that is under way is finished.
    #[serde(with = "domain::duration", default = "shutdown_grace")]
    pub shutdown_grace: Duration,
}

/// What bounds memory and delay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A batch is folded when it has so many records.
    pub batch_records_max: usize,
    /// Or so much time after its first record.
    #[serde(with = "domain::duration")]
    pub batch_wait: Duration,
    /// A shard that does not take its part of a batch within this time is asked again.
    #[serde(with = "domain::duration")]
    pub fold_timeout: Duration,
    /// Fetched records that wait to be folded, for each partition.
    pub queued_kib_max: u32,
    /// How often the ends of the logs are measured, for lag.
    #[serde(with = "domain::duration")]
    pub lag_interval: Duration,
    /// How long one question to Kafka may take.
    #[serde(with = "domain::duration")]
    pub kafka_timeout: Duration,
}

/// How it is known, and told, how far the logs have been folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FreshnessConfig {
    /// How often a heartbeat is written into each partition of this region's own log.
    #[serde(with = "domain::duration")]
    pub heartbeat_interval: Duration,
    /// A partition in which no heartbeat came for this long is not known any more.
    #[serde(with = "domain::duration")]
    pub silence_max: Duration,
    /// How often the decision services are told.
    #[serde(with = "domain::duration")]
    pub publish_interval: Duration,
    /// For how long they believe what they were told last.
    #[serde(with = "domain::duration")]
    pub valid_for: Duration,
}

impl Default for FreshnessConfig {
    fn default() -> Self {
        Self {
            // Each beat is a transaction in every mirror, also while nobody pays.
            heartbeat_interval: Duration::from_millis(500),
            silence_max: Duration::from_secs(2),
            publish_interval: Duration::from_millis(250),
            valid_for: Duration::from_secs(2),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_records_max: 500,
            batch_wait: Duration::from_millis(10),
            fold_timeout: Duration::from_secs(5),
            queued_kib_max: 1024,
            lag_interval: Duration::from_secs(1),
            kafka_timeout: Duration::from_secs(5),
        }
    }
}

fn topic_prefix() -> String {
    "fraud".to_owned()
}

fn admin() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 9090))
}

fn shutdown_grace() -> Duration {
    Duration::from_secs(10)
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("origins has {0}, which is this region itself: list the other regions only")]
    OwnRegion(RegionName),
    #[error("topic_prefix: use 1 to 100 letters, digits, '.', '_' and '-', such as fraud")]
    TopicPrefix,
    #[error("features: {0}")]
    Features(#[from] scoring_features::InvalidFeatures),
    #[error("limits.{0} must be above 0")]
    Zero(&'static str),
    #[error("limits.batch_records_max: at most 100000")]
    BatchTooLarge,
    #[error("freshness.{0}: must be from {1}")]
    Freshness(&'static str, &'static str),
}

/// What the records of a log are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Events and heartbeats.
    Events,
    /// Values that batch jobs computed. They do not grow old, so all of the log counts.
    Profiles,
}

/// A log to fold: its name here, and the name that it has where it was first written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub topic: String,
    pub topic_at_origin: String,
    pub origin: RegionName,
    pub mirrored: bool,
    pub holds: Holds,
}

impl Config {
    /// # Errors
    /// When values contradict each other or are out of bounds.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.origins.contains(&self.region) {
            return Err(InvalidConfig::OwnRegion(self.region.clone()));
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if self.topic_prefix.is_empty() || self.topic_prefix.len() > 100 || !self.topic_prefix.bytes().all(plain) {
            return Err(InvalidConfig::TopicPrefix);
        }
        self.features.checked()?;
        self.freshness.check()?;
        self.limits.check()
    }

    /// This region's own logs first, then the mirrors of the others.
    pub fn logs(&self) -> Vec<Log> {
        let regions = || [(&self.region, false)].into_iter().chain(self.origins.iter().map(|origin| (origin, true)));
        let log = |topic: Topic, holds, origin: &RegionName, mirrored| Log {
            topic: if mirrored { topic.mirrored_from(origin, &self.topic_prefix) } else { topic.local(&self.topic_prefix) },
            topic_at_origin: topic.local(&self.topic_prefix),
            origin: origin.clone(),
            mirrored,
            holds,
        };
        let of_region = |(origin, mirrored)| {
            [log(Topic::EventsRaw, Holds::Events, origin, mirrored), log(Topic::Profiles, Holds::Profiles, origin, mirrored)]
        };
        regions().flat_map(of_region).collect()
    }

    /// Where this region writes its heartbeats.
    pub fn events_topic(&self) -> String {
        Topic::EventsRaw.local(&self.topic_prefix)
    }

    pub fn features_topic(&self) -> String {
        Topic::Features.local(&self.topic_prefix)
    }

    /// Where records go that cannot be read, with their bytes as they were.
    pub fn dead_letter_topic(&self) -> String {
        domain::topics::dead_letters(&self.topic_prefix)
    }
}

impl FreshnessConfig {
    fn check(&self) -> Result<(), InvalidConfig> {
        let within = |field, value: Duration, min_ms: u128, max_ms: u128, bounds| {
            if (min_ms..=max_ms).contains(&value.as_millis()) { Ok(()) } else { Err(InvalidConfig::Freshness(field, bounds)) }
        };
        within("heartbeat_interval", self.heartbeat_interval, 10, 60_000, "10ms to 60s")?;
        let silence_min_ms = self.heartbeat_interval.as_millis().saturating_mul(2);
        within("silence_max", self.silence_max, silence_min_ms, 600_000, "two heartbeat intervals to 10m")?;
        within("publish_interval", self.publish_interval, 10, 60_000, "10ms to 60s")?;
        let valid_min_ms = self.publish_interval.as_millis().saturating_mul(2);
        within("valid_for", self.valid_for, valid_min_ms, 600_000, "two publish intervals to 10m")
    }
}

impl Limits {
    fn check(&self) -> Result<(), InvalidConfig> {
        let durations = [("fold_timeout", self.fold_timeout), ("lag_interval", self.lag_interval), ("kafka_timeout", self.kafka_timeout)];
        if let Some((field, _)) = durations.into_iter().find(|(_, duration)| duration.is_zero()) {
            return Err(InvalidConfig::Zero(field));
        }
        match (self.batch_records_max, self.queued_kib_max) {
            (0, _) => Err(InvalidConfig::Zero("batch_records_max")),
            (_, 0) => Err(InvalidConfig::Zero("queued_kib_max")),
            (100_001.., _) => Err(InvalidConfig::BatchTooLarge),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "{pipeline: payments, region: us-east, origins: [eu-west], kafka: {bootstrap_servers: ['k:9092']}, \
         features: {redis: {user: builder, password_file: /etc/fraudpipeline/redis/builder}}";

    fn parse(extra: &str) -> Result<Config, String> {
        serde_yaml::from_str(&format!("{MINIMAL}{extra}}}")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_minimal_file_gets_the_defaults_and_names_its_logs() {
        let config = parse("").unwrap();
        config.check().unwrap();
        let topics: Vec<String> = config.logs().into_iter().map(|log| log.topic).collect();
        assert_eq!(topics, ["fraud.events.raw", "fraud.profiles", "eu-west.fraud.events.raw", "eu-west.fraud.profiles"]);
        assert_eq!((config.features_topic(), config.dead_letter_topic()), ("fraud.features".into(), "fraud.events.dead-letter".into()));
        assert_eq!(serde_yaml::from_str::<Config>(&serde_yaml::to_string(&config).unwrap()).unwrap(), config);
    }

    #[test]
    fn the_full_sample_says_what_the_defaults_are() {
        let sample: Config = serde_yaml::from_str(include_str!("../tests/config.yaml")).unwrap();
        sample.check().unwrap();
        let minimal = parse("").unwrap();
        assert_eq!(Config { origins: sample.origins.clone(), kafka: sample.kafka.clone(), ..minimal }, sample);
    }

    #[test]
    fn what_is_misspelt_or_contradictory_is_named() {
        assert!(parse(", orgins: []").unwrap_err().contains("orgins"));
        assert!(parse(", limits: {batch_wait: 10}").unwrap_err().contains("500ms"));
        let problem = |extra: &str| parse(extra).unwrap().check().unwrap_err().to_string();
        assert!(problem(", topic_prefix: 'a b'").contains("topic_prefix"));
        assert!(problem(", limits: {batch_records_max: 0}").contains("limits.batch_records_max"));
        assert!(problem(", limits: {lag_interval: 0s}").contains("limits.lag_interval"));
        assert!(problem(", freshness: {silence_max: 300ms}").contains("freshness.silence_max: must be from two heartbeat intervals"));
        let own = Config { origins: vec![RegionName::new("us-east").unwrap()], ..parse("").unwrap() };
        assert!(own.check().unwrap_err().to_string().contains("us-east"));
    }
}
