//! A small model file, written by hand: one tree of one split, then a sigmoid. Its scores are known without any engine.

use prost::Message;
use scoring_core::{schema::FeatureSchema, windows::Windows};
use serde_json::json;
use sha2::{Digest, Sha256};

/// What the test model is made of.
#[derive(Clone)]
pub(crate) struct TestModel {
    pub(crate) version: String,
    /// Log-odds of rows whose first feature is at most [`THRESHOLD`], or missing.
    pub(crate) low: f32,
    pub(crate) schema_fingerprint: Option<String>,
    pub(crate) golden_error: f32,
}

pub(crate) const THRESHOLD: f32 = 0.5;
const HIGH: f32 = 2.0;

impl Default for TestModel {
    fn default() -> Self {
        Self { version: "1".into(), low: -2.0, schema_fingerprint: None, golden_error: 0.0 }
    }
}

impl TestModel {
    pub(crate) fn features() -> usize {
        schema().width()
    }

    pub(crate) fn score(&self, row: &[f32]) -> f32 {
        let log_odds = if row[0].is_nan() || row[0] <= THRESHOLD { self.low } else { HIGH };
        1.0 / (1.0 + (-log_odds).exp())
    }

    /// The file, and its SHA-256.
    pub(crate) fn bytes(&self) -> (Vec<u8>, String) {
        let tensor = |name: &str, columns: usize| Value {
            name: name.into(),
            kind: Some(Type { tensor: Some(TensorType { element: 1, shape: Some(shape(columns)) }) }),
        };
        let graph = Graph {
            nodes: vec![
                node("TreeEnsembleRegressor", "ai.onnx.ml", "features", "log_odds", self.tree()),
                node("Sigmoid", "", "log_odds", "score", vec![]),
            ],
            name: "test".into(),
            inputs: vec![tensor("features", Self::features())],
            outputs: vec![tensor("score", 1)],
        };
        let model = Model {
            ir_version: 8,
            graph: Some(graph),
            opsets: vec![Opset { domain: "ai.onnx.ml".into(), version: 3 }, Opset { domain: String::new(), version: 17 }],
            metadata: vec![Property { key: scoring_model::MANIFEST_KEY.into(), value: self.manifest() }],
        };
        let bytes = model.encode_to_vec();
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (bytes, sha256)
    }

    fn tree(&self) -> Vec<Attribute> {
        vec![
            ints("nodes_treeids", &[0, 0, 0]),
            ints("nodes_nodeids", &[0, 1, 2]),
            ints("nodes_featureids", &[0, 0, 0]),
            floats("nodes_values", &[THRESHOLD, 0.0, 0.0]),
            Attribute {
                name: "nodes_modes".into(),
                strings: ["BRANCH_LEQ", "LEAF", "LEAF"].map(|mode| mode.as_bytes().to_vec()).to_vec(),
                kind: 8,
                ..Default::default()
            },
            ints("nodes_truenodeids", &[1, 0, 0]),
            ints("nodes_falsenodeids", &[2, 0, 0]),
            ints("nodes_missing_value_tracks_true", &[1, 0, 0]),
            ints("target_treeids", &[0, 0]),
            ints("target_nodeids", &[1, 2]),
            ints("target_ids", &[0, 0]),
            floats("target_weights", &[self.low, HIGH]),
            Attribute { name: "n_targets".into(), int: 1, kind: 2, ..Default::default() },
        ]
    }

    fn manifest(&self) -> String {
        let schema = schema();
        let golden: Vec<_> = (0..16_u8)
            .map(|number| {
                let mut row = vec![0.0_f32; Self::features()];
                row[0] = if number == 0 { f32::NAN } else { f32::from(number) / 8.0 };
                let shown: Vec<Option<f32>> = row.iter().map(|value| (!value.is_nan()).then_some(*value)).collect();
                json!({"features": shown, "score": self.score(&row) + self.golden_error})
            })
            .collect();
        let mut groups: Vec<&str> = schema.features().iter().map(|feature| feature.group().name()).collect();
        groups.dedup();
        json!({
            "format": 1, "name": "test", "version": self.version, "kind": "full",
            "schema_fingerprint": self.schema_fingerprint.clone().unwrap_or_else(|| schema.fingerprint().to_owned()),
            "features": schema.names().collect::<Vec<_>>(),
            "masked_groups": groups, "golden": golden, "metrics": {}, "training": {},
        })
        .to_string()
    }
}

fn schema() -> FeatureSchema {
    FeatureSchema::full(&Windows::default())
}

fn shape(columns: usize) -> Shape {
    let rows = Dimension { size: None, name: Some("N".into()) };
    Shape { dimensions: vec![rows, Dimension { size: Some(i64::try_from(columns).unwrap()), name: None }] }
}

fn node(operator: &str, domain: &str, input: &str, output: &str, attributes: Vec<Attribute>) -> Node {
    Node { inputs: vec![input.into()], outputs: vec![output.into()], operator: operator.into(), attributes, domain: domain.into() }
}

fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute { name: name.into(), ints: ints.to_vec(), kind: 7, ..Default::default() }
}

fn floats(name: &str, floats: &[f32]) -> Attribute {
    Attribute { name: name.into(), floats: floats.to_vec(), kind: 6, ..Default::default() }
}

// Field numbers are those of the ONNX specification.

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    opsets: Vec<Opset>,
    #[prost(message, repeated, tag = "14")]
    metadata: Vec<Property>,
}

#[derive(Clone, PartialEq, Message)]
struct Opset {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Property {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "11")]
    inputs: Vec<Value>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
    #[prost(string, tag = "7")]
    domain: String,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    int: i64,
    #[prost(float, repeated, tag = "7")]
    floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    strings: Vec<Vec<u8>>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<Type>,
}

#[derive(Clone, PartialEq, Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Clone, PartialEq, Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    dimensions: Vec<Dimension>,
}

#[derive(Clone, PartialEq, Message)]
struct Dimension {
    #[prost(int64, optional, tag = "1")]
    size: Option<i64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
}
