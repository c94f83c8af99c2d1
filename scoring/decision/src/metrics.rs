//! What Prometheus sees of the decisions. Labels come from fixed lists and from rule ids (bounded by the rule limits).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use proto::fraud::v1::{AuthorityState, Degradation, Durability, FeatureState, InferenceState, RuleState, Tier, Verdict};

use domain::RegionName;
use scoring_core::{
    decide,
    freshness::{Completeness, OriginData},
};

use crate::{
    freshness::{self, View},
    latency::LatencyWindow,
    rules::{Hits, RuleSet},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabel {
    verdict: &'static str,
    tier: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DegradationLabel {
    dimension: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabel {
    rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OriginLabel {
    origin: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WindowLabel {
    window: String,
    state: &'static str,
}

/// Every state that a window may have: each is a series, so that one that ends is seen to end.
const WINDOW_STATES: [Completeness; 4] = [Completeness::Complete, Completeness::Incomplete, Completeness::Unknown, Completeness::Missing];

pub struct Metrics {
    origin_age_ms: Family<OriginLabel, Gauge<f64, AtomicU64>>,
    window_states: Family<WindowLabel, Gauge>,
    freshness_warned: Gauge,
    decisions: Family<DecisionLabel, Counter>,
    degraded: Family<DegradationLabel, Counter>,
    refused: Family<ReasonLabel, Counter>,
    inference_failures: Family<ReasonLabel, Counter>,
    features_not_whole: Counter,
    shed: Counter,
    inflight: Gauge,
    request: Histogram,
    stages: Family<StageLabel, Histogram>,
    rule_hits: Family<RuleLabel, Counter>,
    rule_errors: Counter,
    rules_last_good: Gauge,
    known_rules: Mutex<BTreeSet<String>>,
    window: LatencyWindow,
    p99: Gauge<f64, AtomicU64>,
}

/// From half a millisecond to ten seconds.
fn seconds() -> Histogram {
    Histogram::new([0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 10.0])
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            origin_age_ms: Family::default(),
            window_states: Family::default(),
            freshness_warned: Gauge::default(),
            decisions: Family::default(),
            degraded: Family::default(),
            refused: Family::default(),
            inference_failures: Family::default(),
            features_not_whole: Counter::default(),
            shed: Counter::default(),
            inflight: Gauge::default(),
            request: seconds(),
            stages: Family::new_with_constructor(seconds),
            rule_hits: Family::default(),
            rule_errors: Counter::default(),
            rules_last_good: Gauge::default(),
            known_rules: Mutex::default(),
            window: LatencyWindow::default(),
            p99: Gauge::default(),
        }
    }
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        // The HPA of the manifest asks for this name.
        registry.register(
            "request_latency_p99",
            "99th percentile of the time to a decision over the last 30 s, in seconds",
            all.p99.clone(),
        );
        let decision = registry.sub_registry_with_prefix("decision");
        decision.register("decisions", "Decisions by verdict and tier", all.decisions.clone());
        decision.register("degraded", "Decisions that lacked something, by dimension", all.degraded.clone());
        decision.register("refused", "Requests that got an error and no decision", all.refused.clone());
        decision.register("inference_failures", "Full scores that did not come, by reason", all.inference_failures.clone());
        decision.register("features_not_whole", "Requests whose features were incomplete or missing", all.features_not_whole.clone());
        decision.register("shed", "Requests above the limit of concurrency, decided by amount alone", all.shed.clone());
        decision.register("inflight", "Decisions under way", all.inflight.clone());
        decision.register_with_unit("request", "Time from the request to its answer", Unit::Seconds, all.request.clone());
        decision.register("rule_hits", "How often each rule fired", all.rule_hits.clone());
        decision.register("rule_errors", "Rules that could not be evaluated although everything was known", all.rule_errors.clone());
        decision.register("rules_last_good", "1 while the rule file is one that was refused", all.rules_last_good.clone());
        decision.register("origin_age_ms", "How old the folded events of a region are; NaN when not known", all.origin_age_ms.clone());
        decision.register("window_state", "1 for the state in which a window of the features is", all.window_states.clone());
        decision.register("freshness_warned", "1 while features are older than staleness.warn, or not known", all.freshness_warned.clone());
        decision.register_with_unit("stage", "Time of each stage", Unit::Seconds, all.stages.clone());
        all
    }

    /// Counts what is under way; ends with the guard.
    pub fn begin(&self) -> InFlight {
        self.inflight.inc();
        InFlight(self.inflight.clone())
    }

    pub fn decided(&self, verdict: Verdict, tier: Tier, degradation: &Degradation, took: Duration) {
        self.decisions.get_or_create(&DecisionLabel { verdict: verdict.as_str_name(), tier: tier.as_str_name() }).inc();
        for (dimension, state) in lacking(degradation, tier) {
            self.degraded.get_or_create(&DegradationLabel { dimension, state }).inc();
        }
        self.request.observe(took.as_secs_f64());
        self.window.record(took);
    }

    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub fn inference_failed(&self, reason: &'static str) {
        self.inference_failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub fn features_not_whole(&self) {
        self.features_not_whole.inc();
    }

    pub fn freshness(&self, view: &View, origins: &BTreeMap<RegionName, OriginData>, warned: bool) {
        self.freshness_warned.set(i64::from(warned));
        // Regions leave: a series of one that is gone would stand still.
        self.origin_age_ms.clear();
        for (region, data) in origins {
            let age = freshness::age_of(data).map_or(f64::NAN, |ms| ms as f64);
            self.origin_age_ms.get_or_create(&OriginLabel { origin: region.to_string() }).set(age);
        }
        for (window, completeness) in view.windows() {
            for state in WINDOW_STATES {
                let label = WindowLabel { window: window.to_string(), state: freshness::state_to_wire(state).as_str_name() };
                self.window_states.get_or_create(&label).set(i64::from(*completeness == state));
            }
        }
    }

    pub fn shed(&self) {
        self.shed.inc();
    }

    pub fn stage(&self, stage: &'static str, took: Duration) {
        self.stages.get_or_create(&StageLabel { stage }).observe(took.as_secs_f64());
    }

    pub fn rules(&self, hits: &Hits) {
        for hit in &hits.fired {
            self.rule_hits.get_or_create(&RuleLabel { rule: hit.id.clone() }).inc();
        }
        self.rule_errors.inc_by(hits.errors);
    }

    /// To be called once a second.
    pub fn tick(&self, rules: &RuleSet, state: decide::RuleState) {
        self.p99.set(self.window.quantile_seconds(0.99));
        self.window.tick();
        self.rules_last_good.set(i64::from(state == decide::RuleState::LastGood));
        self.forget_rules_not_in(rules);
    }

    /// Rules come and go; their series must not pile up.
    fn forget_rules_not_in(&self, rules: &RuleSet) {
        let now: BTreeSet<String> = rules.ids().map(str::to_owned).collect();
        let mut known = self.known_rules.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in known.difference(&now) {
            self.rule_hits.remove(&RuleLabel { rule: gone.clone() });
        }
        *known = now;
    }
}

pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The dimensions in which something was missing. Idempotency and graph are the same in every answer so far and are not
/// counted.
fn lacking(degradation: &Degradation, tier: Tier) -> impl Iterator<Item = (&'static str, &'static str)> {
    let features = degradation.features();
    let inference = degradation.inference();
    let inference_is_as_asked = match inference {
        InferenceState::InferenceUsed | InferenceState::InferenceNotNeeded => true,
        InferenceState::InferenceLight => tier == Tier::LightModel,
        _ => false,
    };
    let rules = degradation.rules();
    let authority = degradation.authority();
    let durability = degradation.durability();
    [
        (features != FeatureState::FeaturesWhole).then(|| ("features", features.as_str_name())),
        (!inference_is_as_asked).then(|| ("inference", inference.as_str_name())),
        (rules != RuleState::RulesCurrent).then(|| ("rules", rules.as_str_name())),
        (authority != AuthorityState::AuthorityConfirmed).then(|| ("authority", authority.as_str_name())),
        (durability != Durability::Kafka).then(|| ("durability", durability.as_str_name())),
    ]
    .into_iter()
    .flatten()
}
