//! Whether this region's Kafka has the pipeline's topics, and making them. Topics are never deleted or shrunk.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crds::{FraudPipelineSpec, region::RegionSpec};
use domain::{
    Known,
    topics::{Topic, dead_letters, mirror_positions, mirror_runs},
};
use kafka::{Admin, ClientTuning, KafkaConfig, KafkaMetrics, TopicOutcome, TopicSpec};
use operator_planner::TopicsState;
use tokio::sync::Mutex;

/// A partition for each region that a pipeline can have, and one for a region that comes while another goes.
const POSITIONS_PARTITIONS: u32 = 8;
/// A pass must not wait longer for a Kafka that is away: objects that were deleted are to be back within seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Topics that are there are looked at again after this time, a Kafka that does not answer after the shorter one.
const GOOD_FOR: Duration = Duration::from_secs(60);
const BAD_FOR: Duration = Duration::from_secs(5);
/// What of a region's log cannot be read any more cannot be mapped either: longer than mirrored topics are kept.
const RUNS_RETENTION_MS: u64 = 30 * 24 * 3600 * 1000;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TopicError {
    #[error("Kafka {servers}: {source}")]
    Kafka { servers: String, source: kafka::AdminError },
    #[error("Kafka {servers} did not answer in time")]
    Late { servers: String },
    #[error("topic {name}: {why}")]
    Refused { name: String, why: String },
}

/// Connections to the regions' own Kafkas, kept between passes, with what was last seen.
pub(crate) struct Topics {
    metrics: KafkaMetrics,
    seen: Mutex<BTreeMap<String, Seen>>,
}

struct Seen {
    admin: Admin,
    at: Instant,
    state: Result<TopicsState, String>,
}

impl Topics {
    pub(crate) fn new(metrics: KafkaMetrics) -> Self {
        Self { metrics, seen: Mutex::default() }
    }

    pub(super) async fn look(&self, namespace: &str, spec: &FraudPipelineSpec, region: &RegionSpec, now_ms: u64) -> Known<TopicsState> {
        let key = key(namespace, spec, region);
        if let Some(known) = self.recent(&key).await {
            return known_state(known, now_ms);
        }
        let state = self.ask(&key, spec, region).await.map_err(|error| error.to_string());
        known_state(state, now_ms)
    }

    /// Makes the topics what they should be.
    ///
    /// # Errors
    /// When Kafka does not answer, or refuses one of them.
    pub(crate) async fn ensure(&self, namespace: &str, spec: &FraudPipelineSpec, region: &RegionSpec) -> Result<(), TopicError> {
        let admin = self.admin(region).await?;
        let servers = servers(region);
        let wanted = wanted(spec);
        let reports = admin.ensure_topics(&wanted).await.map_err(|source| TopicError::Kafka { servers: servers.clone(), source })?;
        self.seen.lock().await.remove(&key(namespace, spec, region));
        for report in reports {
            match report.outcome {
                TopicOutcome::Failed { why } => return Err(TopicError::Refused { name: report.name, why }),
                TopicOutcome::Unchanged => {}
                changed => tracing::info!(topic = report.name, ?changed, "topic"),
            }
        }
        Ok(())
    }

    async fn recent(&self, key: &str) -> Option<Result<TopicsState, String>> {
        let all = self.seen.lock().await;
        let seen = all.get(key)?;
        let good = if seen.state == Ok(TopicsState::Ready) { GOOD_FOR } else { BAD_FOR };
        (seen.at.elapsed() < good).then(|| seen.state.clone())
    }

    async fn ask(&self, key: &str, spec: &FraudPipelineSpec, region: &RegionSpec) -> Result<TopicsState, TopicError> {
        let kept = self.seen.lock().await.get(key).map(|seen| seen.admin.clone());
        let admin = match kept {
            Some(admin) => admin,
            None => self.admin(region).await?,
        };
        let servers = servers(region);
        let counts = match tokio::time::timeout(ANSWER_WITHIN, admin.partition_counts()).await {
            Ok(counts) => counts.map_err(|source| TopicError::Kafka { servers, source }),
            Err(_) => Err(TopicError::Late { servers }),
        };
        let state = counts.map(|counts| judge(spec, &counts));
        let remembered = state.as_ref().map(Clone::clone).map_err(ToString::to_string);
        self.seen.lock().await.insert(key.to_owned(), Seen { admin, at: Instant::now(), state: remembered });
        state
    }

