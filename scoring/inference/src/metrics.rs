//! What the service counts. Labels come from fixed lists, except the digest of the model in service.

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

use crate::{config::ModelConfig, models::Models};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    name: String,
    version: String,
    sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<OutcomeLabel, Counter>,
    rows: Counter,
    request_seconds: Histogram,
    run_seconds: Histogram,
    pub(crate) queued: Gauge,
    model: Family<ModelLabel, Gauge>,
    wanted_in_service: Gauge,
    load_failures: Family<ReasonLabel, Counter>,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        // From 50 microseconds to 1.6 s.
        let seconds = || Histogram::new(exponential_buckets(0.000_05, 2.0, 16));
        let all = Self {
            requests: Family::default(),
            rows: Counter::default(),
            request_seconds: seconds(),
            run_seconds: seconds(),
            queued: Gauge::default(),
            model: Family::default(),
            wanted_in_service: Gauge::default(),
            load_failures: Family::default(),
        };
        let inference = registry.sub_registry_with_prefix("inference");
        inference.register("requests", "Inference requests by outcome", all.requests.clone());
        inference.register("rows", "Rows scored", all.rows.clone());
        inference.register("request_seconds", "Time from a request's arrival to its answer", all.request_seconds.clone());
        inference.register("run_seconds", "Time that the model itself took", all.run_seconds.clone());
        inference.register("queued_requests", "Requests that wait for a thread", all.queued.clone());
        inference.register("model_info", "The model in service", all.model.clone());
        inference.register(
            "wanted_model_in_service",
            "1 when the model in service is the one that the configuration names",
            all.wanted_in_service.clone(),
        );
        inference.register("model_load_failures", "Attempts to load a model that failed", all.load_failures.clone());
        all
    }

    pub(crate) fn answered(&self, outcome: &'static str, rows: usize, after: Duration) {
        self.requests.get_or_create(&OutcomeLabel { outcome }).inc();
        self.rows.inc_by(rows as u64);
        self.request_seconds.observe(after.as_secs_f64());
    }

    pub(crate) fn ran(&self, took: Duration) {
        self.run_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn load_failed(&self, reason: &'static str) {
        self.load_failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn in_service(&self, models: &Models, wanted: &ModelConfig) {
        self.model.clear();
        if let Some(model) = models.current() {
            let (name, version, sha256) = (model.name.clone(), model.manifest.version.clone(), model.sha256.clone());
            self.model.get_or_create(&ModelLabel { name, version, sha256 }).set(1);
        }
        self.wanted_in_service.set(i64::from(models.is_in_service(wanted)));
    }
}
