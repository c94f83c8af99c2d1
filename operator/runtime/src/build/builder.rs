//! The feature builder: folds the event logs into the feature store.

use serde_json::{Value, json};

use super::{BuildError, BuildInput, digest, files, pod, scaling};
use crate::kinds::{Desired, Kind, Part, labels, merged, object, selector};

const PART: Part = Part::Builder;
pub(super) const SHUTDOWN_GRACE_SECONDS: u64 = 25;

pub(super) fn objects(input: &BuildInput<'_>) -> Result<Vec<Desired>, BuildError> {
    let name = input.name(PART.label());
    let config = files::builder(input)?;
    Ok(vec![
        scaling::service_account(input, PART),
        scaling::config_map(input, PART, name.clone(), files::KEY, &config),
        deployment(input, name, &config),
    ])
}

fn deployment(input: &BuildInput<'_>, name: String, config: &str) -> Desired {
    let pod = pod::Pod {
        part: PART,
        labels: json!({}),
        container: container(input),
        volumes: vec![
            pod::config_map_volume("config", &name),
            pod::config_map_volume("plan", &input.name("plan")),
            pod::secret_files("redis", &input.name("redis"), &[("builder.password", "password")]),
            pod::secret_files("redis-tls", &input.name("redis-tls"), &[("ca.crt", "ca.crt")]),
            pod::empty_dir("tmp", "64Mi"),
        ],
        config_digest: digest(config),
        grace_seconds: SHUTDOWN_GRACE_SECONDS + 5,
    };
    let spec = json!({
        "replicas": 1,
        "revisionHistoryLimit": 5,
        // One at a time: each checks and sets the positions that are stored beside the features.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": selector(input.pipeline(), PART)},
        "template": pod::template(input, pod, &crds::common::PodTemplate::default()),
    });
    object(input.owner, Kind::Deployment, name, labels(input.pipeline(), PART), json!({"spec": spec}))
}

fn container(input: &BuildInput<'_>) -> Value {
    let container = json!({
        "name": PART.label(),
        "image": input.images.builder,
        "args": ["--config", files::config_path(), "--plan", files::plan_path()],
        "ports": [pod::port("admin", pod::ADMIN_PORT)],
        "resources": pod::resources(&crds::common::ContainerResources::default(), "50m", "64Mi", "256Mi"),
        "volumeMounts": [
            pod::mount("config", files::CONFIG_FOLDER),
            pod::mount("plan", files::PLAN_FOLDER),
            pod::mount("redis", files::REDIS_FOLDER),
        pod::mount("redis-tls", files::REDIS_TLS_FOLDER),
            pod::writable_mount("tmp", "/tmp"),
        ],
    });
    merged(container, pod::admin_probes())
}
