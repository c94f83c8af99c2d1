//! What tests share. Only in test builds.

use crds::FraudPipeline;

use crate::config::OperatorConfig;

pub(crate) fn example() -> FraudPipeline {
    let mut pipeline: FraudPipeline = serde_yaml::from_str(include_str!("../../../examples/payments.yaml")).unwrap();
    pipeline.metadata.uid = Some("11111111-2222-3333-4444-555555555555".into());
    pipeline.metadata.generation = Some(1);
    pipeline
}

pub(crate) fn operator_config(region: &str) -> OperatorConfig {
    let image = |name: &str| format!("docker.io/fraudpipeline/{name}:test");
    serde_json::from_value(serde_json::json!({
        "region": region,
        "dataPlaneVersions": {"0.1.0": {
            "decision": image("scoring-decision"),
            "inference": image("scoring-inference"),
            "builder": image("scoring-builder"),
            "replicator": image("replicator"),
            "redis": image("redis"),
        }},
    }))
    .unwrap()
}
