//! How well the verdicts agree with the labels. Pure, in constant memory.
//!
//! A payment is *flagged* if the verdict is review or decline. Recall is the share of answered frauds that are flagged; the
//! false-positive rate is the share of answered honest payments that are flagged. For comparison: what the amount alone would
//! have found with as many false positives, at its best threshold (payments above it, or below it, whichever is better).

use std::collections::BTreeMap;

use proto::fraud::v1::Verdict;
use serde::Serialize;

use super::tally::Label;
use crate::FraudType;

const SCORE_BINS: usize = 10_000;
/// 200 bins for each factor of e: an amount is known to 0.5 %.
const AMOUNT_BINS_PER_E: f64 = 200.0;
const AMOUNT_BINS: usize = 4_000;

/// What was answered to a payment whose label is known.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    pub label: Label,
    pub verdict: Verdict,
    pub score: Option<f64>,
    pub amount_usd: f64,
}

#[derive(Debug, Clone)]
struct Class {
    answered: u64,
    flagged: u64,
    declined: u64,
    scored: u64,
    scores: Vec<u64>,
    amounts: Vec<u64>,
}

impl Default for Class {
    fn default() -> Self {
        Self { answered: 0, flagged: 0, declined: 0, scored: 0, scores: vec![0; SCORE_BINS], amounts: vec![0; AMOUNT_BINS] }
    }
}

/// Running counts.
#[derive(Debug, Clone, Default)]
pub struct Quality {
    fraud: Class,
    honest: Class,
    by_type: BTreeMap<FraudType, (u64, u64)>,
}

/// `None` where there is nothing to divide by.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QualityReport {
    pub recall: Option<f64>,
    pub false_positive_rate: Option<f64>,
    /// Recall of the best threshold on the amount alone at the same false-positive rate.
    pub amount_only_recall: Option<f64>,
    pub decline_recall: Option<f64>,
    pub decline_false_positive_rate: Option<f64>,
    pub frauds: u64,
    pub honest: u64,
    pub at_false_positive_rates: Vec<OperatingPoint>,
    pub by_fraud_type: BTreeMap<&'static str, TypeReport>,
}

/// What a threshold on the score alone would find, among the payments that got a score; recall is of all answered frauds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperatingPoint {
    pub false_positive_rate_max: f64,
    pub score_threshold: f64,
    pub recall: f64,
    pub amount_only_recall: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TypeReport {
    pub answered: u64,
    pub flagged: u64,
}

impl Quality {
    pub fn record(&mut self, judged: Judged) {
        let flagged = matches!(judged.verdict, Verdict::Review | Verdict::Decline);
        if let Some(kind) = judged.label.kind {
            let (answered, found) = self.by_type.entry(kind).or_default();
            *answered += 1;
            *found += u64::from(flagged);
        }
        let class = if judged.label.fraud { &mut self.fraud } else { &mut self.honest };
        class.answered += 1;
        class.flagged += u64::from(flagged);
        class.declined += u64::from(judged.verdict == Verdict::Decline);
        class.amounts[bin((judged.amount_usd * 100.0).max(1.0).ln() * AMOUNT_BINS_PER_E, AMOUNT_BINS)] += 1;
        if let Some(score) = judged.score {
            class.scored += 1;
            class.scores[bin(score * SCORE_BINS as f64, SCORE_BINS)] += 1;
        }
    }

    pub fn report(&self) -> QualityReport {
        let false_positive_rate = share(self.honest.flagged, self.honest.answered);
        let type_report = |(fraud, &(answered, flagged)): (&FraudType, &(u64, u64))| (fraud.name(), TypeReport { answered, flagged });
        QualityReport {
            recall: share(self.fraud.flagged, self.fraud.answered),
            false_positive_rate,
            amount_only_recall: false_positive_rate.filter(|_| self.fraud.answered > 0).map(|rate| self.amount_only_recall(rate)),
            decline_recall: share(self.fraud.declined, self.fraud.answered),
            decline_false_positive_rate: share(self.honest.declined, self.honest.answered),
            frauds: self.fraud.answered,
            honest: self.honest.answered,
            at_false_positive_rates: [0.001, 0.002, 0.005, 0.01].iter().filter_map(|&rate| self.operating_point(rate)).collect(),
            by_fraud_type: self.by_type.iter().map(type_report).collect(),
        }
    }

