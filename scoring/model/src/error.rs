//! What can be wrong with a model, in sentences that say what to do. No IO.

/// Why a model is not taken into service. What runs keeps running.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ModelError {
    #[error("the model has {bytes} bytes, more than the {bytes_max} allowed: train a smaller one (fewer trees or leaves)")]
    TooLarge { bytes: usize, bytes_max: usize },

    #[error("the file is not an ONNX model ({why}): check that the URI names the .onnx file itself and that the download is complete")]
    NotOnnx { why: String },

    #[error(
        "the model's SHA-256 is {actual}, but {expected} is wanted: put the right file at the URI, or set sha256 to the digest of the file that you mean"
    )]
    OtherDigest { expected: String, actual: String },

    #[error("the model has no metadata entry `{key}`: export it with models/train.py, which writes the manifest")]
    NoManifest { key: &'static str },

    #[error("the model's manifest is wrong: {why}: export it again with models/train.py")]
    BadManifest { why: String },

    #[error(
        "the model was trained on feature schema {model}, but this build computes {build}{difference}: train it anew on features of this build (fraud-payments features, then models/train.py)"
    )]
    OtherSchema { model: String, build: String, difference: String },

    #[error(
        "the model has never seen feature group `{group}` missing, which can happen in service: train it with that group masked in a share of the rows (models/train.py masks every group of the schema)"
    )]
    GroupNeverMasked { group: String },

    #[error("the model's {what} is {actual}, but must be {expected}: export it with models/train.py")]
    BadSignature { what: &'static str, actual: String, expected: String },

    #[error(
        "the model's graph is not a tree ensemble that the native evaluator knows ({why}): serve it with the inference service, which runs ONNX Runtime"
    )]
    NotATreeEnsemble { why: String },

    #[error("the model's trees are broken: {why}: export the model again")]
    BrokenTrees { why: String },

    #[error(
        "golden vector {index}: the model scored {actual}, but {expected} is written in its manifest (allowed difference {tolerance}): the engine and the file do not belong together; export the model again, or report the engine's version"
    )]
    GoldenDiffers { index: usize, expected: f32, actual: f32, tolerance: f32 },

    #[error("{values} values are not whole rows of {features} features")]
    BadShape { values: usize, features: usize },
}
