//! The manifest inside a model: what it was trained on, and how to tell that it is served as it was exported. No IO.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::ModelError;

/// The key of the ONNX file's `metadata_props` under which the manifest (JSON) is found.
pub const MANIFEST_KEY: &str = "fraudpipeline.manifest";

const FORMAT: u32 = 1;
const MANIFEST_BYTES_MAX: usize = 4 << 20;
const FEATURES_MAX: usize = 4096;
const GOLDEN_MIN: usize = 16;
const GOLDEN_MAX: usize = 4096;

/// Where a model is meant to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// In the inference service.
    Full,
    /// In the decision process itself, when the full model is not asked or does not answer.
    Light,
}

/// What a model says about itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: u32,
    /// Such as "fraud-full".
    pub name: String,
    pub version: String,
    pub kind: ModelKind,
    /// Of the features that it was trained on.
    pub schema_fingerprint: String,
    /// In the order of the input's columns.
    pub features: Vec<String>,
    /// Feature groups that were set to NaN in a share of the training rows.
    pub masked_groups: Vec<String>,
    pub golden: Vec<GoldenVector>,
    /// On held-out data; the names are explained in models/README.md.
    pub metrics: BTreeMap<String, f64>,
    /// How and from what it was trained; for people.
    pub training: BTreeMap<String, serde_json::Value>,
}

/// A row and the score that ONNX Runtime gave it when the model was exported.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenVector {
    /// JSON has no NaN: `null` stands for a missing feature.
    features: Vec<Option<f32>>,
    pub score: f32,
}

impl GoldenVector {
    /// The row as an engine takes it: missing is NaN.
    pub fn row(&self) -> Vec<f32> {
        self.features.iter().map(|value| value.unwrap_or(f32::NAN)).collect()
    }
}

impl Manifest {
    pub(crate) fn parse(json: &str) -> Result<Self, ModelError> {
        if json.len() > MANIFEST_BYTES_MAX {
            return Err(wrong(format!("it has {} bytes, at most {MANIFEST_BYTES_MAX} are read", json.len())));
        }
        let manifest: Self = serde_json::from_str(json).map_err(|error| wrong(error.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<(), ModelError> {
        if self.format != FORMAT {
            return Err(wrong(format!("`format` is {}, this build reads {FORMAT}", self.format)));
        }
        let features = self.features.len();
        if features == 0 || features > FEATURES_MAX {
            return Err(wrong(format!("`features` has {features} names, 1 to {FEATURES_MAX} are allowed")));
        }
        if self.golden.len() < GOLDEN_MIN || self.golden.len() > GOLDEN_MAX {
            return Err(wrong(format!("`golden` has {} vectors, {GOLDEN_MIN} to {GOLDEN_MAX} are needed", self.golden.len())));
        }
        for (index, golden) in self.golden.iter().enumerate() {
            if golden.features.len() != features {
                return Err(wrong(format!("golden vector {index} has {} values for {features} features", golden.features.len())));
            }
            if !(0.0..=1.0).contains(&golden.score) {
                return Err(wrong(format!("golden vector {index} has the score {}, which is not between 0 and 1", golden.score)));
            }
        }
        if self.golden.iter().all(|golden| golden.features.iter().all(Option::is_some)) {
            return Err(wrong("no golden vector has a missing feature (null)".into()));
        }
        Ok(())
    }
}

fn wrong(why: String) -> ModelError {
    ModelError::BadManifest { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(golden: &str) -> String {
        format!(
            r#"{{"format":1,"name":"m","version":"1","kind":"full","schema_fingerprint":"00","features":["a","b"],
            "masked_groups":[],"golden":[{golden}],"metrics":{{}},"training":{{}}}}"#
        )
    }

    fn rows(row: &str, count: usize) -> String {
        vec![row; count].join(",")
    }

    #[test]
    fn a_null_is_a_missing_feature() {
        let parsed = Manifest::parse(&manifest(&rows(r#"{"features":[1.5,null],"score":0.25}"#, 16))).unwrap();
        let row = parsed.golden[0].row();
        assert_eq!(row[0], 1.5);
        assert!(row[1].is_nan());
    }

    #[test]
    fn golden_vectors_must_be_enough_whole_and_include_missing_features() {
        for (golden, expected) in [
            (rows(r#"{"features":[1,null],"score":0.5}"#, 15), "has 15 vectors"),
            (rows(r#"{"features":[1],"score":0.5}"#, 16), "golden vector 0 has 1 values for 2 features"),
            (rows(r#"{"features":[1,null],"score":1.5}"#, 16), "not between 0 and 1"),
            (rows(r#"{"features":[1,2],"score":0.5}"#, 16), "no golden vector has a missing feature"),
        ] {
            let error = Manifest::parse(&manifest(&golden)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
