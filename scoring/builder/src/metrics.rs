//! What the builder tells of itself. Labels are bounded: the logs of the configuration and their partitions.

use std::sync::atomic::AtomicU64;

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

use crate::lag::Standings;

/// Not measured. Prometheus shows it as NaN, and no alert takes it for 0.
const UNKNOWN: f64 = f64::NAN;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    topic: String,
    partition: i32,
}

type FloatGauge = Gauge<f64, AtomicU64>;

#[derive(Clone)]
pub(crate) struct Metrics {
    lag_records: Family<PartitionLabel, FloatGauge>,
    lag_ms: Family<PartitionLabel, FloatGauge>,
    feature_lag_ms: FloatGauge,
    folding: Gauge,
    folded: Counter,
    already_folded: Counter,
    dead_letters: Counter,
    fold_failures: Counter,
    unpublished: Counter,
    positions_lost: Counter,
    batch_records: Histogram,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self {
            lag_records: Family::default(),
            lag_ms: Family::default(),
            feature_lag_ms: FloatGauge::default(),
            folding: Gauge::default(),
            folded: Counter::default(),
            already_folded: Counter::default(),
            dead_letters: Counter::default(),
            fold_failures: Counter::default(),
            unpublished: Counter::default(),
            positions_lost: Counter::default(),
            batch_records: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
        };
        let builder = registry.sub_registry_with_prefix("builder");
        builder.register("lag_records", "Records of a log that are not folded; NaN when not measured", all.lag_records.clone());
        builder.register("lag_ms", "Age of the oldest event of a log that is not folded; NaN when not measured", all.lag_ms.clone());
        builder.register("feature_lag_ms", "The largest lag_ms; NaN when one of them is not known", all.feature_lag_ms.clone());
        builder.register("folding", "1 while this region is active and its logs are folded", all.folding.clone());
        builder.register("events_folded", "Events folded, repetitions included", all.folded.clone());
        builder.register("events_already_folded", "Mirrored events that their own region had folded", all.already_folded.clone());
        builder.register("dead_letters", "Records that cannot be read, handed to the dead-letter topic", all.dead_letters.clone());
        builder.register("fold_failures", "Batches that a shard did not take and that are tried again", all.fold_failures.clone());
        builder.register("features_unpublished", "Feature updates that Kafka did not acknowledge", all.unpublished.clone());
        builder.register("positions_lost", "Partitions whose position was outside of their log", all.positions_lost.clone());
        builder.register("batch_records", "Records in a batch", all.batch_records.clone());
        all.idle();
        all
    }

    /// This region's logs are not folded here: nothing is measured.
    pub(crate) fn idle(&self) {
        self.folding.set(0);
        self.feature_lag_ms.set(UNKNOWN);
        self.lag_records.clear();
        self.lag_ms.clear();
    }

    pub(crate) fn folding(&self) {
        self.folding.set(1);
    }

    pub(crate) fn lags(&self, standings: &Standings, now_ms: i64) {
        self.feature_lag_ms.set(standings.feature_lag_ms(now_ms).map_or(UNKNOWN, |ms| ms as f64));
        for ((topic, partition), lag) in standings.lags(now_ms) {
            let label = PartitionLabel { topic, partition };
            self.lag_records.get_or_create(&label).set(lag.map_or(UNKNOWN, |lag| lag.records as f64));
            self.lag_ms.get_or_create(&label).set(lag.map_or(UNKNOWN, |lag| lag.lag_ms as f64));
        }
    }

    pub(crate) fn batch(&self, events: usize, already_folded: u64) {
        self.folded.inc_by(u64::try_from(events).unwrap_or(u64::MAX));
        self.already_folded.inc_by(already_folded);
        self.batch_records.observe(events as f64);
    }

    pub(crate) fn dead_letter(&self) {
        self.dead_letters.inc();
    }

    pub(crate) fn fold_failure(&self) {
        self.fold_failures.inc();
    }

    pub(crate) fn unpublished(&self, count: u64) {
        self.unpublished.inc_by(count);
    }

    pub(crate) fn position_lost(&self) {
        self.positions_lost.inc();
    }
}
