//! The example manifest in, objects out, for each region: any change of what is applied shows up as a diff of these files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use domain::RegionName;
use k8s_openapi::api::{
    apps::v1::{Deployment, StatefulSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    batch::v1::CronJob,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use operator_runtime::{Desired, Kind, config::Images, objects};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const MANIFEST: &str = include_str!("../../../examples/payments.yaml");

fn images() -> Images {
    let image = |binary: &str| format!("docker.io/fraudpipeline/{binary}:golden");
    Images {
        decision: image("scoring-decision"),
        inference: image("scoring-inference"),
        builder: image("scoring-builder"),
        replicator: image("replicator"),
        redis: image("redis"),
    }
}

fn rendered(region: &str) -> Vec<Desired> {
    objects(MANIFEST, &RegionName::new(region).unwrap(), "0.1.0", &images()).unwrap()
}

/// The example, with snapshots that go there.
fn with_backup(destination: &str) -> Vec<Desired> {
    let manifest =
        MANIFEST.replace("  features:\n    shards:", &format!("  features:\n    backup: {{destination: {destination}}}\n    shards:"));
    objects(&manifest, &RegionName::new("us-east").unwrap(), "0.1.0", &images()).unwrap()
}

fn yaml(object: &Desired) -> String {
    serde_yaml::to_string(&object.value).unwrap()
}

/// Digests follow from the rest, and those of the example's models change with every training.
fn without_digests(text: &str) -> String {
    let hex = |word: &str| word.len() >= 16 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let clean = |line: &str| {
        let words: Vec<_> = line.split(' ').map(|word| if hex(word.trim_matches(['\'', '"'])) { "DIGEST" } else { word }).collect();
        words.join(" ")
    };
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_objects_of_the_active_region_are_as_reviewed() {
    for object in rendered("us-east") {
        let name = format!("us-east__{}__{}", object.kind.name(), object.name);
        insta::assert_snapshot!(name, without_digests(&yaml(&object)));
    }
}

#[test]
fn another_region_differs_only_where_it_should() {
    let (east, west) = (rendered("us-east"), rendered("eu-west"));
    let names = |objects: &[Desired]| objects.iter().map(|object| format!("{} {}", object.kind.name(), object.name)).collect::<Vec<_>>();
    let only = |these: &[String], those: &[String]| these.iter().filter(|name| !those.contains(name)).cloned().collect::<Vec<_>>();
    let (east_names, west_names) = (names(&east), names(&west));
    assert_eq!(only(&east_names, &west_names), ["ConfigMap payments-mirror-eu-west", "Deployment payments-mirror-eu-west"]);
    assert_eq!(only(&west_names, &east_names), ["ConfigMap payments-mirror-us-east", "Deployment payments-mirror-us-east"]);
    for (kind, name) in
        [(Kind::ConfigMap, "payments-decision"), (Kind::ConfigMap, "payments-mirror-us-east"), (Kind::ConfigMap, "payments-plan")]
    {
        let object = west.iter().find(|object| object.kind == kind && object.name == name).unwrap();
        insta::assert_snapshot!(format!("eu-west__{}__{name}", kind.name()), without_digests(&yaml(object)));
    }
}

/// JSON through the typed object and back: a misspelt field is gone.
fn typed<T: Serialize + DeserializeOwned>(value: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
}

/// The first path that `read` does not have as it was written.
fn lost(written: &Value, read: &Value, path: &str) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            written.iter().find_map(|(key, value)| lost(value, read.get(key).unwrap_or(&Value::Null), &format!("{path}.{key}")))
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            written.iter().zip(read).find_map(|(written, read)| lost(written, read, &format!("{path}[]")))
        }
        (written, read) => (written != read).then(|| path.to_owned()),
    }
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for object in rendered("us-east").iter().chain(&rendered("ap-south")) {
        let read = match object.kind {
            Kind::ServiceAccount => typed::<ServiceAccount>(&object.value),
            Kind::ConfigMap => typed::<ConfigMap>(&object.value),
            Kind::Service => typed::<Service>(&object.value),
            Kind::NetworkPolicy => typed::<NetworkPolicy>(&object.value),
            Kind::PodDisruptionBudget => typed::<PodDisruptionBudget>(&object.value),
            Kind::StatefulSet => typed::<StatefulSet>(&object.value),
            Kind::Deployment => typed::<Deployment>(&object.value),
            Kind::CronJob => typed::<CronJob>(&object.value),
            Kind::HorizontalPodAutoscaler => typed::<HorizontalPodAutoscaler>(&object.value),
        };
        assert_eq!(lost(&object.value, &read, ""), None, "{} {}", object.kind.name(), object.name);
    }
}

