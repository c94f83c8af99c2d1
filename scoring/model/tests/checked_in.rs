//! The models that are checked in under models/: they fit this build's features and score as ONNX Runtime did.
#![allow(clippy::unwrap_used)]

use scoring_core::schema::{FeatureSchema, Group};
use scoring_core::windows::Windows;
use scoring_model::{ModelError, ModelKind, ModelPackage, TreeEnsemble};

const FULL: &[u8] = include_bytes!("../../../models/full.onnx");
const LIGHT: &[u8] = include_bytes!("../../../models/light.onnx");

fn models() -> [(&'static [u8], ModelKind, FeatureSchema); 2] {
    let windows = Windows::default();
    [(FULL, ModelKind::Full, FeatureSchema::full(&windows)), (LIGHT, ModelKind::Light, FeatureSchema::light(&windows))]
}

fn trees_of(bytes: &[u8]) -> TreeEnsemble {
    ModelPackage::parse(bytes).unwrap().tree_ensemble().unwrap()
}

#[test]
fn they_fit_the_features_of_this_build_and_score_their_golden_vectors() {
    for (bytes, kind, schema) in models() {
        let package = ModelPackage::parse(bytes).unwrap();
        assert_eq!(package.manifest().kind, kind);
        package.check_schema(&schema).unwrap();
        let trees = package.tree_ensemble().unwrap();
        assert_eq!(trees.features(), schema.width());
        package.verify_golden(|row| trees.score(row)).unwrap();
    }
}

#[test]
fn their_golden_vectors_miss_each_group_and_everything_at_least_once() {
    for (bytes, _, schema) in models() {
        let package = ModelPackage::parse(bytes).unwrap();
        let rows: Vec<Vec<f32>> = package.manifest().golden.iter().map(|golden| golden.row()).collect();
        assert!(rows.iter().any(|row| row.iter().all(|value| value.is_nan())));
        for &group in Group::ALL.iter().filter(|group| **group != Group::Event) {
            let places: Vec<usize> = schema.places_of(group).collect();
            assert!(places.is_empty() || rows.iter().any(|row| places.iter().all(|&place| row[place].is_nan())), "{group:?}");
        }
    }
}

#[test]
fn a_batch_answers_each_row_as_if_it_were_alone() {
    for (bytes, ..) in models() {
        let package = ModelPackage::parse(bytes).unwrap();
        let trees = package.tree_ensemble().unwrap();
        let rows: Vec<Vec<f32>> = package.manifest().golden.iter().map(|golden| golden.row()).collect();
        let alone: Vec<f32> = rows.iter().map(|row| trees.score(row)).collect();
        assert_eq!(trees.score_batch(&rows.concat()).unwrap(), alone);
        assert!(alone.iter().any(|score| *score > 0.9) && alone.iter().any(|score| *score < 0.1), "{alone:?}");
        assert!(matches!(trees.score_batch(&[0.0; 3]), Err(ModelError::BadShape { values: 3, .. })));
    }
}

#[test]
fn missing_features_change_the_score_and_are_not_taken_for_zero() {
    let trees = trees_of(FULL);
    let missing = vec![f32::NAN; trees.features()];
    assert!((trees.score(&missing) - trees.score(&vec![0.0; trees.features()])).abs() > 1e-3);
    // A row that is too short is one whose end is missing.
    assert_eq!(trees.score(&[]), trees.score(&missing));
}

#[test]
fn another_digest_another_schema_and_another_engine_are_told_apart() {
    let package = ModelPackage::parse(LIGHT).unwrap();
    package.check_sha256(&package.sha256().to_uppercase()).unwrap();
    assert!(matches!(package.check_sha256("00"), Err(ModelError::OtherDigest { .. })));
    let error = package.check_schema(&FeatureSchema::full(&Windows::default())).unwrap_err().to_string();
    assert!(error.contains("features instead of") && error.contains("train it anew"), "{error}");
    let error = package.verify_golden(|_| f32::NAN).unwrap_err().to_string();
    assert!(error.starts_with("golden vector 0"), "{error}");
}
