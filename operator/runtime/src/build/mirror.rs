//! One mirror for each other region: it pulls that region's topics into this region's Kafka.

use domain::RegionName;
use serde_json::{Value, json};

use super::{BuildError, BuildInput, digest, files, pod, scaling};
use crate::kinds::{Desired, Kind, Part, labels, merged, object, selector};

const PART: Part = Part::Mirror;
/// Label with the region that a mirror copies from.
const ORIGIN_LABEL: &str = "fraudpipeline.dev/origin";
pub(super) const SHUTDOWN_GRACE_SECONDS: u64 = 25;

pub(super) fn objects(input: &BuildInput<'_>) -> Result<Vec<Desired>, BuildError> {
    let mut objects = Vec::new();
    for (origin, ordinal) in input.other_regions() {
        let name = input.name(&format!("mirror-{origin}"));
        let config = files::mirror(input, origin, ordinal)?;
        objects.push(scaling::config_map(input, PART, name.clone(), files::KEY, &config));
        objects.push(deployment(input, name, origin, &config));
    }
    if !objects.is_empty() {
        objects.push(scaling::service_account(input, PART));
    }
    Ok(objects)
}

fn deployment(input: &BuildInput<'_>, name: String, origin: &RegionName, config: &str) -> Desired {
    let origin_label = json!({ORIGIN_LABEL: origin.as_str()});
    let pod = pod::Pod {
        part: PART,
        labels: origin_label.clone(),
        container: container(input),
        volumes: vec![
            pod::config_map_volume("config", &name),
            pod::config_map_volume("plan", &input.name("plan")),
            pod::empty_dir("tmp", "64Mi"),
        ],
        config_digest: digest(config),
        grace_seconds: SHUTDOWN_GRACE_SECONDS + 5,
    };
    let spec = json!({
        "replicas": 1,
        "revisionHistoryLimit": 5,
        // Two mirrors of one origin fence each other: the old one ends first.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": merged(selector(input.pipeline(), PART), origin_label.clone())},
        "template": pod::template(input, pod, &crds::common::PodTemplate::default()),
    });
    object(input.owner, Kind::Deployment, name, merged(labels(input.pipeline(), PART), origin_label), json!({"spec": spec}))
}

fn container(input: &BuildInput<'_>) -> Value {
    let container = json!({
        "name": PART.label(),
        "image": input.images.replicator,
        "args": ["--config", files::config_path(), "--plan", files::plan_path()],
        "ports": [pod::port("admin", pod::ADMIN_PORT)],
        "resources": pod::resources(&crds::common::ContainerResources::default(), "50m", "64Mi", "256Mi"),
        "volumeMounts": [
            pod::mount("config", files::CONFIG_FOLDER),
            pod::mount("plan", files::PLAN_FOLDER),
            pod::writable_mount("tmp", "/tmp"),
        ],
    });
    merged(container, pod::admin_probes())
}
