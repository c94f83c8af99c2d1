//! The decision service: a StatefulSet, so that each pod keeps the volume of its write-ahead log.

use crds::region::IngressServiceType;
use serde_json::{Value, json};

use super::{BuildError, BuildInput, digest, files, pod, scaling};
use crate::kinds::{Desired, Kind, Part, labels, merged, object, selector};

const PART: Part = Part::Decision;
const GRPC_PORT: u16 = 8443;
const REST_PORT: u16 = 8080;
/// Most time that the process takes between SIGTERM and its end; in its configuration too.
pub(super) const SHUTDOWN_GRACE_SECONDS: u64 = 25;
/// Size of each pod's write-ahead log: it holds what Kafka has not acknowledged, for minutes and not for days.
const LOG_VOLUME: &str = "1Gi";

pub(super) fn objects(input: &BuildInput<'_>) -> Result<Vec<Desired>, BuildError> {
    let name = input.name(PART.label());
    let config = files::decision(input)?;
    Ok(vec![
        scaling::service_account(input, PART),
        scaling::config_map(input, PART, name.clone(), files::KEY, &config),
        service(input, name.clone()),
        scaling::disruption_budget(input, PART, name.clone()),
        stateful_set(input, name, &config)?,
        scaling::autoscaler(input, PART, Kind::StatefulSet, &input.effective.spec.scoring.decision.replicas),
    ])
}

fn service(input: &BuildInput<'_>, name: String) -> Desired {
    let mut grpc = scaling::service_port("grpc", GRPC_PORT);
    let mut rest = scaling::service_port("rest", REST_PORT);
    let asked = input.effective.region.ingress.as_ref().and_then(|ingress| ingress.service.as_ref());
    if let Some(ports) = asked.and_then(|service| service.node_ports.as_ref()) {
        grpc["nodePort"] = json!(ports.grpc);
        rest["nodePort"] = json!(ports.rest);
    }
    let kind = asked.map_or("ClusterIP", |service| match service.kind {
        IngressServiceType::LoadBalancer => "LoadBalancer",
        IngressServiceType::NodePort => "NodePort",
    });
    let spec = json!({"type": kind, "selector": selector(input.pipeline(), PART), "ports": [grpc, rest]});
    let mut service = object(input.owner, Kind::Service, name, labels(input.pipeline(), PART), json!({"spec": spec}));
    if let Some(annotations) = asked.map(|service| &service.annotations).filter(|annotations| !annotations.is_empty()) {
        service.value["metadata"]["annotations"] = json!(annotations);
    }
    service
}

fn stateful_set(input: &BuildInput<'_>, name: String, config: &str) -> Result<Desired, BuildError> {
    let decision = &input.effective.spec.scoring.decision;
    let deadline = input.effective.spec.scoring.deadline.to_std().map_err(|error| BuildError::new("scoring.deadline", error))?;
    // Longer than the longest request, so that whoever was still sent here is answered.
    let drain_seconds = deadline.as_secs() + 3;
    let pod = pod::Pod {
        part: PART,
        labels: json!({}),
        container: container(input, drain_seconds),
        volumes: volumes(input, &name),
        config_digest: digest(config),
        grace_seconds: drain_seconds + SHUTDOWN_GRACE_SECONDS + 5,
    };
    let spec = json!({
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 5,
        // A log that was not replayed must outlive its pod, a scale-down and the pipeline.
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": selector(input.pipeline(), PART)},
        "template": pod::template(input, pod, &decision.pod_template),
        "volumeClaimTemplates": [log_volume(input)],
    });
    Ok(object(input.owner, Kind::StatefulSet, name, labels(input.pipeline(), PART), json!({"spec": spec})))
}

fn container(input: &BuildInput<'_>, drain_seconds: u64) -> Value {
    let mut mounts = vec![
        pod::mount("config", files::CONFIG_FOLDER),
        pod::mount("plan", files::PLAN_FOLDER),
        pod::mount("rules", files::RULES_FOLDER),
        pod::mount("pii", files::PII_FOLDER),
        pod::mount("redis", files::REDIS_FOLDER),
        pod::mount("redis-tls", files::REDIS_TLS_FOLDER),
        pod::writable_mount("wal", "/var/lib/fraudpipeline/wal"),
        pod::writable_mount("tmp", "/tmp"),
    ];
    if input.effective.spec.currency.rates_ref.is_some() {
        mounts.push(pod::mount("rates", files::RATES_FOLDER));
    }
    mounts.extend(pod::bucket_secret(input).map(|(mount, _)| mount));
    let container = json!({
        "name": PART.label(),
        "image": input.images.decision,
        "args": ["--config", files::config_path(), "--plan", files::plan_path()],
        "ports": [pod::port("grpc", GRPC_PORT), pod::port("rest", REST_PORT), pod::port("admin", pod::ADMIN_PORT)],
        "resources": pod::resources(&input.effective.spec.scoring.decision.resources, "100m", "128Mi", "512Mi"),
        "volumeMounts": mounts,
        "lifecycle": pod::drain(drain_seconds),
    });
    merged(container, pod::admin_probes())
}

fn volumes(input: &BuildInput<'_>, name: &str) -> Vec<Value> {
    let spec = &input.effective.spec;
    let mut volumes = vec![
        pod::config_map_volume("config", name),
        pod::config_map_volume("plan", &input.name("plan")),
        pod::config_map_volume("rules", spec.rules.config_map_ref.name.as_str()),
        pod::secret_volume("pii", spec.privacy.key_secret_ref.name.as_str()),
        pod::secret_files("redis", &input.name("redis"), &[("decision.password", "password")]),
        pod::secret_files("redis-tls", &input.name("redis-tls"), &[("ca.crt", "ca.crt")]),
        pod::empty_dir("tmp", "64Mi"),
    ];
    if let Some(rates) = &spec.currency.rates_ref {
        volumes.push(pod::config_map_volume("rates", rates.name.as_str()));
    }
    volumes.extend(pod::bucket_secret(input).map(|(_, volume)| volume));
    volumes
}

fn log_volume(input: &BuildInput<'_>) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": LOG_VOLUME}}});
    if let Some(class) = &input.effective.spec.features.storage_class_name {
        spec["storageClassName"] = json!(class);
    }
    json!({"metadata": {"name": "wal", "labels": selector(input.pipeline(), PART)}, "spec": spec})
}
