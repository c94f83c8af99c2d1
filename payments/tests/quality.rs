//! The checked-in models on populations that training never saw, judged as `stream` judges a service.
#![allow(clippy::unwrap_used)]

use payments::send::quality::{Judged, Quality, QualityReport};
use payments::send::tally::Label;
use payments::training::Replay;
use payments::{Generator, LabelledPayment, Population};
use proto::fraud::v1::Verdict;
use scoring_core::schema::{FeatureSchema, FeatureVector};
use scoring_core::windows::Windows;
use scoring_model::{ModelPackage, TreeEnsemble};

const FULL: &[u8] = include_bytes!("../../models/full.onnx");
const LIGHT: &[u8] = include_bytes!("../../models/light.onnx");

/// Two minutes at the demo's rate.
const PAYMENTS: usize = 30_000;
const RATE_PER_S: f64 = 250.0;
const START_MS: i64 = 1_795_176_000_000;

struct Models {
    full: TreeEnsemble,
    light: TreeEnsemble,
    /// Where the light model's features are in the full vector.
    light_columns: Vec<usize>,
}

impl Models {
    fn new(full: &FeatureSchema, light: &FeatureSchema) -> Self {
        let trees = |bytes| ModelPackage::parse(bytes).unwrap().tree_ensemble().unwrap();
        let column = |name: &str| full.names().position(|known| known == name).unwrap();
        Self { full: trees(FULL), light: trees(LIGHT), light_columns: light.names().map(column).collect() }
    }

    /// The tiers and thresholds of examples/payments.yaml.
    fn by_tiers(&self, labelled: &LabelledPayment, vector: &FeatureVector) -> Option<f64> {
        match labelled.amount_usd {
            ..10.0 => None,
            10.0..100.0 => {
                let row: Vec<f32> = self.light_columns.iter().map(|&column| vector.values()[column]).collect();
                Some(f64::from(self.light.score(&row)))
            }
            _ => Some(f64::from(self.full.score(vector.values()))),
        }
    }
}

fn verdict(score: Option<f64>) -> Verdict {
    match score {
        Some(score) if score >= 0.9 => Verdict::Decline,
        Some(score) if score >= 0.5 => Verdict::Review,
        _ => Verdict::Approve,
    }
}

fn judge(seed: u64, score: impl Fn(&Models, &LabelledPayment, &FeatureVector) -> Option<f64>) -> QualityReport {
    let windows = Windows::default();
    let (full, light) = (FeatureSchema::full(&windows), FeatureSchema::light(&windows));
    let models = Models::new(&full, &light);
    let mut replay = Replay::new(full, START_MS).unwrap();
    let mut quality = Quality::default();
    for labelled in Generator::new(seed, Population::for_rate(RATE_PER_S, 2027)).take(PAYMENTS) {
        let vector = replay.vector(&labelled).unwrap();
        let score = score(&models, &labelled, &vector);
        let label = Label { fraud: labelled.fraud.is_some(), kind: labelled.fraud };
        quality.record(Judged { label, verdict: verdict(score), score, amount_usd: labelled.amount_usd });
    }
    quality.report()
}

fn check(seed: u64, report: &QualityReport) {
    let (recall, rate) = (report.recall.unwrap(), report.false_positive_rate.unwrap());
    let amount_only = report.amount_only_recall.unwrap();
    eprintln!("seed {seed}: recall {recall:.3}, false positives {rate:.4}, by the amount alone {amount_only:.3}");
    assert!(recall > 0.4, "seed {seed}: recall {recall}");
    assert!(rate < 0.01, "seed {seed}: false positives {rate}");
    assert!(recall > 2.0 * amount_only, "seed {seed}: recall {recall}, by the amount alone {amount_only}");
}

#[test]
fn the_example_pipeline_finds_fraud_in_populations_that_training_never_saw() {
    for seed in [1, 2, 7, 20_261_122] {
        check(seed, &judge(seed, Models::by_tiers));
    }
}

#[test]
fn the_full_model_alone_finds_more_within_the_same_false_positives() {
    let seed = 3;
    let report = judge(seed, |models, _, vector| Some(f64::from(models.full.score(vector.values()))));
    check(seed, &report);
    assert!(report.recall.unwrap() > 0.7, "{report:?}");
}
