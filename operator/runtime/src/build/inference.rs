//! The inference service. Its Service has no address of its own: clients find every pod and balance between them.

use serde_json::{Value, json};

use super::{BuildError, BuildInput, digest, files, pod, scaling};
use crate::kinds::{Desired, Kind, Part, labels, merged, object, selector};

const PART: Part = Part::Inference;
pub(super) const GRPC_PORT: u16 = 8081;
const REST_PORT: u16 = 8082;
pub(super) const SHUTDOWN_GRACE_SECONDS: u64 = 25;
const DRAIN_SECONDS: u64 = 3;

pub(super) fn objects(input: &BuildInput<'_>) -> Result<Vec<Desired>, BuildError> {
    let name = input.name(PART.label());
    let config = files::inference(input)?;
    Ok(vec![
        scaling::service_account(input, PART),
        scaling::config_map(input, PART, name.clone(), files::KEY, &config.text),
        service(input, name.clone()),
        scaling::disruption_budget(input, PART, name.clone()),
        deployment(input, name, &config.restart_on),
        scaling::autoscaler(input, PART, Kind::Deployment, &input.effective.spec.scoring.inference.replicas),
    ])
}

fn service(input: &BuildInput<'_>, name: String) -> Desired {
    let spec = json!({
        "clusterIP": "None",
        "selector": selector(input.pipeline(), PART),
        "ports": [scaling::service_port("grpc", GRPC_PORT), scaling::service_port("rest", REST_PORT)],
    });
    object(input.owner, Kind::Service, name, labels(input.pipeline(), PART), json!({"spec": spec}))
}

fn deployment(input: &BuildInput<'_>, name: String, restart_on: &str) -> Desired {
    let inference = &input.effective.spec.scoring.inference;
    let mut volumes = vec![pod::config_map_volume("config", &name), pod::empty_dir("models", "512Mi"), pod::empty_dir("tmp", "64Mi")];
    volumes.extend(pod::bucket_secret(input).map(|(_, volume)| volume));
    let pod = pod::Pod {
        part: PART,
        labels: json!({}),
        container: container(input),
        volumes,
        config_digest: digest(restart_on),
        grace_seconds: DRAIN_SECONDS + SHUTDOWN_GRACE_SECONDS + 5,
    };
    let spec = json!({
        "revisionHistoryLimit": 5,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "selector": {"matchLabels": selector(input.pipeline(), PART)},
        "template": pod::template(input, pod, &inference.pod_template),
    });
    object(input.owner, Kind::Deployment, name, labels(input.pipeline(), PART), json!({"spec": spec}))
}

fn container(input: &BuildInput<'_>) -> Value {
    let mut mounts = vec![
        pod::mount("config", files::CONFIG_FOLDER),
        pod::writable_mount("models", files::MODELS_FOLDER),
        pod::writable_mount("tmp", "/tmp"),
    ];
    mounts.extend(pod::bucket_secret(input).map(|(mount, _)| mount));
    let container = json!({
        "name": PART.label(),
        "image": input.images.inference,
        "args": ["--config", files::config_path()],
        "ports": [pod::port("grpc", GRPC_PORT), pod::port("rest", REST_PORT), pod::port("admin", pod::ADMIN_PORT)],
        "resources": pod::resources(&input.effective.spec.scoring.inference.resources, "100m", "192Mi", "768Mi"),
        "volumeMounts": mounts,
        "lifecycle": pod::drain(DRAIN_SECONDS),
    });
    merged(container, pod::admin_probes())
}
