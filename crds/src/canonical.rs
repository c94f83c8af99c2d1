//! The canonical form of a spec: what regions compare, and what the plan pins. Pure.

use domain::canonical_json;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{FraudPipelineSpec, definitions::pipeline_spec_schema};

impl FraudPipelineSpec {
    /// The spec as JSON with default-valued fields left out and the regions in the order of their names: two manifests
    /// that mean the same have the same canonical form, whether or not they spell the defaults out, and whichever
    /// version of the definition their cluster has.
    ///
    /// # Errors
    /// Never for specs that were read from JSON.
    pub fn canonical(&self) -> Result<Value, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        drop_defaults(&mut value, pipeline_spec_schema());
        if let Some(Value::Array(regions)) = value.get_mut("regions") {
            regions.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
        }
        Ok(value)
    }

    /// SHA-256 of the canonical form, in lower-case hexadecimal.
    ///
    /// # Errors
    /// As [`Self::canonical`].
    pub fn digest(&self) -> Result<String, serde_json::Error> {
        Ok(hex::encode(Sha256::digest(canonical_json(&self.canonical()?))))
    }
}

/// Removes, at every depth, the members whose value is the schema's default.
fn drop_defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(members) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
            members.retain(|name, member| {
                let Some(property) = properties.get(name) else { return true };
                drop_defaults(member, property);
                let Some(mut default) = property.get("default").cloned() else { return true };
                drop_defaults(&mut default, property);
                default != *member
            });
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| drop_defaults(item, schema));
            }
        }
        _ => {}
    }
}
