//! Every leaf counts: each field of the schema either takes effect, or stands in the list of those that do not yet.

use std::collections::BTreeSet;

use crds::{IMPLEMENTED, KIND_GATES, Kind, PIPELINE_GATES, leaves};

/// Whether `leaf` is the gated path or lies below it.
fn lies_in(leaf: &str, gated: &str) -> bool {
    leaf.strip_prefix(gated).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn whole_branch_gates() -> Vec<&'static str> {
    PIPELINE_GATES.iter().filter(|gate| gate.values.is_empty()).map(|gate| gate.path).collect()
}

#[test]
fn every_leaf_takes_effect_or_names_the_issue_that_it_comes_with() {
    let gates = whole_branch_gates();
    let implemented: BTreeSet<&str> = IMPLEMENTED.iter().map(|(path, _)| *path).collect();
    for leaf in leaves(Kind::FraudPipeline).unwrap() {
        let gated: Vec<_> = gates.iter().filter(|gate| lies_in(&leaf, gate)).collect();
        match (implemented.contains(leaf.as_str()), gated.as_slice()) {
            (true, []) | (false, [_]) => {}
            (true, gates) => panic!("spec.{leaf} is listed as implemented, and also as not implemented by {gates:?}"),
            (false, []) => panic!("spec.{leaf} is in no list: add it to IMPLEMENTED with where it takes effect, or to PIPELINE_GATES"),
            (false, several) => panic!("spec.{leaf} is covered by several gates: {several:?}"),
        }
    }
}

#[test]
fn no_list_has_an_entry_that_the_schema_does_not_have() {
    let leaves = leaves(Kind::FraudPipeline).unwrap();
    for (path, _) in IMPLEMENTED {
        assert!(leaves.iter().any(|leaf| leaf == path), "IMPLEMENTED has spec.{path}, which the schema does not have");
    }
    for gate in PIPELINE_GATES {
        assert!(
            leaves.iter().any(|leaf| lies_in(leaf, gate.path)),
            "PIPELINE_GATES has spec.{}, which the schema does not have",
            gate.path
        );
    }
    let distinct: BTreeSet<&str> = IMPLEMENTED.iter().map(|(path, _)| *path).collect();
    assert_eq!(distinct.len(), IMPLEMENTED.len(), "IMPLEMENTED names a path twice");
}

#[test]
fn a_gate_on_single_values_is_on_a_leaf_whose_other_values_take_effect_and_names_values_of_the_enum() {
    let definition = Kind::FraudPipeline.definition().unwrap();
    for gate in PIPELINE_GATES.iter().filter(|gate| !gate.values.is_empty()) {
        assert!(IMPLEMENTED.iter().any(|(path, _)| *path == gate.path), "spec.{} must be in IMPLEMENTED too", gate.path);
        let mut pointer = "/spec/versions/0/schema/openAPIV3Schema/properties/spec".to_owned();
        for part in gate.path.split('.') {
            pointer.push_str("/properties/");
            pointer.push_str(part.trim_end_matches("[]"));
            if part.ends_with("[]") {
                pointer.push_str("/items");
            }
        }
        let allowed = definition.pointer(&format!("{pointer}/enum")).unwrap().as_array().unwrap();
        for value in gate.values {
            assert!(allowed.iter().any(|one| one == value), "spec.{} has no value {value}", gate.path);
        }
    }
}

#[test]
fn a_kind_is_acted_on_or_gated_as_a_whole() {
    let gated: BTreeSet<Kind> = KIND_GATES.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(gated.len(), KIND_GATES.len());
    // The two kinds that the operator reads and writes.
    assert!(!gated.contains(&Kind::FraudPipeline) && !gated.contains(&Kind::RegionPlan));
    assert_eq!(gated.len() + 2, Kind::ALL.len());
}

#[test]
fn every_field_is_explained_and_every_list_string_and_map_is_bounded() {
    for kind in Kind::ALL {
        let definition = kind.definition().unwrap();
        let schema = definition.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").unwrap();
        for part in ["spec", "status"] {
            check_node(&schema[part], &format!("{}.{part}", kind.plural()));
        }
    }
}

fn check_node(schema: &serde_json::Value, path: &str) {
    let has = |key: &str| schema.get(key).is_some();
    match schema["type"].as_str() {
        Some("string") => assert!(has("maxLength") || has("enum") || schema["format"] == "date-time", "{path}: a string without maxLength"),
        Some("array") => {
            assert!(has("maxItems"), "{path}: a list without maxItems");
            check_node(&schema["items"], &format!("{path}[]"));
        }
        Some("object") if has("additionalProperties") => assert!(has("maxProperties"), "{path}: a map without maxProperties"),
        Some("integer") => assert!(
            path.contains(".status") || (has("minimum") && (has("maximum") || schema["format"] == "int64")),
            "{path}: a number without bounds"
        ),
        _ => {}
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let explained = property["description"].as_str().is_some_and(|text| text.ends_with('.'));
        assert!(explained, "{path}: kubectl explain would show no sentence");
        check_node(property, &path);
    }
}

#[test]
fn the_default_of_an_object_is_made_of_the_defaults_of_its_members() {
    for kind in Kind::ALL {
        let definition = kind.definition().unwrap();
        check_defaults(&definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], kind.plural());
    }
}

fn check_defaults(schema: &serde_json::Value, path: &str) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let defaults = property["default"].as_object().into_iter().flatten();
        for (member, default) in defaults.filter(|_| property.get("required").is_none()) {
            assert_eq!(&property["properties"][member]["default"], default, "{path}.{member} has two defaults");
        }
        check_defaults(property, &path);
        check_defaults(&property["items"], &path);
    }
}
