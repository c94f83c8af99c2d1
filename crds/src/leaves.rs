//! The leaves of a schema: every value that a manifest can set. Pure.

use serde_json::Value;

use crate::Kind;

/// Paths of all leaves below `spec` of a kind, such as `regions[].kafka.bootstrapServers`. A list of plain values, a map
/// and an object without members are one leaf each.
///
/// # Errors
/// As [`Kind::definition`].
pub fn leaves(kind: Kind) -> Result<Vec<String>, serde_json::Error> {
    let definition = kind.definition()?;
    let mut found = Vec::new();
    if let Some(spec) = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec") {
        collect(spec, "", &mut found);
    }
    Ok(found)
}

fn collect(schema: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(items) = schema.get("items").filter(|items| items.get("properties").is_some()) {
        return collect(items, &format!("{path}[]"), found);
    }
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        found.push(path.to_owned());
        return;
    };
    for (name, property) in properties {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(property, &path, found);
    }
}