    fn operating_point(&self, rate: f64) -> Option<OperatingPoint> {
        if self.fraud.scored == 0 || self.honest.answered == 0 {
            return None;
        }
        let (mut honest, mut fraud, mut threshold) = (0u64, 0u64, SCORE_BINS);
        for bin in (0..SCORE_BINS).rev() {
            if (honest + self.honest.scores[bin]) as f64 > rate * self.honest.answered as f64 {
                break;
            }
            honest += self.honest.scores[bin];
            fraud += self.fraud.scores[bin];
            threshold = bin;
        }
        Some(OperatingPoint {
            false_positive_rate_max: rate,
            score_threshold: threshold as f64 / SCORE_BINS as f64,
            recall: fraud as f64 / self.fraud.answered as f64,
            amount_only_recall: self.amount_only_recall(rate),
        })
    }

    fn amount_only_recall(&self, rate: f64) -> f64 {
        let above = recall_from(self.honest.amounts.iter().rev().zip(self.fraud.amounts.iter().rev()), &self.honest, &self.fraud, rate);
        let below = recall_from(self.honest.amounts.iter().zip(&self.fraud.amounts), &self.honest, &self.fraud, rate);
        above.max(below)
    }
}

/// Takes whole bins while the false positives allow it, then the fitting part of the next one (in the amount's favour).
fn recall_from<'a>(bins: impl Iterator<Item = (&'a u64, &'a u64)>, honest: &Class, fraud: &Class, rate: f64) -> f64 {
    let mut allowed = rate * honest.answered as f64;
    let mut found = 0.0;
    for (&honest_here, &fraud_here) in bins {
        if honest_here as f64 > allowed {
            found += fraud_here as f64 * allowed / honest_here as f64;
            break;
        }
        allowed -= honest_here as f64;
        found += fraud_here as f64;
    }
    found / fraud.answered as f64
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn bin(position: f64, bins: usize) -> usize {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let bin = position.max(0.0) as usize;
    bin.min(bins - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(fraud: bool, verdict: Verdict, score: f64, amount_usd: f64) -> Judged {
        Judged { label: Label { fraud, kind: fraud.then_some(FraudType::CardTesting) }, verdict, score: Some(score), amount_usd }
    }

    #[test]
    fn review_and_decline_flag_and_rates_are_of_what_was_answered() {
        let mut quality = Quality::default();
        quality.record(judged(true, Verdict::Decline, 0.95, 10.0));
        quality.record(judged(true, Verdict::Review, 0.6, 10.0));
        quality.record(judged(true, Verdict::Approve, 0.1, 10.0));
        quality.record(judged(false, Verdict::Review, 0.55, 10.0));
        for _ in 0..3 {
            quality.record(judged(false, Verdict::Approve, 0.1, 10.0));
        }
        let report = quality.report();
        assert_eq!(report.recall, Some(2.0 / 3.0));
        assert_eq!(report.decline_recall, Some(1.0 / 3.0));
        assert_eq!(report.false_positive_rate, Some(0.25));
        assert_eq!(report.by_fraud_type["card_testing"], TypeReport { answered: 3, flagged: 2 });
    }

    #[test]
    fn the_amount_alone_is_given_its_best_threshold_on_either_side() {
        let mut quality = Quality::default();
        for cents in 1..=100u32 {
            quality.record(judged(false, Verdict::Approve, 0.0, 10.0 + f64::from(cents)));
        }
        quality.record(judged(false, Verdict::Review, 0.9, 500.0));
        // Half of the frauds are far above every honest payment, a quarter far below.
        for amount_usd in [5_000.0, 6_000.0, 0.5, 40.0] {
            quality.record(judged(true, Verdict::Approve, 0.0, amount_usd));
        }
        let recall = quality.report().amount_only_recall.unwrap();
        assert!((0.5..0.53).contains(&recall), "{recall}");
    }

    #[test]
    fn without_labels_of_either_kind_nothing_is_claimed() {
        let report = Quality::default().report();
        assert_eq!((report.recall, report.false_positive_rate, report.amount_only_recall), (None, None, None));
    }
}
