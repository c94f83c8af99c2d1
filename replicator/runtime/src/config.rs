//! The file that `--config` names: one mirror, from one origin region into this one. The operator renders it. Does no IO.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use domain::{
    PipelineName, RegionName,
    topics::{Topic, mirror_positions, mirrored_name},
};
use kafka::KafkaConfig;
use serde::{Deserialize, Serialize};

/// Partitions of the positions topic: more than a pipeline can have regions.
pub const POSITIONS_PARTITIONS: u32 = 8;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub pipeline: PipelineName,
    /// The region in which this process runs and to which it writes.
    pub region: RegionName,
    /// The region whose topics are pulled.
    pub origin: RegionName,
    /// The origin's Kafka.
    pub source: KafkaConfig,
    /// This region's Kafka.
    pub target: KafkaConfig,
    /// `spec.kafka.topicPrefix`: `fraud` mirrors `fraud.events.raw` and the other topics of the pipeline.
    pub topic_prefix: String,
    /// `spec.mirror.additionalTopics`: mirrored as well, by their full names at the origin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub additional_topics: Vec<String>,
    /// The partition of `<prefix>.mirror.positions` that this mirror alone writes: the origin's place in `spec.regions`.
    pub positions_partition: u32,
    /// `spec.mirror.lagObjective`: more than this is shown as `Lagging`.
    #[serde(with = "domain::duration", default = "lag_objective")]
    pub lag_objective: Duration,
    #[serde(default)]
    pub limits: Limits,
    /// `/livez`, `/readyz`, `/metrics`, `/positions`.
    #[serde(default = "admin")]
    pub admin: SocketAddr,
    /// Most time between SIGTERM and the end: the open transaction is committed.
    #[serde(with = "domain::duration", default = "shutdown_grace")]
    pub shutdown_grace: Duration,
}

/// What bounds memory and delay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A transaction is committed after this time at the latest; readers of committed records see it then.
    #[serde(with = "domain::duration")]
    pub transaction_interval: Duration,
    /// Or after so many records.
    pub transaction_records_max: u32,
    /// Or after so many KiB of keys, values and headers.
    pub transaction_kib_max: u32,
    /// Fetched records that wait to be written, for each partition of the origin.
    pub queued_kib_max: u32,
    /// How often topics, their partition counts and settings are compared with the origin's.
    #[serde(with = "domain::duration")]
    pub topic_sync_interval: Duration,
    /// How often the end of the origin's log is measured.
    #[serde(with = "domain::duration")]
    pub lag_interval: Duration,
    /// A target that does not take a transaction within this time counts as unreachable.
    #[serde(with = "domain::duration")]
    pub commit_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transaction_interval: Duration::from_millis(100),
            transaction_records_max: 10_000,
            transaction_kib_max: 16 * 1024,
            queued_kib_max: 1024,
            topic_sync_interval: Duration::from_secs(10),
            lag_interval: Duration::from_secs(1),
            commit_timeout: Duration::from_secs(15),
        }
    }
}

fn lag_objective() -> Duration {
    Duration::from_secs(1)
}

fn admin() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 9090))
}

fn shutdown_grace() -> Duration {
    Duration::from_secs(25)
}

/// A field with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    pub field: &'static str,
    pub problem: String,
}

impl Config {
    /// The origin's topics that are mirrored, without doubles.
    pub fn topics(&self) -> BTreeSet<String> {
        let own = Topic::MIRRORED.iter().map(|topic| topic.local(&self.topic_prefix));
        own.chain(self.additional_topics.iter().cloned()).collect()
    }

    /// The name that a topic of the origin has here.
    pub fn mirrored(&self, topic: &str) -> String {
        mirrored_name(&self.origin, topic)
    }

    pub fn positions_topic(&self) -> String {
        mirror_positions(&self.topic_prefix)
    }