    async fn admin(&self, region: &RegionSpec) -> Result<Admin, TopicError> {
        let servers = region.kafka.iter().flat_map(|kafka| &kafka.bootstrap_servers).map(|server| server.as_str().to_owned());
        let config = KafkaConfig { bootstrap_servers: servers.collect(), tls: None, sasl: None, client: ClientTuning::default() };
        let admin = Admin::new(&config, "fraud-operator", &self.metrics);
        admin.map_err(|error| TopicError::Kafka { servers: self::servers(region), source: error.into() })
    }
}

fn key(namespace: &str, spec: &FraudPipelineSpec, region: &RegionSpec) -> String {
    format!("{namespace}/{}/{}/{}", spec.kafka.topic_prefix, spec.kafka.partitions, servers(region))
}

fn servers(region: &RegionSpec) -> String {
    let servers: Vec<_> = region.kafka.iter().flat_map(|kafka| &kafka.bootstrap_servers).map(|server| server.as_str()).collect();
    servers.join(",")
}

fn known_state(state: Result<TopicsState, String>, seen_at_ms: u64) -> Known<TopicsState> {
    match state {
        Ok(value) => Known::Fresh { value, seen_at_ms },
        Err(why) => Known::unknown(why),
    }
}

/// The topics that this region's pipeline writes. Mirrors make their copies of other regions' topics themselves.
fn wanted(spec: &FraudPipelineSpec) -> Vec<TopicSpec> {
    let prefix = &spec.kafka.topic_prefix;
    let partitions = u32::try_from(spec.kafka.partitions).unwrap_or(1);
    let topic = |name: String, partitions: u32, config: &[(&str, String)]| TopicSpec {
        name,
        partitions,
        replication: None,
        config: config.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect(),
    };
    let mut topics: Vec<_> = Topic::MIRRORED.iter().map(|own| topic(own.local(prefix), partitions, &[])).collect();
    topics.push(topic(dead_letters(prefix), 1, &[]));
    if spec.regions.iter().filter(|region| region.runs_the_data_plane()).count() > 1 {
        topics.push(topic(mirror_positions(prefix), POSITIONS_PARTITIONS, &[("cleanup.policy", "compact".into())]));
        let kept = [("cleanup.policy", "delete".to_owned()), ("retention.ms", RUNS_RETENTION_MS.to_string())];
        topics.push(topic(mirror_runs(prefix), POSITIONS_PARTITIONS, &kept));
    }
    topics
}

fn judge(spec: &FraudPipelineSpec, counts: &BTreeMap<String, u32>) -> TopicsState {
    let short = |topic: &TopicSpec| counts.get(&topic.name).is_none_or(|count| *count < topic.partitions);
    let missing: Vec<String> = wanted(spec).into_iter().filter(short).map(|topic| topic.name).collect();
    match (missing.is_empty(), spec.kafka.manage_topics) {
        (true, _) => TopicsState::Ready,
        (false, true) => TopicsState::Missing(missing),
        (false, false) => TopicsState::MissingUnmanaged(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example;

    #[test]
    fn topics_are_ready_when_all_have_at_least_their_partitions() {
        let spec = example().spec;
        let mut counts: BTreeMap<_, _> = wanted(&spec).into_iter().map(|topic| (topic.name, topic.partitions)).collect();
        assert_eq!(judge(&spec, &counts), TopicsState::Ready);
        counts.insert("fraud.labels".into(), 99);
        assert_eq!(judge(&spec, &counts), TopicsState::Ready, "more partitions than asked for are kept");
        counts.insert("fraud.labels".into(), 1);
        counts.remove("fraud.mirror.positions");
        let missing = vec!["fraud.labels".to_string(), "fraud.mirror.positions".to_string()];
        assert_eq!(judge(&spec, &counts), TopicsState::Missing(missing.clone()));
        let mut unmanaged = spec;
        unmanaged.kafka.manage_topics = false;
        assert_eq!(judge(&unmanaged, &counts), TopicsState::MissingUnmanaged(missing));
    }

    #[test]
    fn a_single_region_needs_no_bookkeeping_of_mirrors() {
        let mut spec = example().spec;
        spec.regions.truncate(1);
        assert!(wanted(&spec).iter().all(|topic| !topic.name.contains("mirror")));
    }
}
