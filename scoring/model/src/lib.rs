//! Model packages and the native evaluator of tree ensembles.
//!
//! A model package is one ONNX file. Its metadata carries a [`Manifest`]: which features the model was trained on, which
//! feature groups were masked in training, and golden vectors with the scores that ONNX Runtime gave them.
//!
//! The order in which a model is taken into service:
//! 1. [`ModelPackage::parse`] reads the bytes (bounded, never panics) and computes their SHA-256;
//! 2. [`ModelPackage::check_sha256`] and [`ModelPackage::check_schema`] say whether it is the wanted model and whether it fits the features;
//! 3. [`ModelPackage::tree_ensemble`] builds the native evaluator, if the graph is a tree ensemble (or the caller loads the bytes in ONNX Runtime);
//! 4. [`ModelPackage::verify_golden`] scores the golden vectors with whatever engine will serve, and compares.
//!
//! Does no IO: bytes come in, scores go out.
#![forbid(unsafe_code)]

mod error;
mod manifest;
mod onnx;
mod package;
mod trees;

pub use error::ModelError;
pub use manifest::{GoldenVector, MANIFEST_KEY, Manifest, ModelKind};
pub use package::{GOLDEN_TOLERANCE, INPUT_NAME, MODEL_BYTES_MAX, ModelPackage, OUTPUT_NAME};
pub use trees::TreeEnsemble;
