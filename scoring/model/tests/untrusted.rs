//! Bytes of any kind are refused with a sentence, or score; they never panic and never hang.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use scoring_model::{ModelError, ModelPackage};

const LIGHT: &[u8] = include_bytes!("../../../models/light.onnx");

/// Everything that a service does with a model from outside.
fn take_into_service(bytes: &[u8]) -> Result<(), ModelError> {
    let package = ModelPackage::parse(bytes)?;
    let trees = package.tree_ensemble()?;
    let score = trees.score(&vec![f32::NAN; trees.features()]);
    assert!(!score.is_nan());
    package.verify_golden(|row| trees.score(row))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_are_not_a_model(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(take_into_service(&bytes).is_err());
    }

    #[test]
    fn a_model_with_damaged_bytes_is_refused_or_scores(damage in proptest::collection::vec((0..LIGHT.len(), any::<u8>()), 1..20)) {
        let mut bytes = LIGHT.to_vec();
        for (place, byte) in damage {
            bytes[place] = byte;
        }
        let _ = take_into_service(&bytes);
    }

    #[test]
    fn a_model_that_was_cut_short_is_refused(length in 0..LIGHT.len()) {
        prop_assert!(take_into_service(&LIGHT[..length]).is_err());
    }
}

#[test]
fn every_refusal_says_what_to_do() {
    for (bytes, expected) in [
        (&b"<html>404 not found</html>"[..], "check that the URI names the .onnx file itself"),
        (&b""[..], "check that the URI names the .onnx file itself"),
    ] {
        let error = ModelPackage::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