    /// Stable, and different for each mirror: whoever starts with it ends the transactions of whoever had it before.
    pub fn transactional_id(&self) -> String {
        format!("{}.mirror.{}.0", self.topic_prefix, self.origin)
    }

    /// # Errors
    /// When a field has a value that cannot work.
    pub fn check(&self) -> Result<(), InvalidField> {
        if self.origin == self.region {
            return Err(invalid("origin", "a region does not mirror itself: name another region"));
        }
        if self.positions_partition >= POSITIONS_PARTITIONS {
            return Err(invalid("positions_partition", &format!("must be below {POSITIONS_PARTITIONS}")));
        }
        for topic in self.topics() {
            check_topic(&topic)?;
            if topic.starts_with(&format!("{}.", self.region)) {
                return Err(invalid(
                    "additional_topics",
                    &format!("{topic} is a mirror of this region's own topic: records would go in a circle"),
                ));
            }
        }
        self.limits.check()
    }
}

impl Limits {
    fn check(&self) -> Result<(), InvalidField> {
        let intervals = [
            ("limits.transaction_interval", self.transaction_interval),
            ("limits.topic_sync_interval", self.topic_sync_interval),
            ("limits.lag_interval", self.lag_interval),
            ("limits.commit_timeout", self.commit_timeout),
        ];
        if let Some((field, _)) = intervals.into_iter().find(|(_, interval)| interval.is_zero()) {
            return Err(invalid(field, "must be more than 0ms"));
        }
        let counts = [
            ("limits.transaction_records_max", self.transaction_records_max),
            ("limits.transaction_kib_max", self.transaction_kib_max),
            ("limits.queued_kib_max", self.queued_kib_max),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((field, _)) => Err(invalid(field, "must be at least 1")),
            None => Ok(()),
        }
    }
}

/// Kafka's own rule, minus room for the origin's name in front.
fn check_topic(topic: &str) -> Result<(), InvalidField> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if topic.is_empty() || topic.len() > 200 || !topic.bytes().all(plain) {
        let shown: String = topic.chars().take(64).collect();
        return Err(invalid("additional_topics", &format!("{shown:?} is no topic name: use 1 to 200 letters, digits, '-', '_' and '.'")));
    }
    Ok(())
}

fn invalid(field: &'static str, problem: &str) -> InvalidField {
    InvalidField { field, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = include_str!("../tests/config.yaml");

    #[test]
    fn the_full_sample_is_read_and_written_without_loss() {
        let config: Config = serde_yaml::from_str(FULL).unwrap();
        config.check().unwrap();
        let again: Config = serde_yaml::from_str(&serde_yaml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn names_carry_the_prefix_so_that_two_pipelines_can_share_a_cluster() {
        let config: Config = serde_yaml::from_str(FULL).unwrap();
        assert_eq!(config.transactional_id(), "fraud.mirror.us-east.0");
        assert_eq!(config.positions_topic(), "fraud.mirror.positions");
        assert_eq!(config.mirrored("fraud.events.raw"), "us-east.fraud.events.raw");
        assert!(config.topics().contains("fraud.labels") && config.topics().contains("chargebacks"));
    }

    #[test]
    fn a_mirror_that_would_go_in_a_circle_is_refused() {
        let wrong = |change: fn(&mut Config)| {
            let mut config: Config = serde_yaml::from_str(FULL).unwrap();
            change(&mut config);
            config.check().unwrap_err().field
        };
        assert_eq!(wrong(|config| config.additional_topics = vec!["eu-west.fraud.events.raw".into()]), "additional_topics");
        assert_eq!(wrong(|config| config.origin = config.region.clone()), "origin");
        assert_eq!(wrong(|config| config.positions_partition = 8), "positions_partition");
        assert_eq!(wrong(|config| config.additional_topics = vec!["a b".into()]), "additional_topics");
        assert_eq!(wrong(|config| config.limits.commit_timeout = Duration::ZERO), "limits.commit_timeout");
    }
}
