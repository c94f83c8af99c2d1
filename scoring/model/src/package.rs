//! One ONNX file with its manifest, and the checks before it is served. No IO.

use prost::Message;
use scoring_core::schema::{Feature, FeatureSchema, Group};
use sha2::{Digest, Sha256};

use crate::onnx::{self, ELEMENT_FLOAT};
use crate::{MANIFEST_KEY, Manifest, ModelError, TreeEnsemble};

/// A larger file is refused before it is looked at.
pub const MODEL_BYTES_MAX: usize = 256 << 20;
/// The one input: float32 `[N, features]`.
pub const INPUT_NAME: &str = "features";
/// The one output: float32 `[N, 1]`, the score.
pub const OUTPUT_NAME: &str = "score";
/// How far an engine's score of a golden vector may be from the manifest's: rounding of the last step, not more.
pub const GOLDEN_TOLERANCE: f32 = 1e-6;

/// A parsed model: its manifest, its digest, and a graph of the right signature.
#[derive(Debug, Clone)]
pub struct ModelPackage {
    manifest: Manifest,
    sha256: String,
    graph: onnx::Graph,
}

impl ModelPackage {
    /// Reads a model from untrusted bytes.
    ///
    /// Guarantees: never panics; the manifest is complete; the graph has one float input `[N, F]` and one float output `[N, 1]`,
    /// F being the number of the manifest's features.
    pub fn parse(bytes: &[u8]) -> Result<Self, ModelError> {
        if bytes.len() > MODEL_BYTES_MAX {
            return Err(ModelError::TooLarge { bytes: bytes.len(), bytes_max: MODEL_BYTES_MAX });
        }
        let model = onnx::Model::decode(bytes).map_err(|error| ModelError::NotOnnx { why: error.to_string() })?;
        let graph = model.graph.ok_or_else(|| ModelError::NotOnnx { why: "it has no graph".into() })?;
        let property = model.metadata.iter().find(|property| property.key == MANIFEST_KEY);
        let manifest = Manifest::parse(&property.ok_or(ModelError::NoManifest { key: MANIFEST_KEY })?.value)?;
        check_tensor("input", INPUT_NAME, manifest.features.len(), &graph.inputs)?;
        check_tensor("output", OUTPUT_NAME, 1, &graph.outputs)?;
        Ok(Self { manifest, sha256: hex::encode(Sha256::digest(bytes)), graph })
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the file, in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Is this the file that is wanted?
    pub fn check_sha256(&self, expected: &str) -> Result<(), ModelError> {
        if expected.eq_ignore_ascii_case(&self.sha256) {
            return Ok(());
        }
        Err(ModelError::OtherDigest { expected: expected.to_owned(), actual: self.sha256.clone() })
    }

    /// Was it trained on the features that this build computes, and has it seen every group missing that may be missing in service?
    pub fn check_schema(&self, schema: &FeatureSchema) -> Result<(), ModelError> {
        let build = schema.fingerprint();
        if self.manifest.schema_fingerprint != build {
            let difference = first_difference(&self.manifest.features, schema);
            return Err(ModelError::OtherSchema { model: self.manifest.schema_fingerprint.clone(), build: build.to_owned(), difference });
        }
        // Features of the event itself are never missing as a group.
        let mut groups = schema.features().iter().map(Feature::group).filter(|group| *group != Group::Event);
        let never_masked = groups.find(|group| !self.manifest.masked_groups.iter().any(|masked| masked == group.name()));
        match never_masked {
            Some(group) => Err(ModelError::GroupNeverMasked { group: group.name().to_owned() }),
            None => Ok(()),
        }
    }

    /// The native evaluator, if the graph is a tree ensemble (optionally followed by a sigmoid).
    pub fn tree_ensemble(&self) -> Result<TreeEnsemble, ModelError> {
        TreeEnsemble::from_graph(&self.graph, self.manifest.features.len())
    }

    /// Scores every golden vector with `score` (the engine that will serve) and compares with the manifest.
    pub fn verify_golden(&self, mut score: impl FnMut(&[f32]) -> f32) -> Result<(), ModelError> {
        for (index, golden) in self.manifest.golden.iter().enumerate() {
            let actual = score(&golden.row());
            // Written so that a NaN fails.
            let close = (actual - golden.score).abs() <= GOLDEN_TOLERANCE;
            if !close {
                return Err(ModelError::GoldenDiffers { index, expected: golden.score, actual, tolerance: GOLDEN_TOLERANCE });
            }
        }
        Ok(())
    }
}

/// Names the first feature that differs, for the message; the fingerprint covers more than names.
fn first_difference(model: &[String], schema: &FeatureSchema) -> String {
    let build: Vec<&str> = schema.names().collect();
    if model.len() != build.len() {
        return format!(" ({} features instead of {})", model.len(), build.len());
    }
    let differing = model.iter().zip(&build).enumerate().find(|(_, (model, build))| model.as_str() != **build);
    match differing {
        Some((column, (model, build))) => format!(" (column {column} is `{model}` instead of `{build}`)"),
        None => " (same names, but another meaning: units, windows or function versions)".to_owned(),
    }
}

fn check_tensor(what: &'static str, name: &str, columns: usize, values: &[onnx::Value]) -> Result<(), ModelError> {
    let expected = format!("one float32 tensor `{name}` of shape [N, {columns}]");
    let [value] = values else {
        return Err(ModelError::BadSignature { what, actual: format!("{} tensors", values.len()), expected });
    };
    let tensor = value.kind.as_ref().and_then(|kind| kind.tensor.as_ref());
    let dimensions = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| shape.dimensions.as_slice());
    let element = tensor.map_or(0, |tensor| tensor.element);
    let fits = match dimensions {
        Some([rows, row]) => rows.size.is_none() && row.size.is_some_and(|size| usize::try_from(size) == Ok(columns)),
        _ => false,
    };
    if value.name == name && element == ELEMENT_FLOAT && fits {
        return Ok(());
    }
    let shape: Vec<String> =
        dimensions.unwrap_or_default().iter().map(|dimension| dimension.size.map_or("N".to_owned(), |size| size.to_string())).collect();
    let actual = format!("`{}` of element type {element} and shape [{}]", value.name, shape.join(", "));
    Err(ModelError::BadSignature { what, actual, expected })
}

