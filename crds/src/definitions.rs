//! The CustomResourceDefinitions, as they are installed.
//!
//! What the derive macros produce is brought into the form that the API server and `kubectl explain` want. Pure.

use std::sync::OnceLock;

use kube::CustomResourceExt;
use serde_json::Value;

use crate::{ChaosDrill, FraudPipeline, PipelineAction, RegionFailover, RegionPlan};

/// The kinds of the group, in the order in which they are documented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    FraudPipeline,
    RegionPlan,
    RegionFailover,
    PipelineAction,
    ChaosDrill,
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::FraudPipeline, Self::RegionPlan, Self::RegionFailover, Self::PipelineAction, Self::ChaosDrill];

    /// Plural name, as in URLs, RBAC rules and file names.
    pub fn plural(self) -> &'static str {
        match self {
            Self::FraudPipeline => "fraudpipelines",
            Self::RegionPlan => "regionplans",
            Self::RegionFailover => "regionfailovers",
            Self::PipelineAction => "pipelineactions",
            Self::ChaosDrill => "chaosdrills",
        }
    }

    /// The CustomResourceDefinition, ready to be applied.
    ///
    /// # Errors
    /// Never for the types of this crate: all of them can be written as JSON.
    pub fn definition(self) -> Result<Value, serde_json::Error> {
        let derived = match self {
            Self::FraudPipeline => FraudPipeline::crd(),
            Self::RegionPlan => RegionPlan::crd(),
            Self::RegionFailover => RegionFailover::crd(),
            Self::PipelineAction => PipelineAction::crd(),
            Self::ChaosDrill => ChaosDrill::crd(),
        };
        let mut definition = serde_json::to_value(derived)?;
        if let Some(schema) = definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
            tidy(schema);
        }
        Ok(definition)
    }
}

/// All CustomResourceDefinitions, ready to be applied.
///
/// # Errors
/// As [`Kind::definition`].
pub fn definitions() -> Result<Vec<Value>, serde_json::Error> {
    Kind::ALL.into_iter().map(Kind::definition).collect()
}

/// The schema of `FraudPipeline.spec`: its defaults decide what an equal spec is.
pub(crate) fn pipeline_spec_schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let definition = Kind::FraudPipeline.definition().unwrap_or_default();
        definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").cloned().unwrap_or_default()
    })
}

/// Brings a derived schema into the form that is installed, at every depth.
fn tidy(schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    // An absent field is left out; `null` is refused, as for the built-in kinds.
    node.remove("nullable");
    drop_null_alternative(node);
    // The API server knows no unsigned formats and warns about them.
    if node.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
        node.remove("format");
    }
    for key in ["minimum", "maximum"] {
        // The typed definition holds bounds as floating-point numbers; all of ours are whole.
        if let Some(bound) = node.get(key).and_then(Value::as_f64).and_then(whole) {
            node.insert(key.into(), bound.into());
        }
    }
    if let Some(text) = node.get("description").and_then(Value::as_str).map(joined_lines) {
        node.insert("description".into(), Value::String(text));
    }
    if let Some(properties) = node.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(tidy);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = node.get_mut(key) {
            tidy(inner);
        }
    }
}

/// An optional enum is derived as "this or null"; without null, "this" remains.
fn drop_null_alternative(node: &mut serde_json::Map<String, Value>) {
    let Some(Value::Array(alternatives)) = node.get("anyOf") else { return };
    let mut real = alternatives.iter().filter(|one| one.pointer("/enum/0") != Some(&Value::Null));
    let (Some(Value::Object(only)), None) = (real.next().cloned(), real.next()) else { return };
    node.remove("anyOf");
    for (key, value) in only {
        node.entry(key).or_insert(value);
    }
}

fn whole(number: f64) -> Option<i64> {
    format!("{number:.0}").parse().ok()
}

/// Line breaks inside a paragraph come from the source code; `kubectl explain` wraps by itself.
fn joined_lines(text: &str) -> String {
    text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n\n")
}
