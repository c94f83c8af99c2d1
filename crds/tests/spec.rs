//! What the operator asks of a spec: its canonical form, what holds in a region, what is not implemented.
#![allow(clippy::unwrap_used)]

use crds::{ComesWith, FraudPipeline, FraudPipelineSpec, not_implemented_in_use};
use sha2::{Digest, Sha256};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/payments.yaml");
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models");

fn example() -> FraudPipelineSpec {
    serde_yaml::from_str::<FraudPipeline>(&std::fs::read_to_string(EXAMPLE).unwrap()).unwrap().spec
}

/// The example with one value, at a JSON pointer, replaced.
fn with(pointer: &str, value: serde_json::Value) -> FraudPipelineSpec {
    let mut spec = serde_json::to_value(example()).unwrap();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(name.into(), value);
    serde_json::from_value(spec).unwrap()
}

#[test]
fn spelling_out_a_default_does_not_change_the_digest_and_another_value_does() {
    let digest = example().digest().unwrap();
    assert_eq!(with("/failover/maxDataLoss", "60s".into()).digest().unwrap(), digest);
    assert_eq!(with("/scoring/breakers/inference", serde_json::json!({"failures": 5, "open": "30s"})).digest().unwrap(), digest);
    assert_ne!(with("/failover/maxDataLoss", "61s".into()).digest().unwrap(), digest);
    assert_ne!(with("/scoring/thresholds/review", "0.6".into()).digest().unwrap(), digest);
}

#[test]
fn the_order_of_regions_does_not_change_the_digest() {
    let mut turned = example();
    turned.regions.reverse();
    assert_eq!(turned.digest().unwrap(), example().digest().unwrap());
}

#[test]
fn an_empty_union_member_is_not_a_default() {
    let spec = with("/model/rollout", serde_json::json!({}));
    assert!(spec.canonical().unwrap()["model"].get("rollout").is_some());
}

#[test]
fn a_canonical_spec_reads_back_as_the_same_spec() {
    let spec = example();
    let back: FraudPipelineSpec = serde_json::from_value(spec.canonical().unwrap()).unwrap();
    assert_eq!(back.digest().unwrap(), spec.digest().unwrap());
    assert_eq!(back.failover, spec.failover);
    assert_eq!(back.scoring, spec.scoring);
}

#[test]
fn overrides_hold_in_their_region_only() {
    let mut spec = example();
    let overrides = serde_json::json!({
        "scoring": {"decision": {"replicas": {"min": 3, "max": 9}}},
        "features": {"memory": "128Mi"},
    });
    spec.regions[1].overrides = Some(serde_json::from_value(overrides).unwrap());
    let (there, elsewhere) = (spec.effective_for("eu-west").unwrap(), spec.effective_for("us-east").unwrap());
    assert_eq!((there.spec.scoring.decision.replicas.min, there.spec.scoring.decision.replicas.max), (3, 9));
    assert_eq!(there.spec.features.memory.as_str(), "128Mi");
    assert_eq!(there.spec.scoring.inference, spec.scoring.inference);
    assert_eq!(elsewhere.spec, spec);
}

#[test]
fn a_region_that_the_manifest_lacks_is_named_with_those_that_it_has() {
    let error = example().effective_for("mars").unwrap_err().to_string();
    assert!(error.contains("\"mars\"") && error.contains("us-east, eu-west, ap-south"), "{error}");
}

#[test]
fn the_example_uses_nothing_that_is_not_implemented() {
    assert_eq!(not_implemented_in_use(&example()).unwrap(), []);
}

#[test]
fn what_is_not_implemented_is_found_with_its_path_and_its_issue() {
    let cases = [
        ("/failover/mode", serde_json::json!("Automatic"), "spec.failover", ComesWith::Issue7),
        ("/scoring/budgets/graph", serde_json::json!("20ms"), "spec.scoring.budgets.graph", ComesWith::Issue5),
        ("/scoring/inference/engine", serde_json::json!({"type": "InProcess"}), "spec.scoring.inference.engine.type", ComesWith::Issue5),
        (
            "/regions/0/kafka/authSecretRef",
            serde_json::json!({"name": "k"}),
            "spec.regions[us-east].kafka.authSecretRef",
            ComesWith::Issue6,
        ),
        ("/model/rollout", serde_json::json!({}), "spec.model.rollout", ComesWith::RolloutsAndDrills),
        ("/regions/1/kafka/tls", serde_json::json!({}), "spec.regions[eu-west].kafka.tls", ComesWith::Issue6),
    ];
    for (pointer, value, path, comes_with) in cases {
        let found = not_implemented_in_use(&with(pointer, value)).unwrap();
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
        assert_eq!((found[0].path.as_str(), found[0].comes_with), (path, comes_with));
        assert!(found[0].to_string().contains("is not implemented yet (it comes with "), "{}", found[0]);
    }
}

#[test]
fn setting_a_gated_field_to_its_default_is_not_using_it() {
    assert_eq!(not_implemented_in_use(&with("/failover/cooldown", "10m".into())).unwrap(), []);
}

#[test]
fn the_example_has_the_digests_of_the_models_that_are_checked_in() {
    let digest = |file: &str| hex::encode(Sha256::digest(std::fs::read(format!("{MODELS}/{file}")).unwrap()));
    let line = |file: &str, digest: &str| format!("sha256: \"{digest}\" # of models/{file}");
    let model = example().model;
    for (file, written) in [("full.onnx", model.sha256), ("light.onnx", model.light.unwrap().sha256)] {
        let is = digest(file);
        if std::env::var_os("BLESS").is_some() {
            let text = std::fs::read_to_string(EXAMPLE).unwrap();
            // In one step: the other tests read the file at the same time.
            let new = format!("{EXAMPLE}.new");
            std::fs::write(&new, text.replace(&line(file, written.as_str()), &line(file, &is))).unwrap();
            std::fs::rename(&new, EXAMPLE).unwrap();
        } else {
            assert_eq!(written.as_str(), is, "examples/payments.yaml, models/{file}: BLESS=1 cargo test -p crds --test spec writes it");
        }
    }
}