#[cfg(test)]
mod tests {
    use scoring_core::windows::Windows;

    use super::*;

    /// The checked-in light model with another text in its manifest.
    fn light_with(from: &str, to: &str) -> Result<ModelPackage, ModelError> {
        let mut model = onnx::Model::decode(&include_bytes!("../../../models/light.onnx")[..]).unwrap();
        let manifest = &mut model.metadata[0].value;
        assert!(manifest.contains(from), "{from}");
        *manifest = manifest.replace(from, to);
        ModelPackage::parse(&model.encode_to_vec())
    }

    #[test]
    fn a_model_that_never_saw_a_group_missing_is_refused() {
        let package = light_with("\"velocity_card\"", "\"something_else\"").unwrap();
        let error = package.check_schema(&FeatureSchema::light(&Windows::default())).unwrap_err();
        assert_eq!(error, ModelError::GroupNeverMasked { group: "velocity_card".into() });
    }

    #[test]
    fn a_model_of_another_schema_is_refused_with_the_first_difference() {
        let schema = FeatureSchema::light(&Windows::default());
        let package = light_with("card_count_1m", "card_count_2m").unwrap();
        // The fingerprint is what counts; names only explain.
        package.check_schema(&schema).unwrap();
        let package = light_with(schema.fingerprint(), "ffff").unwrap();
        let error = package.check_schema(&schema).unwrap_err().to_string();
        assert!(error.contains("ffff") && error.contains("same names, but another meaning"), "{error}");
    }

    #[test]
    fn inputs_and_outputs_must_be_those_that_services_send_and_read() {
        let mut model = onnx::Model::decode(&include_bytes!("../../../models/light.onnx")[..]).unwrap();
        let graph = model.graph.as_mut().unwrap();
        graph.outputs[0].name = "probability".into();
        let error = ModelPackage::parse(&model.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains("the model's output is `probability`") && error.contains("`score` of shape [N, 1]"), "{error}");
    }
}
