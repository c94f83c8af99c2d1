//! What the store tells of itself. Labels are bounded: shards of a plan (at most 1,024), kinds and causes from fixed lists.

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
use redis::Value;
use scoring_core::event::EntityKind;

use crate::{fold::FoldCounts, health::BreakerState, link::error_code};

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
    /// The process has restarted and has not got its data back: it knows nobody.
    Empty,
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
            Self::Empty => "empty",
            Self::Refused => "refused",
        }
    }

    /// Of an answer that is not what was asked for.
    pub(crate) fn of(answer: &Value) -> Self {
        match error_code(answer) {
            Some("READONLY") => Self::ReadOnly,
            Some("OOM") => Self::OutOfMemory,
            _ => Self::Refused,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IndexLabel {
    shard: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// What is done about a shard that is slow or silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relief {
    /// Its replica was asked too.
    Hedged,
    /// The replica was faster.
    HedgeWon,
    /// Its replica was asked instead.
    StandIn,
    /// A profile that this process remembered was used.
    Cached,
}

impl Relief {
    fn name(self) -> &'static str {
        match self {
            Self::Hedged => "hedged",
            Self::HedgeWon => "hedge_won",
            Self::StandIn => "stand_in",
            Self::Cached => "cached",
        }
    }
}

/// Figures of one process's feature store. Clones count together.
#[derive(Debug, Clone)]
pub struct FeatureMetrics {
    round_trips: Family<ShardLabel, Histogram>,
    failures: Family<FailureLabel, Counter>,
    saturated: Family<KindLabel, Counter>,
    over_long: Family<KindLabel, Counter>,
    unreadable: Counter,
    folded: Family<OutcomeLabel, Counter>,
    connections: Family<FailureLabel, Counter>,
    breakers: Family<IndexLabel, Gauge>,
    reliefs: Family<FailureLabel, Counter>,
    cached_profiles: Gauge,
}

impl Default for FeatureMetrics {
    fn default() -> Self {
        Self {
            // From 50 us to 1.6 s.
            round_trips: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_05, 2.0, 16))),
            failures: Family::default(),
            saturated: Family::default(),
            over_long: Family::default(),
            unreadable: Counter::default(),
            folded: Family::default(),
            connections: Family::default(),
            breakers: Family::default(),
            reliefs: Family::default(),
            cached_profiles: Gauge::default(),
        }
    }
}

impl FeatureMetrics {
    /// Metrics that `registry` shows, under names that start with `feature_store_`.
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let store = registry.sub_registry_with_prefix("feature_store");
        store.register("round_trip_seconds", "Time of one question to a shard, or of one folding", all.round_trips.clone());
        store.register("failures", "Questions, or writes in them, that a shard did not do", all.failures.clone());
        store.register("saturated_values", "Values read that hold more events than are kept", all.saturated.clone());
        store.register("over_long_values", "Values read that are so long that nothing is appended for a second", all.over_long.clone());
        store.register("unreadable_slots", "Slots of values that this version cannot decode", all.unreadable.clone());
        store.register("folded_records", "Records by what became of them, each once for each entity", all.folded.clone());
        store.register("connection_failures", "Connections to shards that failed or broke", all.connections.clone());
        store.register("breaker_state", "0: everybody asks the shard, 1: a few find out, 2: it is left alone", all.breakers.clone());
        store.register("reliefs", "What was done about shards that were slow or silent", all.reliefs.clone());
        store.register("cached_profiles", "Users whose profile this process remembers", all.cached_profiles.clone());
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

    pub(crate) fn relief(&self, shard: u16, relief: Relief) {
        self.reliefs.get_or_create(&FailureLabel { shard: shard.into(), cause: relief.name() }).inc();
    }

    pub(crate) fn breaker(&self, shard: u16, state: BreakerState) {
        let number = match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        self.breakers.get_or_create(&IndexLabel { shard: shard.into() }).set(number);
    }

    pub(crate) fn saturated(&self, kind: EntityKind) {
        self.saturated.get_or_create(&KindLabel { entity: kind.name() }).inc();
    }

    pub(crate) fn over_long(&self, kind: EntityKind) {
        self.over_long.get_or_create(&KindLabel { entity: kind.name() }).inc();
    }

    pub(crate) fn unreadable(&self, count: u32) {
        if count > 0 {
            self.unreadable.inc_by(count.into());
        }
    }

    pub(crate) fn folded(&self, counts: FoldCounts) {
        let all = [
            ("late", counts.late),
            ("expired", counts.expired),
            ("duplicate", counts.duplicates),
            ("differing", counts.differing),
            ("dropped", counts.dropped),
        ];
        for (outcome, count) in all {
            self.folded.get_or_create(&OutcomeLabel { outcome }).inc_by(count);
        }
        self.unreadable.inc_by(counts.unreadable);
    }

    pub(crate) fn cached_profiles(&self, count: usize) {
        self.cached_profiles.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