fn pod_templates() -> Vec<(String, Value)> {
    let objects = rendered("us-east");
    let templates = objects.iter().filter_map(|object| Some((object.name.clone(), object.value.pointer("/spec/template/spec")?.clone())));
    templates.collect()
}

#[test]
fn every_pod_is_within_the_restricted_level_and_has_no_token() {
    let templates = pod_templates();
    assert_eq!(templates.len(), 7, "decision, inference, builder, two mirrors, two shards");
    for (name, pod) in templates {
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
        for container in pod["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(security["allowPrivilegeEscalation"], false, "{name}");
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]), "{name}");
            for needed in ["resources", "startupProbe", "livenessProbe", "readinessProbe", "image"] {
                assert!(!container[needed].is_null(), "{name} has no {needed}");
            }
            assert!(container["resources"]["limits"]["cpu"].is_null(), "{name}: a limit on processors throttles");
        }
    }
}

/// The API refuses lists that have an entry twice, by the fields that tell entries apart.
#[test]
fn no_list_of_a_pod_has_an_entry_twice() {
    let lists = [
        ("/topologySpreadConstraints", ["topologyKey", "whenUnsatisfiable"].as_slice()),
        ("/volumes", &["name"]),
        ("/containers/0/env", &["name"]),
        ("/containers/0/ports", &["containerPort", "protocol"]),
        ("/containers/0/volumeMounts", &["mountPath"]),
    ];
    for (name, pod) in pod_templates() {
        for (list, fields) in lists {
            let entries = pod.pointer(list).and_then(Value::as_array).into_iter().flatten();
            let keys: Vec<String> = entries.map(|entry| fields.iter().map(|field| format!("{} ", entry[*field])).collect()).collect();
            let once: std::collections::BTreeSet<&String> = keys.iter().collect();
            assert_eq!(once.len(), keys.len(), "{name}: {list} has {keys:?}");
        }
    }
}

#[test]
fn a_pod_ends_later_than_its_longest_request_and_its_drain() {
    for (name, pod) in pod_templates() {
        let grace = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
        let drain = pod.pointer("/containers/0/lifecycle/preStop/sleep/seconds").and_then(Value::as_u64).unwrap_or(0);
        assert!(grace > drain + 10, "{name}: {grace} s with a drain of {drain} s");
    }
}

#[test]
fn no_secret_value_stands_in_a_config_map() {
    for object in rendered("us-east").iter().filter(|object| object.kind == Kind::ConfigMap) {
        let text = yaml(object);
        assert!(!text.contains("masterauth ") && !text.contains("requirepass"), "{}", object.name);
    }
}

#[test]
fn the_same_manifest_gives_the_same_objects_byte_for_byte() {
    let all = |objects: Vec<Desired>| objects.iter().map(yaml).collect::<String>();
    assert_eq!(all(rendered("us-east")), all(rendered("us-east")));
}

#[test]
fn volumes_of_write_ahead_logs_outlive_everything() {
    let objects = rendered("us-east");
    let decision = objects.iter().find(|object| object.kind == Kind::StatefulSet && object.name == "payments-decision").unwrap();
    let policy = &decision.value["spec"]["persistentVolumeClaimRetentionPolicy"];
    assert_eq!((policy["whenDeleted"].as_str(), policy["whenScaled"].as_str()), (Some("Retain"), Some("Retain")));
}

#[test]
fn snapshots_are_taken_by_a_job_that_may_do_nothing_else() {
    let to_bucket = "{s3: {endpoint: 'https://s3.us-east.example.com', bucket: backups, prefix: features/, secretRef: {name: backups}}}";
    let before = rendered("us-east");
    for object in with_backup(to_bucket).iter().filter(|object| !before.contains(object)) {
        insta::assert_snapshot!(format!("backup__{}__{}", object.kind.name(), object.name), without_digests(&yaml(object)));
        if object.kind == Kind::CronJob {
            assert_eq!(lost(&object.value, &typed::<CronJob>(&object.value), ""), None);
        }
    }
    let to_volume = with_backup("{volumeClaim: {name: snapshots}}");
    let job = to_volume.iter().find(|object| object.kind == Kind::CronJob).unwrap();
    let pod = &job.value["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(container["args"].as_array().unwrap().contains(&"--store=file:///var/lib/fraudpipeline/snapshots".into()), "{container}");
    assert_eq!(pod["volumes"][3]["persistentVolumeClaim"]["claimName"], "snapshots");
    assert_eq!(container["volumeMounts"][3], serde_json::json!({"name": "snapshots", "mountPath": "/var/lib/fraudpipeline/snapshots"}));
}
