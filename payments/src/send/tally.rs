//! Counts what came back, and turns the counts into progress lines and the summary. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::fraud::v1::{DecideResponse, FeatureState, InferenceState, Tier};
use serde::Serialize;

use super::histogram::Histogram;
use super::ledger::LedgerEntry;
use super::quality::{Judged, Quality, QualityReport};
use crate::FraudType;

/// What became of one payment.
#[derive(Debug)]
pub struct Outcome {
    pub sequence: u64,
    /// `None` if the payment has no label.
    pub label: Option<Label>,
    pub amount_usd: f64,
    /// From when the payment was due.
    pub latency: Duration,
    /// From the beginning of the stream to the answer.
    pub finished_at: Duration,
    pub result: Answer,
}

/// What a payment really is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub fraud: bool,
    /// Which kind of fraud, if that is known.
    pub kind: Option<FraudType>,
}

#[derive(Debug)]
pub enum Answer {
    Decision(Box<DecideResponse>),
    /// The name of a gRPC status code.
    Error(String),
    /// Nothing came within the bound.
    Unanswered,
}

#[derive(Debug, Clone, Default)]
pub struct Tally {
    decisions: u64,
    errors: BTreeMap<String, u64>,
    unanswered: u64,
    latency: Histogram,
    verdicts: BTreeMap<&'static str, u64>,
    tiers: BTreeMap<&'static str, u64>,
    full_tier: u64,
    full_tier_whole: u64,
    degraded: BTreeMap<&'static str, u64>,
    quality: Option<Quality>,
    first_decision_at: Option<Duration>,
    recent: Histogram,
    recent_decisions: u64,
}

/// One line per second, for people and for a live view.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    pub t_s: f64,
    pub decisions: u64,
    /// Of the time since the previous line, like the latencies.
    pub decisions_per_s: f64,
    pub errors: u64,
    pub unanswered: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub full_share: Option<f64>,
    pub verdicts: BTreeMap<&'static str, u64>,
    pub recall: Option<f64>,
    pub false_positive_rate: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct LatencyReport {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// What a whole stream came to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub sent: u64,
    pub decisions: u64,
    pub decisions_per_s: f64,
    pub errors: u64,
    pub errors_by_code: BTreeMap<String, u64>,
    pub unanswered: u64,
    pub latency_ms: LatencyReport,
    /// Share of the full-tier decisions that had whole features and used inference; `null` if there was none.
    pub full_share: Option<f64>,
    pub verdicts: BTreeMap<&'static str, u64>,
    pub tiers: BTreeMap<&'static str, u64>,
    /// How often each dimension of the degradation was not at its best, over all decisions.
    pub degraded: BTreeMap<&'static str, u64>,
    pub quality: Option<QualityReport>,
    pub seconds_to_first_decision: Option<f64>,
    pub elapsed_s: f64,
}

impl Tally {
    pub fn record(&mut self, outcome: &Outcome) {
        match &outcome.result {
            Answer::Decision(response) => self.record_decision(outcome, response),
            Answer::Error(code) => *self.errors.entry(code.clone()).or_default() += 1,
            Answer::Unanswered => self.unanswered += 1,
        }
    }

    fn record_decision(&mut self, outcome: &Outcome, response: &DecideResponse) {
        self.decisions += 1;
        self.recent_decisions += 1;
        self.first_decision_at.get_or_insert(outcome.finished_at);
        let latency_us = u64::try_from(outcome.latency.as_micros()).unwrap_or(u64::MAX);
        self.latency.record(latency_us);
        self.recent.record(latency_us);
        *self.verdicts.entry(response.verdict().as_str_name()).or_default() += 1;
        *self.tiers.entry(response.tier().as_str_name()).or_default() += 1;
        self.record_degradation(response);
        if let Some(label) = outcome.label {
            let judged = Judged { label, verdict: response.verdict(), score: response.score, amount_usd: outcome.amount_usd };
            self.quality.get_or_insert_default().record(judged);
        }
    }

