//! What a mirror counts. A lag that is not known has no series, so that nobody takes it for zero.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use replicator_core::LinkState;

use crate::view::View;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabel {
    origin: String,
    topic: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    origin: String,
    topic: String,
    partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    origin: String,
    state: String,
}

#[derive(Clone)]
pub(crate) struct Metrics {
    origin: String,
    records: Family<TopicLabel, Counter>,
    bytes: Family<TopicLabel, Counter>,
    came_home: Gauge,
    lag_records: Family<PartitionLabel, Gauge>,
    lag_ms: Family<PartitionLabel, Gauge>,
    lag_objective_ms: Gauge,
    state: Family<StateLabel, Gauge>,
    commit_seconds: Histogram,
    restarts: Counter,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry, origin: &str, lag_objective: Duration) -> Self {
        let all = Self {
            origin: origin.to_owned(),
            records: Family::default(),
            bytes: Family::default(),
            came_home: Gauge::default(),
            lag_records: Family::default(),
            lag_ms: Family::default(),
            lag_objective_ms: Gauge::default(),
            state: Family::default(),
            // From a millisecond to 16 s.
            commit_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            restarts: Counter::default(),
        };
        all.lag_objective_ms.set(i64::try_from(lag_objective.as_millis()).unwrap_or(i64::MAX));
        let mirror = registry.sub_registry_with_prefix("mirror");
        mirror.register("records", "Records mirrored, committed", all.records.clone());
        mirror.register("bytes", "Bytes of keys and values mirrored, committed", all.bytes.clone());
        mirror.register("came_home_records", "Records not mirrored because this cluster wrote them first", all.came_home.clone());
        mirror.register(
            "lag_records",
            "Offsets behind the origin's committed end, by partition; absent when not known",
            all.lag_records.clone(),
        );
        mirror.register("lag_ms", "Time behind the origin, by partition; absent when not known", all.lag_ms.clone());
        mirror.register("lag_objective_ms", "Lag that is allowed", all.lag_objective_ms.clone());
        mirror.register("state", "1 for the state that the mirror is in", all.state.clone());
        mirror.register("commit_seconds", "Time to acknowledge and commit a transaction", all.commit_seconds.clone());
        mirror.register("restarts", "Times that the connection was made anew", all.restarts.clone());
        all
    }

    pub(crate) fn mirrored(&self, topic: &str, records: u64, bytes: u64) {
        let label = TopicLabel { origin: self.origin.clone(), topic: topic.to_owned() };
        self.records.get_or_create(&label).inc_by(records);
        self.bytes.get_or_create(&label).inc_by(bytes);
    }

    pub(crate) fn committed(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn restarted(&self) {
        self.restarts.inc();
    }

    pub(crate) fn show(&self, view: &View) {
        for state in LinkState::ALL {
            let label = StateLabel { origin: self.origin.clone(), state: state.to_string() };
            self.state.get_or_create(&label).set(i64::from(*state == view.state));
        }
        self.came_home.set(i64::try_from(view.came_home_records).unwrap_or(i64::MAX));
        for partition in &view.partitions {
            let label = PartitionLabel { origin: self.origin.clone(), topic: partition.topic.clone(), partition: partition.partition };
            set_if_fresh(&self.lag_records, &label, partition.lag_records.fresh());
            set_if_fresh(&self.lag_ms, &label, partition.lag_ms.fresh());
        }
        if view.partitions.is_empty() {
            self.lag_records.clear();
            self.lag_ms.clear();
        }
    }
}

fn set_if_fresh(family: &Family<PartitionLabel, Gauge>, label: &PartitionLabel, value: Option<&u64>) {
    match value {
        Some(value) => {
            family.get_or_create(label).set(i64::try_from(*value).unwrap_or(i64::MAX));
        }
        None => {
            family.remove(label);
        }
    }
}
