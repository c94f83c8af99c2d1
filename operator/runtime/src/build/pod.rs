//! What all pods have in common: the restricted Pod Security level, a read-only root file system, no token, no privilege,
//! spread over nodes and zones, and probes that tell started, alive and ready apart.

use crds::{
    common::{ContainerResources, PodTemplate, TaintEffect, TolerationOperator},
    names,
};
use serde_json::{Map, Value, json};

use super::BuildInput;
use crate::kinds::{Part, merged, selector};

/// User and group of every container; no image brings one of its own.
const USER: i64 = 65_532;

pub(super) const ADMIN_PORT: u16 = 9090;

pub(super) struct Pod {
    pub(super) part: Part,
    /// Labels beside those of the part.
    pub(super) labels: Value,
    pub(super) container: Value,
    pub(super) volumes: Vec<Value>,
    /// Pods are replaced when this changes.
    pub(super) config_digest: String,
    pub(super) grace_seconds: u64,
}

/// The pod template, with what the manifest adds to it.
pub(super) fn template(input: &BuildInput<'_>, pod: Pod, additions: &PodTemplate) -> Value {
    let own_labels = merged(merged(selector(input.pipeline(), pod.part), managed_by()), pod.labels);
    let annotations = json!({names::CONFIG_DIGEST_ANNOTATION: pod.config_digest});
    let mut spec = json!({
        "serviceAccountName": input.name(pod.part.label()),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": pod.grace_seconds,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": spread(input, pod.part),
        "containers": [secured(pod.container)],
        "volumes": pod.volumes,
    });
    add_placement(&mut spec, additions);
    json!({
        "metadata": {
            "labels": merged(foreign(&additions.labels), own_labels),
            "annotations": merged(foreign(&additions.annotations), annotations),
        },
        "spec": spec,
    })
}

fn managed_by() -> Value {
    json!({names::MANAGED_BY_LABEL: names::MANAGED_BY_LABEL_VALUE})
}

/// What the manifest adds, without the keys that are the operator's.
fn foreign(additions: &std::collections::BTreeMap<String, String>) -> Value {
    let ours = |key: &str| {
        key.starts_with("app.kubernetes.io/") || key.split('/').next().is_some_and(|prefix| prefix.ends_with("fraudpipeline.dev"))
    };
    Value::Object(additions.iter().filter(|(key, _)| !ours(key)).map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect())
}

fn secured(container: Value) -> Value {
    let security = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    merged(json!({"imagePullPolicy": "IfNotPresent", "securityContext": security}), container)
}

/// Over zones and nodes, as far as there are some: a pod that cannot be spread still runs.
fn spread(input: &BuildInput<'_>, part: Part) -> Value {
    let over = |key: &str| {
        json!({
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(input.pipeline(), part)},
        })
    };
    json!([over("topology.kubernetes.io/zone"), over("kubernetes.io/hostname")])
}

fn add_placement(spec: &mut Value, additions: &PodTemplate) {
    let Value::Object(spec) = spec else { return };
    if !additions.node_selector.is_empty() {
        spec.insert("nodeSelector".into(), json!(additions.node_selector));
    }
    if let Some(class) = &additions.priority_class_name {
        spec.insert("priorityClassName".into(), json!(class));
    }
    if !additions.tolerations.is_empty() {
        spec.insert("tolerations".into(), additions.tolerations.iter().map(toleration).collect());
    }
}

fn toleration(given: &crds::common::PodToleration) -> Value {
    let operator = match given.operator {
        TolerationOperator::Equal => "Equal",
        TolerationOperator::Exists => "Exists",
    };
    let mut members = Map::from_iter([("operator".to_owned(), json!(operator))]);
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            members.insert(name.to_owned(), value);
        }
    };
    add("key", given.key.as_ref().map(|key| json!(key)));
    add("value", given.value.as_ref().map(|value| json!(value)));
    add("tolerationSeconds", given.toleration_seconds.map(|seconds| json!(seconds)));
    let effect = given.effect.map(|effect| match effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    });
    add("effect", effect.map(|effect| json!(effect)));
    Value::Object(members)
}

/// A container's amounts: what the manifest gives, else the operator's. No limit on processors: throttling costs more
/// latency than it protects from.
pub(super) fn resources(given: &ContainerResources, cpu: &str, memory: &str, memory_limit: &str) -> Value {
    let requests = given.requests.as_ref();
    let limits = given.limits.as_ref();
    let text = |amount: Option<&crds::text::QuantityText>, default: &str| amount.map_or(default, |amount| amount.as_str()).to_owned();
    let memory = text(requests.and_then(|amounts| amounts.memory.as_ref()), memory);
    // A request above the default limit must not make an impossible pod.
    let default_limit = if requests.is_some_and(|amounts| amounts.memory.is_some()) { memory.as_str() } else { memory_limit };
    let mut upper = json!({"memory": text(limits.and_then(|amounts| amounts.memory.as_ref()), default_limit)});
    if let Some(cpu) = limits.and_then(|amounts| amounts.cpu.as_ref()) {
        upper["cpu"] = json!(cpu.as_str());
    }
    json!({"requests": {"cpu": text(requests.and_then(|amounts| amounts.cpu.as_ref()), cpu), "memory": memory}, "limits": upper})
}

/// Probes of a process with an admin port. Start may take a minute; afterwards a process that does not answer for 30 s is
/// replaced, and one that is not ready gets no requests within 2 s.
pub(super) fn admin_probes() -> Value {
    let get = |path: &str| json!({"path": path, "port": "admin"});
    json!({
        "startupProbe": {"httpGet": get("/livez"), "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"httpGet": get("/livez"), "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3},
        "readinessProbe": {"httpGet": get("/readyz"), "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 1},
    })
}

/// Waits before SIGTERM until no Service sends new requests here.
pub(super) fn drain(seconds: u64) -> Value {
    json!({"preStop": {"sleep": {"seconds": seconds}}})
}

pub(super) fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "containerPort": number, "protocol": "TCP"})
}

pub(super) fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path, "readOnly": true})
}

pub(super) fn writable_mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path})
}

pub(super) fn config_map_volume(name: &str, config_map: &str) -> Value {
    json!({"name": name, "configMap": {"name": config_map, "defaultMode": 0o444}})
}

/// Only the named keys of a Secret, each as a file.
pub(super) fn secret_files(name: &str, secret: &str, items: &[(&str, &str)]) -> Value {
    let items: Vec<_> = items.iter().map(|(key, path)| json!({"key": key, "path": path})).collect();
    json!({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}})
}

pub(super) fn secret_volume(name: &str, secret: &str) -> Value {
    json!({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}})
}

pub(super) fn empty_dir(name: &str, size_limit: &str) -> Value {
    json!({"name": name, "emptyDir": {"sizeLimit": size_limit}})
}

/// The credentials of this region's bucket of models, as mount and volume; none if its requests are not signed.
pub(super) fn bucket_secret(input: &BuildInput<'_>) -> Option<(Value, Value)> {
    let secret = input.effective.region.model.as_ref()?.secret_ref.as_ref()?;
    let keys = [("accessKeyId", "accessKeyId"), ("secretAccessKey", "secretAccessKey")];
    Some((mount("bucket", super::files::BUCKET_FOLDER), secret_files("bucket", secret.name.as_str(), &keys)))
}