    fn record_degradation(&mut self, response: &DecideResponse) {
        let degradation = response.degradation.clone().unwrap_or_default();
        let features_whole = degradation.features() == FeatureState::FeaturesWhole;
        if response.tier() == Tier::Full {
            self.full_tier += 1;
            self.full_tier_whole += u64::from(features_whole && degradation.inference() == InferenceState::InferenceUsed);
        }
        let mut count = |name: &'static str, best: &str, actual: &str| {
            if actual != best {
                *self.degraded.entry(name).or_default() += 1;
            }
        };
        count("features", "FEATURES_WHOLE", degradation.features().as_str_name());
        count("rules", "RULES_CURRENT", degradation.rules().as_str_name());
        count("authority", "AUTHORITY_CONFIRMED", degradation.authority().as_str_name());
        count("durability", "DURABILITY_KAFKA", degradation.durability().as_str_name());
        count("idempotency", "IDEMPOTENCY_CONFIRMED", degradation.idempotency().as_str_name());
        if degradation.inference() == InferenceState::InferenceMissing {
            count("inference", "INFERENCE_USED", "INFERENCE_MISSING");
        }
    }

    /// The counts so far; latencies and rate since the previous call.
    pub fn progress(&mut self, elapsed: Duration, since_last: Duration) -> Progress {
        let quality = self.quality.as_ref().map(Quality::report);
        let progress = Progress {
            t_s: rounded(elapsed.as_secs_f64()),
            decisions: self.decisions,
            decisions_per_s: rounded(self.recent_decisions as f64 / since_last.as_secs_f64().max(1e-3)),
            errors: self.errors.values().sum(),
            unanswered: self.unanswered,
            p50_ms: self.recent.quantile_ms(0.5),
            p99_ms: self.recent.quantile_ms(0.99),
            full_share: self.full_share(),
            verdicts: self.verdicts.clone(),
            recall: quality.as_ref().and_then(|quality| quality.recall),
            false_positive_rate: quality.as_ref().and_then(|quality| quality.false_positive_rate),
        };
        self.recent.clear();
        self.recent_decisions = 0;
        progress
    }

    pub fn summary(&self, elapsed: Duration) -> Summary {
        let errors = self.errors.values().sum();
        Summary {
            sent: self.decisions + errors + self.unanswered,
            decisions: self.decisions,
            decisions_per_s: rounded(self.decisions as f64 / elapsed.as_secs_f64().max(1e-3)),
            errors,
            errors_by_code: self.errors.clone(),
            unanswered: self.unanswered,
            latency_ms: LatencyReport {
                p50: self.latency.quantile_ms(0.5),
                p99: self.latency.quantile_ms(0.99),
                p999: self.latency.quantile_ms(0.999),
                max: self.latency.max_ms(),
            },
            full_share: self.full_share(),
            verdicts: self.verdicts.clone(),
            tiers: self.tiers.clone(),
            degraded: self.degraded.clone(),
            quality: self.quality.as_ref().map(Quality::report),
            seconds_to_first_decision: self.first_decision_at.map(|at| at.as_secs_f64()),
            elapsed_s: rounded(elapsed.as_secs_f64()),
        }
    }

    fn full_share(&self) -> Option<f64> {
        (self.full_tier > 0).then(|| self.full_tier_whole as f64 / self.full_tier as f64)
    }
}

/// To a thousandth: more digits would only be noise.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Outcome {
    /// For the ledger, if there was a decision.
    pub fn acknowledged(&self) -> Option<LedgerEntry> {
        let Answer::Decision(response) = &self.result else { return None };
        let durability =
            response.degradation.as_ref().map_or("DURABILITY_UNSPECIFIED", |degradation| degradation.durability().as_str_name());
        Some(LedgerEntry {
            seq: self.sequence,
            transaction_id: response.transaction_id.clone(),
            acknowledged_ms: u64::try_from(self.finished_at.as_millis()).unwrap_or(u64::MAX),
            verdict: response.verdict().as_str_name().to_owned(),
            durability: durability.trim_start_matches("DURABILITY_").to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proto::fraud::v1::{Degradation, Verdict};

    use super::*;

    fn decision(tier: Tier, features: FeatureState, inference: InferenceState) -> Answer {
        let degradation = Degradation { features: features.into(), inference: inference.into(), ..Default::default() };
        Answer::Decision(Box::new(DecideResponse {
            verdict: Verdict::Approve.into(),
            tier: tier.into(),
            degradation: Some(degradation),
            ..Default::default()
        }))
    }

    fn outcome(result: Answer) -> Outcome {
        let latency = Duration::from_millis(3);
        Outcome { sequence: 0, label: None, amount_usd: 1.0, latency, finished_at: latency, result }
    }

    #[test]
    fn the_full_share_counts_full_tier_decisions_only() {
        let mut tally = Tally::default();
        tally.record(&outcome(decision(Tier::Full, FeatureState::FeaturesWhole, InferenceState::InferenceUsed)));
        tally.record(&outcome(decision(Tier::Full, FeatureState::FeaturesMissing, InferenceState::InferenceUsed)));
        tally.record(&outcome(decision(Tier::Full, FeatureState::FeaturesWhole, InferenceState::InferenceLight)));
        tally.record(&outcome(decision(Tier::LightModel, FeatureState::FeaturesWhole, InferenceState::InferenceLight)));
        let summary = tally.summary(Duration::from_secs(1));
        assert_eq!(summary.full_share, Some(1.0 / 3.0));
        assert_eq!(summary.degraded.get("features"), Some(&1));
    }

    #[test]
    fn errors_and_silence_are_not_decisions_and_have_no_latency() {
        let mut tally = Tally::default();
        tally.record(&outcome(Answer::Error("Unavailable".into())));
        tally.record(&outcome(Answer::Unanswered));
        let summary = tally.summary(Duration::from_secs(1));
        assert_eq!((summary.sent, summary.decisions, summary.errors, summary.unanswered), (2, 0, 1, 1));
        assert_eq!(summary.latency_ms.max, 0.0);
        assert!(summary.quality.is_none());
    }
}
