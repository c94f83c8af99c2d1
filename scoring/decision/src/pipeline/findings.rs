//! What is found out about a payment on its way, and how it is answered and recorded.

use std::{sync::Arc, time::Duration};

use proto::fraud::v1::{DecideResponse, DecisionRecord, StageTime, Thresholds, Tier as WireTier, Verdict as WireVerdict};
use scoring_core::{
    decide::{Decision, Degradation, Durability, FeatureState, InferenceState, RuleState, Scored, Tier},
    event::{Event, SCHEMA_VERSION},
    schema::FeatureVector,
};
use tokio::time::Instant;

use crate::{freshness::View, inference, metrics::Metrics, rules::Hits};

/// Starts as "nothing is known".
pub(super) struct Findings {
    /// What was known to be missing when the features were read.
    pub(super) freshness: Arc<View>,
    pub(super) features: FeatureState,
    pub(super) incomplete_windows: Vec<String>,
    pub(super) inference: InferenceState,
    pub(super) rules: RuleState,
    pub(super) scored: Scored,
    pub(super) model_digest: String,
    pub(super) hits: Hits,
    pub(super) vector: Option<FeatureVector>,
}

impl Findings {
    pub(super) fn nothing(rules: RuleState, freshness: Arc<View>) -> Self {
        Self {
            freshness,
            features: FeatureState::Missing,
            incomplete_windows: Vec::new(),
            inference: InferenceState::Missing,
            rules,
            scored: Scored::Unavailable,
            model_digest: String::new(),
            hits: Hits::default(),
            vector: None,
        }
    }

    pub(super) fn freshness(&self) -> &View {
        &self.freshness
    }

    pub(super) fn score(&self) -> Option<f64> {
        match self.scored {
            Scored::Score(score) => Some(score),
            Scored::NotNeeded | Scored::Unavailable => None,
        }
    }

    pub(super) fn score_not_needed(&mut self) {
        self.inference = InferenceState::NotNeeded;
        self.scored = Scored::NotNeeded;
    }

    pub(super) fn scored_by_full_model(&mut self, scored: inference::Scored) {
        self.inference = InferenceState::Used;
        self.scored = Scored::of(scored.score);
        self.model_digest = scored.model_digest;
    }

    pub(super) fn scored_by_light_model(&mut self, score: f64, digest: &str) {
        self.inference = InferenceState::Light;
        self.scored = Scored::of(score);
        digest.clone_into(&mut self.model_digest);
    }
}

/// A decision before it is handed over.
pub(super) struct Answer {
    pub(super) decision: Decision,
    /// Absent when nothing was scored.
    pub(super) thresholds: Option<Thresholds>,
    pub(super) degradation: Degradation,
    pub(super) freshness: Arc<View>,
    pub(super) tier: Tier,
    pub(super) model_digest: String,
    pub(super) vector: Option<FeatureVector>,
    pub(super) feature_schema: String,
}

impl Answer {
    /// What goes to `fraud.decisions`.
    pub(super) fn record(&self, event: &Event, request_digest: [u8; 32], decided_time_ms: i64) -> DecisionRecord {
        let mut degradation = self.degradation.to_wire();
        // Not known yet: the record is written before it can be acknowledged.
        degradation.durability = 0;
        DecisionRecord {
            schema_version: SCHEMA_VERSION,
            transaction_id: event.transaction_id.clone(),
            tenant: event.tenant.clone(),
            event_time_ms: event.event_time_ms,
            verdict: self.decision.verdict.to_wire(),
            score: self.decision.score,
            reasons: self.decision.reasons.clone(),
            thresholds: self.thresholds.clone(),
            degradation: Some(degradation),
            region: event.origin_region.to_string(),
            epoch: event.epoch.0,
            model_digest: self.model_digest.clone(),
            tier: self.tier.to_wire(),
            features: self.vector.as_ref().map(FeatureVector::to_le_bytes).unwrap_or_default(),
            feature_schema: self.vector.as_ref().map(|_| self.feature_schema.clone()).unwrap_or_default(),
            request_digest: request_digest.to_vec(),
            decided_time_ms,
            rules_hit: self.decision.rules_hit.clone(),
            freshness: Some(self.freshness.to_wire()),
        }
    }

    pub(super) fn respond(mut self, event: Event, durability: Durability, watch: Watch<'_>) -> DecideResponse {
        self.degradation.durability = durability;
        let response = DecideResponse {
            transaction_id: event.transaction_id,
            verdict: self.decision.verdict.to_wire(),
            score: self.decision.score,
            reasons: self.decision.reasons,
            thresholds: self.thresholds,
            degradation: Some(self.degradation.to_wire()),
            model_digest: self.model_digest,
            region: event.origin_region.into(),
            epoch: event.epoch.0,
            tier: self.tier.to_wire(),
            stages: Vec::new(),
            event_time_ms: event.event_time_ms,
            rules_hit: self.decision.rules_hit,
            freshness: Some(self.freshness.to_wire()),
        };
        watch.finish(response)
    }
}

/// Measures stages. A stage that comes twice (rules) is one entry with the sum.
pub(super) struct Watch<'a> {
    metrics: &'a Metrics,
    started_at: Instant,
    lap_at: Instant,
    stages: Vec<(&'static str, Duration)>,
}

impl<'a> Watch<'a> {
    pub(super) fn start(at: Instant, metrics: &'a Metrics) -> Self {
        Self { metrics, started_at: at, lap_at: at, stages: Vec::with_capacity(6) }
    }

    pub(super) fn lap(&mut self, stage: &'static str) {
        let now = Instant::now();
        let took = now - self.lap_at;
        self.lap_at = now;
        match self.stages.iter_mut().find(|(name, _)| *name == stage) {
            Some((_, sum)) => *sum += took,
            None => self.stages.push((stage, took)),
        }
    }

    fn finish(self, mut response: DecideResponse) -> DecideResponse {
        for (stage, took) in self.stages {
            self.metrics.stage(stage, took);
            response.stages.push(StageTime { stage: stage.to_owned(), elapsed_ms: took.as_secs_f64() * 1_000.0 });
        }
        let verdict = WireVerdict::try_from(response.verdict).unwrap_or_default();
        let tier = WireTier::try_from(response.tier).unwrap_or_default();
        let degradation = response.degradation.clone().unwrap_or_default();
        self.metrics.decided(verdict, tier, &degradation, self.started_at.elapsed());
        response
    }
}
