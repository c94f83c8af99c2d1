//! Autoscalers, disruption budgets, service accounts and the ConfigMap of a part.

use crds::common::Replicas;
use serde_json::{Value, json};

use super::BuildInput;
use crate::kinds::{Desired, Kind, Part, labels, object, selector};

/// Follows processors at 60 % and, where the cluster has custom metrics, the slowest hundredth of requests at 80 ms.
/// Quick up, slow down: 10 pods each 30 s, and five minutes of calm before fewer.
pub(super) fn autoscaler(input: &BuildInput<'_>, part: Part, target: Kind, replicas: &Replicas) -> Desired {
    let name = input.name(part.label());
    let resource = target.api_resource();
    let mut metrics =
        vec![json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}})];
    if input.cluster.custom_metrics && part == Part::Decision {
        metrics.push(json!({"type": "Pods", "pods": {"metric": {"name": "request_latency_p99"}, "target": {"type": "AverageValue", "averageValue": "80m"}}}));
    }
    let spec = json!({
        "scaleTargetRef": {"apiVersion": resource.api_version, "kind": resource.kind, "name": name},
        "minReplicas": replicas.min,
        "maxReplicas": replicas.max,
        "metrics": metrics,
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [{"type": "Pods", "value": 10, "periodSeconds": 30}]},
            "scaleDown": {"stabilizationWindowSeconds": 300, "selectPolicy": "Max", "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}]},
        },
    });
    object(input.owner, Kind::HorizontalPodAutoscaler, name, labels(input.pipeline(), part), json!({"spec": spec}))
}

/// One pod at a time leaves by itself.
pub(super) fn disruption_budget(input: &BuildInput<'_>, part: Part, name: String) -> Desired {
    let spec = json!({
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(input.pipeline(), part)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    });
    object(input.owner, Kind::PodDisruptionBudget, name, labels(input.pipeline(), part), json!({"spec": spec}))
}

/// Pods need no token; an account of their own keeps others' rights away from them.
pub(super) fn service_account(input: &BuildInput<'_>, part: Part) -> Desired {
    let fields = json!({"automountServiceAccountToken": false});
    object(input.owner, Kind::ServiceAccount, input.name(part.label()), labels(input.pipeline(), part), fields)
}

pub(super) fn config_map(input: &BuildInput<'_>, part: Part, name: String, key: &str, text: &str) -> Desired {
    object(input.owner, Kind::ConfigMap, name, labels(input.pipeline(), part), json!({"data": {key: text}}))
}

/// A Service port that leads to the container's port of the same name.
pub(super) fn service_port(name: &str, number: u16) -> Value {
    json!({"name": name, "port": number, "targetPort": name, "protocol": "TCP"})
}
