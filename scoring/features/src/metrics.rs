//! What the store tells of itself. Labels are bounded: shards of a plan (at most 1,024), kinds and causes from fixed lists.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use scoring_core::event::EntityKind;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ShardLabel {
    shard: u32,
    operation: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabel {
    shard: u32,
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    entity: &'static str,
}

/// Why a shard did not do what it was asked. A fixed list: it is a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// No connection: reconnecting goes on in the background.
    Disconnected,
    TimedOut,
    /// The shard is a replica: promoted elsewhere, or not yet promoted here.
    ReadOnly,
    /// The shard is at its memory limit.
    OutOfMemory,
    /// Anything else that the shard answered.
    Refused,
}

impl Cause {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::TimedOut => "timed_out",
            Self::ReadOnly => "read_only",
            Self::OutOfMemory => "out_of_memory",
            Self::Refused => "refused",
        }
    }

    pub(crate) fn of(error: &redis::RedisError) -> Self {
        match error.code() {
            Some("READONLY") => Self::ReadOnly,
            Some("OOM") => Self::OutOfMemory,
            _ if error.is_timeout() => Self::TimedOut,
            _ if error.is_unrecoverable_error() => Self::Disconnected,
            _ => Self::Refused,
        }
    }
}

/// Figures of one process's feature store. Clones count together.
#[derive(Debug, Clone)]
pub struct FeatureMetrics {
    round_trips: Family<ShardLabel, Histogram>,
    failures: Family<FailureLabel, Counter>,
    saturated: Family<KindLabel, Counter>,
    unreadable: Counter,
    expired: Counter,
    connections: Family<FailureLabel, Counter>,
}

impl Default for FeatureMetrics {
    fn default() -> Self {
        Self {
            // From 50 us to 1.6 s.
            round_trips: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 16))),
            failures: Family::default(),
            saturated: Family::default(),
            unreadable: Counter::default(),
            expired: Counter::default(),
            connections: Family::default(),
        }
    }
}

impl FeatureMetrics {
    /// Metrics that `registry` shows, under names that start with `feature_store_`.
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let store = registry.sub_registry_with_prefix("feature_store");
        store.register("round_trip_seconds", "Time of one pipelined round trip to a shard", all.round_trips.clone());
        store.register("failures", "Round trips, or writes in them, that a shard did not do", all.failures.clone());
        store.register("saturated_sets", "Sets read that hold more events than are kept", all.saturated.clone());
        store.register("unreadable_members", "Members of sets that this version cannot decode", all.unreadable.clone());
        store.register("expired_events", "Events that were older than the longest window when they were to be folded", all.expired.clone());
        store.register("connection_failures", "Connections to shards that failed or broke", all.connections.clone());
        all
    }

    pub(crate) fn round_trip(&self, shard: u16, operation: &'static str, took: Duration) {
        self.round_trips.get_or_create(&ShardLabel { shard: shard.into(), operation }).observe(took.as_secs_f64());
    }

    pub(crate) fn failure(&self, shard: u16, cause: Cause) {
        self.failures.get_or_create(&FailureLabel { shard: shard.into(), cause: cause.name() }).inc();
    }

    pub(crate) fn connection_failure(&self, shard: u16, cause: &'static str) {
        self.connections.get_or_create(&FailureLabel { shard: shard.into(), cause }).inc();
    }

    pub(crate) fn saturated(&self, kind: EntityKind) {
        self.saturated.get_or_create(&KindLabel { entity: kind.name() }).inc();
    }

    pub(crate) fn unreadable(&self, count: u64) {
        self.unreadable.inc_by(count);
    }

    pub(crate) fn expired(&self, count: u64) {
        self.expired.inc_by(count);
    }
}
