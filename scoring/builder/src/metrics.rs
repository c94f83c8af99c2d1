//! What the builder tells of itself. Labels are bounded: the logs of the configuration and their partitions.

use std::{collections::BTreeMap, sync::atomic::AtomicU64};

use domain::{Known, RegionName};

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

use crate::{batch::Batch, lag::Standings};

/// Not measured. Prometheus shows it as NaN, and no alert takes it for 0.
const UNKNOWN: f64 = f64::NAN;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    topic: String,
    partition: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OriginLabel {
    origin: String,
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
    passed_over: Counter,
    moved: Counter,
    waiting: Gauge,
    needs_somebody: Gauge,
    heartbeats: Counter,
    heartbeats_unwritten: Counter,
    heartbeats_unreadable: Counter,
    profiles: Counter,
    origin_age_ms: Family<OriginLabel, FloatGauge>,
    untold: Counter,
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
            passed_over: Counter::default(),
            moved: Counter::default(),
            waiting: Gauge::default(),
            needs_somebody: Gauge::default(),
            heartbeats: Counter::default(),
            heartbeats_unwritten: Counter::default(),
            heartbeats_unreadable: Counter::default(),
            profiles: Counter::default(),
            origin_age_ms: Family::default(),
            untold: Counter::default(),
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
        builder.register("batch_records", "Records in a batch", all.batch_records.clone());
        builder.register("offsets_passed_over", "Offsets that were gone from a log and that no window needs", all.passed_over.clone());
        builder.register("shards_moved", "How often a shard stood elsewhere than expected and folding began anew there", all.moved.clone());
        builder.register("waiting_for_shards", "1 while reading is paused because a shard does not take its part", all.waiting.clone());
        builder.register(
            "needs_somebody",
            "1 while folding stands still until somebody restores the shards or accepts a loss",
            all.needs_somebody.clone(),
        );
        builder.register("heartbeats", "Heartbeats handed to Kafka", all.heartbeats.clone());
        builder.register("heartbeats_unwritten", "Heartbeats for which Kafka's client had no room", all.heartbeats_unwritten.clone());
        builder.register(
            "heartbeats_unreadable",
            "Heartbeats in the logs that this version cannot read",
            all.heartbeats_unreadable.clone(),
        );
        builder.register("profile_values_folded", "Batch-loaded values folded, repetitions included", all.profiles.clone());
        builder.register("origin_age_ms", "How old the folded events of a region are; NaN when not known", all.origin_age_ms.clone());
        builder.register("freshness_untold", "Shards that were not told how far the logs are folded", all.untold.clone());
        all.idle();
        all
    }

    /// This region's logs are not folded here: nothing is measured.
    pub(crate) fn idle(&self) {
        self.folding.set(0);
        self.feature_lag_ms.set(UNKNOWN);
        self.lag_records.clear();
        self.lag_ms.clear();
        self.waiting.set(0);
    }

    pub(crate) fn folding(&self) {
        self.folding.set(1);
        self.needs_somebody.set(0);
    }

    pub(crate) fn lags(&self, standings: &Standings, now_ms: i64) {
        self.feature_lag_ms.set(standings.feature_lag_ms(now_ms).map_or(UNKNOWN, |ms| ms as f64));
        for ((topic, partition), lag) in standings.lags(now_ms) {
            let label = PartitionLabel { topic, partition };
            self.lag_records.get_or_create(&label).set(lag.map_or(UNKNOWN, |lag| lag.records as f64));
            self.lag_ms.get_or_create(&label).set(lag.map_or(UNKNOWN, |lag| lag.lag_ms as f64));
        }
    }

    pub(crate) fn batch(&self, batch: &Batch) {
        let (events, profiles) =
            batch.parts.values().fold((0, 0), |(events, profiles), part| (events + part.events.len(), profiles + part.profiles.len()));
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.folded.inc_by(count(events));
        self.profiles.inc_by(count(profiles));
        self.already_folded.inc_by(batch.already_folded);
        self.heartbeats_unreadable.inc_by(batch.unreadable_heartbeats);
        self.batch_records.observe(batch.records as f64);
    }

    pub(crate) fn unreadable_heartbeats(&self, count: u64) {
        self.heartbeats_unreadable.inc_by(count);
    }

    pub(crate) fn heartbeat(&self, queued: bool) {
        if queued {
            self.heartbeats.inc()
        } else {
            self.heartbeats_unwritten.inc()
        };
    }

    pub(crate) fn ages(&self, ages: &BTreeMap<RegionName, Known<u64>>) {
        for (region, age) in ages {
            let label = OriginLabel { origin: region.to_string() };
            self.origin_age_ms.get_or_create(&label).set(age.fresh().map_or(UNKNOWN, |ms| *ms as f64));
        }
    }

    pub(crate) fn untold(&self, shards: usize) {
        self.untold.inc_by(u64::try_from(shards).unwrap_or(u64::MAX));
    }

    pub(crate) fn waiting(&self, waits: bool) {
        self.waiting.set(i64::from(waits));
    }

    pub(crate) fn needs_somebody(&self, needs: bool) {
        self.needs_somebody.set(i64::from(needs));
    }

    pub(crate) fn moved(&self) {
        self.moved.inc();
    }

    pub(crate) fn passed_over(&self, offsets: u64) {
        self.passed_over.inc_by(offsets);
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
}
