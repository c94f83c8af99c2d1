//! What the operator counts. Labels are from fixed sets; no name of a user's object becomes one, except a pipeline's own.

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PipelineLabel {
    namespace: String,
    pipeline: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    verb: &'static str,
    kind: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabel {
    action: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RoleLabel {
    namespace: String,
    pipeline: String,
    role: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InvariantLabel {
    invariant: String,
}

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    reconciles: Family<ResultLabel, Counter>,
    reconcile_seconds: Histogram,
    stage_errors: Family<StageLabel, Counter>,
    api_requests: Family<RequestLabel, Counter>,
    actions: Family<ActionLabel, Counter>,
    status_deferred: Counter,
    epoch: Family<PipelineLabel, Gauge>,
    revision: Family<PipelineLabel, Gauge>,
    shards: Family<RoleLabel, Gauge>,
    invariants: Family<InvariantLabel, Counter>,
    leader: Gauge,
}

/// What a shard's process may be seen as.
pub(crate) const SHARD_ROLES: [&str; 6] = ["primary", "following", "held", "nowhere", "gone", "unknown"];

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let all = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
            stage_errors: Family::default(),
            api_requests: Family::default(),
            actions: Family::default(),
            status_deferred: Counter::default(),
            epoch: Family::default(),
            revision: Family::default(),
            shards: Family::default(),
            invariants: Family::default(),
            leader: Gauge::default(),
        };
        let operator = registry.sub_registry_with_prefix("fraud_operator");
        operator.register("reconciles", "Passes over a pipeline, by result", all.reconciles.clone());
        operator.register("reconcile_seconds", "Time of a pass", all.reconcile_seconds.clone());
        operator.register("stage_errors", "Passes that ended early, by stage", all.stage_errors.clone());
        operator.register("api_requests", "Requests to the API server, by verb, kind and result", all.api_requests.clone());
        operator.register("actions", "Actions of the plan that were tried, by result", all.actions.clone());
        operator.register("status_deferred", "Times that a status was not written yet, to write less often", all.status_deferred.clone());
        operator.register("plan_epoch", "Epoch of the committed plan", all.epoch.clone());
        operator.register("plan_revision", "Revision of the committed plan", all.revision.clone());
        operator.register("shards", "This region's shards, by what they were last seen as", all.shards.clone());
        operator.register("invariant_findings", "Plans that were refused because they would break an invariant", all.invariants.clone());
        operator.register("leader", "1 while this replica acts", all.leader.clone());
        all
    }

    pub(crate) fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ResultLabel { result }).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn stage_failed(&self, stage: &'static str) {
        self.stage_errors.get_or_create(&StageLabel { stage }).inc();
    }

    pub(crate) fn api_request(&self, verb: &'static str, kind: &'static str, result: &'static str) {
        self.api_requests.get_or_create(&RequestLabel { verb, kind, result }).inc();
    }

    pub(crate) fn acted(&self, action: &'static str, succeeded: bool) {
        let result = if succeeded { "done" } else { "failed" };
        self.actions.get_or_create(&ActionLabel { action, result }).inc();
    }

    pub(crate) fn status_deferred(&self) {
        self.status_deferred.inc();
    }

    pub(crate) fn plan(&self, namespace: &str, pipeline: &str, epoch: u64, revision: u64) {
        let label = PipelineLabel { namespace: namespace.to_owned(), pipeline: pipeline.to_owned() };
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.epoch.get_or_create(&label).set(signed(epoch));
        self.revision.get_or_create(&label).set(signed(revision));
    }

    /// How many shards were seen in each role.
    pub(crate) fn shards(&self, namespace: &str, pipeline: &str, seen: &[&'static str]) {
        for role in SHARD_ROLES {
            let label = RoleLabel { namespace: namespace.to_owned(), pipeline: pipeline.to_owned(), role };
            let count = seen.iter().filter(|found| **found == role).count();
            self.shards.get_or_create(&label).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A pipeline that is gone has no figures.
    pub(crate) fn forget(&self, namespace: &str, pipeline: &str) {
        let label = PipelineLabel { namespace: namespace.to_owned(), pipeline: pipeline.to_owned() };
        self.epoch.remove(&label);
        self.revision.remove(&label);
        for role in SHARD_ROLES {
            self.shards.remove(&RoleLabel { namespace: namespace.to_owned(), pipeline: pipeline.to_owned(), role });
        }
    }

    pub(crate) fn invariant(&self, invariant: Option<domain::InvariantId>) {
        let invariant = invariant.map_or_else(|| "none".to_owned(), |invariant| format!("{invariant:?}"));
        self.invariants.get_or_create(&InvariantLabel { invariant }).inc();
    }

    pub(crate) fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }
}
