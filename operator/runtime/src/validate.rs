//! Whether a manifest can be run here. What one object can say about itself, the API server has checked; this is the
//! rest: fields that this version does not act on, this region's place in it, what it refers to, and other pipelines.
//!
//! Pure. A refusal is a condition with a stable reason; what runs stays as it is.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    FraudPipeline, FraudPipelineSpec,
    conditions::reasons,
    not_implemented_in_use,
    region::{FeatureExposureType, RegionSpec},
};
use kube::ResourceExt;
use operator_planner::SpecFacts;

use crate::{config::OperatorConfig, facts};

/// Keys of the Redis users' Secret, as `kubectl fraud init` writes it.
const REDIS_KEYS: &[&str] =
    &["users.acl", "replication.conf", "operator.password", "decision.password", "builder.password", "probe.password"];

/// Keys of the Secret with the certificate that this region's shards show.
const REDIS_TLS_KEYS: &[&str] = &["tls.crt", "tls.key", "ca.crt"];

/// Keys of a bucket's Secret: of models, or of snapshots.
const BUCKET_KEYS: &[&str] = &["accessKeyId", "secretAccessKey"];

/// Which objects exist that manifests refer to, with the keys that they have. Never their contents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub secrets: BTreeMap<String, BTreeSet<String>>,
    pub config_maps: BTreeMap<String, BTreeSet<String>>,
    pub storage_classes: BTreeSet<String>,
}

/// Why a manifest is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub reason: &'static str,
    pub message: String,
}

fn refused(reason: &'static str, message: impl Into<String>) -> Refused {
    Refused { reason, message: message.into() }
}

/// What a manifest refers to in its namespace, and which keys are needed.
pub(crate) struct References<'a> {
    pub secrets: Vec<(String, &'a [&'a str])>,
    pub config_maps: Vec<(String, &'a [&'a str])>,
    pub storage_class: Option<String>,
}

/// Everything that `spec` refers to, in this region.
pub(crate) fn references<'a>(pipeline: &str, region: &str, spec: &FraudPipelineSpec) -> References<'a> {
    let mut config_maps: Vec<(String, &[&str])> = vec![(spec.rules.config_map_ref.name.to_string(), &["rules.yaml"])];
    config_maps.extend(spec.currency.rates_ref.iter().map(|rates| (rates.name.to_string(), ["rates.yaml"].as_slice())));
    let effective = spec.effective_for(region).ok().map_or_else(|| spec.clone(), |effective| effective.spec);
    let mut secrets: Vec<(String, &[&str])> = vec![
        (format!("{pipeline}-redis"), REDIS_KEYS),
        (format!("{pipeline}-redis-tls"), REDIS_TLS_KEYS),
        (spec.privacy.key_secret_ref.name.to_string(), &["current"]),
    ];
    let bucket = spec.region(region).and_then(|region| region.model.as_ref()?.secret_ref.as_ref());
    secrets.extend(bucket.map(|secret| (secret.name.to_string(), BUCKET_KEYS)));
    if let Some(backup) = &effective.features.backup {
        secrets.push((format!("{pipeline}-redis"), &["snapshot.password"]));
        let bucket = backup.destination.s3.as_ref().and_then(|s3| s3.secret_ref.as_ref());
        secrets.extend(bucket.map(|secret| (secret.name.to_string(), BUCKET_KEYS)));
    }
    References { secrets, config_maps, storage_class: effective.features.storage_class_name.map(|class| class.to_string()) }
}

/// # Errors
/// With the first reason why the manifest is not run here, in the order in which people would mend it.
pub(crate) fn pipeline(
    pipeline: &FraudPipeline,
    config: &OperatorConfig,
    inputs: &Inputs,
    siblings: &[impl AsRef<FraudPipeline>],
) -> Result<SpecFacts, Refused> {
    let (name, namespace) = (pipeline.name_any(), pipeline.namespace().unwrap_or_default());
    let spec = &pipeline.spec;
    implemented(spec)?;
    let region = own_region(spec, config)?;
    version(spec, config)?;
    inputs_exist(&name, config.region.as_str(), spec, inputs)?;
    no_conflict(pipeline, region, config, siblings)?;
    facts::of_spec(&name, &namespace, spec).map_err(|error| refused(reasons::NOT_IMPLEMENTED, error.to_string()))
}

fn implemented(spec: &FraudPipelineSpec) -> Result<(), Refused> {
    let used = not_implemented_in_use(spec).map_err(|error| refused(reasons::NOT_IMPLEMENTED, error.to_string()))?;
    if !used.is_empty() {
        let list: Vec<_> = used.iter().map(ToString::to_string).collect();
        return Err(refused(reasons::NOT_IMPLEMENTED, list.join("; ")));
    }
    let data_plane = || spec.regions.iter().filter(|region| region.runs_the_data_plane());
    let by_pod = |region: &&RegionSpec| region.features.as_ref().is_some_and(|features| features.expose.kind == FeatureExposureType::PodIp);
    match data_plane().find(by_pod).filter(|_| data_plane().count() > 1) {
        Some(region) => Err(refused(
            reasons::NOT_IMPLEMENTED,
            format!(
                "spec.regions[{}].features.expose.type: PodIP is not implemented yet between regions (it comes with issue 7): use LoadBalancer or NodePort",
                region.name
            ),
        )),
        None => Ok(()),
    }
}

fn own_region<'a>(spec: &'a FraudPipelineSpec, config: &OperatorConfig) -> Result<&'a RegionSpec, Refused> {
    spec.effective_for(config.region.as_str()).map_err(|error| refused(reasons::REGION_MISSING, error.to_string()))?;
    spec.region(config.region.as_str()).ok_or_else(|| refused(reasons::REGION_MISSING, "spec.regions does not have this region"))
}

fn version(spec: &FraudPipelineSpec, config: &OperatorConfig) -> Result<(), Refused> {
    match &spec.version {
        Some(version) if config.images(version.as_str()).is_none() => Err(refused(
            reasons::VERSION_UNKNOWN,
            format!(
                "spec.version {version} has no images in this region's operator, which has {}: use one of these, or upgrade the chart",
                config.known_versions()
            ),
        )),
        _ => Ok(()),
    }
}

fn inputs_exist(pipeline: &str, region: &str, spec: &FraudPipelineSpec, inputs: &Inputs) -> Result<(), Refused> {
    let needed = references(pipeline, region, spec);
    for (what, wanted, found, hint) in [
        ("Secret", &needed.secrets, &inputs.secrets, "every region needs it; kubectl fraud init writes those for Redis and personal data"),
        ("ConfigMap", &needed.config_maps, &inputs.config_maps, "apply the same one in every region"),
    ] {
        for (name, keys) in wanted {
            let Some(present) = found.get(name) else {
                return Err(refused(reasons::INPUT_MISSING, format!("{what} {name} does not exist in the pipeline's namespace: {hint}")));
            };
            if let Some(key) = keys.iter().find(|key| !present.contains(**key)) {
                return Err(refused(reasons::INPUT_MISSING, format!("{what} {name} has no key {key}: {hint}")));
            }
        }
    }
    match needed.storage_class.filter(|class| !inputs.storage_classes.contains(class)) {
        Some(class) => Err(refused(
            reasons::INPUT_MISSING,
            format!(
                "StorageClass {class} (spec.features.storageClassName) does not exist in this cluster: create it, or override it for this region"
            ),
        )),
        None => Ok(()),
    }
}

/// Two pipelines must not use one thing: the older one keeps it.
fn no_conflict(
    pipeline: &FraudPipeline,
    region: &RegionSpec,
    config: &OperatorConfig,
    siblings: &[impl AsRef<FraudPipeline>],
) -> Result<(), Refused> {
    let ours = claims(&pipeline.spec, region);
    for sibling in siblings.iter().map(AsRef::as_ref).filter(|sibling| is_older(sibling, pipeline)) {
        let Some(their_region) = sibling.spec.region(config.region.as_str()) else { continue };
        if let Some(claim) = claims(&sibling.spec, their_region).intersection(&ours).next() {
            let (namespace, name) = (sibling.namespace().unwrap_or_default(), sibling.name_any());
            return Err(refused(
                reasons::CONFLICTS_WITH_PIPELINE,
                format!("{claim} belongs to the older pipeline {namespace}/{name}: choose another one, or delete that pipeline"),
            ));
        }
    }
    Ok(())
}

fn is_older(sibling: &FraudPipeline, pipeline: &FraudPipeline) -> bool {
    let age =
        |object: &FraudPipeline| (object.metadata.creation_timestamp.as_ref().map(|time| time.0), object.namespace(), object.name_any());
    sibling.uid() != pipeline.uid() && age(sibling) < age(pipeline)
}

/// What only one pipeline can have.
fn claims(spec: &FraudPipelineSpec, region: &RegionSpec) -> BTreeSet<String> {
    let mut claims = BTreeSet::new();
    if let Some(dns) = &spec.dns {
        claims.insert(format!("dns.name {}", dns.name));
    }
    for server in region.kafka.iter().flat_map(|kafka| &kafka.bootstrap_servers) {
        claims.insert(format!("kafka.topicPrefix {} at {server}", spec.kafka.topic_prefix));
    }
    if let Some(ports) = region.ingress.as_ref().and_then(|ingress| ingress.service.as_ref()?.node_ports.as_ref()) {
        claims.extend([ports.grpc, ports.rest].map(|port| format!("node port {port}")));
    }
    if let Some(features) = region.features.as_ref().filter(|features| features.expose.kind == FeatureExposureType::NodePort) {
        claims.extend((0..spec.features.shards).map(|shard| format!("node port {}", features.expose.port + shard)));
    }
    claims
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::{example, operator_config};

    fn complete() -> Inputs {
        let keys = |keys: &[&str]| keys.iter().map(ToString::to_string).collect();
        Inputs {
            secrets: [
                ("payments-redis".into(), keys(REDIS_KEYS)),
                ("payments-redis-tls".into(), keys(REDIS_TLS_KEYS)),
                ("fraud-pii".into(), keys(&["current", "k1"])),
            ]
            .into(),
            config_maps: [("fraud-rules".into(), keys(&["rules.yaml"])), ("fx-rates".into(), keys(&["rates.yaml"]))].into(),
            storage_classes: ["local".to_string()].into(),
        }
    }

    const NOBODY: &[Arc<FraudPipeline>] = &[];

    fn refusal(change: impl FnOnce(&mut FraudPipeline, &mut Inputs)) -> Refused {
        let (mut manifest, mut inputs) = (example(), complete());
        change(&mut manifest, &mut inputs);
        pipeline(&manifest, &operator_config("us-east"), &inputs, NOBODY).unwrap_err()
    }

    #[test]
    fn the_example_is_accepted_in_each_of_its_regions() {
        for region in ["us-east", "eu-west", "ap-south"] {
            let facts = pipeline(&example(), &operator_config(region), &complete(), NOBODY).unwrap();
            assert_eq!(facts.regions.len(), 3);
        }
    }

    #[test]
    fn a_cluster_whose_region_is_not_in_the_manifest_runs_nothing_and_says_so() {
        let refused = pipeline(&example(), &operator_config("mars"), &complete(), NOBODY).unwrap_err();
        assert_eq!(refused.reason, reasons::REGION_MISSING);
        assert!(refused.message.contains("mars") && refused.message.contains("us-east"), "{}", refused.message);
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_do() {
        let secret = refusal(|_, inputs| drop(inputs.secrets.remove("fraud-pii")));
        assert_eq!(secret.reason, reasons::INPUT_MISSING);
        assert!(secret.message.contains("Secret fraud-pii") && secret.message.contains("kubectl fraud init"), "{}", secret.message);
        let key = refusal(|_, inputs| drop(inputs.secrets.insert("payments-redis".into(), ["users.acl".to_string()].into())));
        assert!(key.message.contains("has no key replication.conf"), "{}", key.message);
        let rules = refusal(|_, inputs| drop(inputs.config_maps.remove("fraud-rules")));
        assert!(rules.message.contains("ConfigMap fraud-rules"), "{}", rules.message);
        let class = refusal(|_, inputs| inputs.storage_classes.clear());
        assert!(class.message.contains("StorageClass local"), "{}", class.message);
    }

    #[test]
    fn a_buckets_secret_is_needed_where_its_region_names_one() {
        let mut manifest = example();
        let model = manifest.spec.regions[0].model.as_mut().unwrap();
        model.secret_ref = Some(crds::common::NameRef { name: "bucket".into() });
        let needed = |region: &str| references("payments", region, &manifest.spec).secrets.into_iter().any(|(name, _)| name == "bucket");
        assert!(needed("us-east") && !needed("eu-west"));
    }

    #[test]
    fn an_unknown_version_is_answered_with_the_known_ones() {
        let refused = refusal(|manifest, _| manifest.spec.version = Some("7.7.7".into()));
        assert_eq!(refused.reason, reasons::VERSION_UNKNOWN);
        assert!(refused.message.contains("0.1.0"), "{}", refused.message);
    }

    #[test]
    fn a_field_that_nothing_acts_on_is_refused_by_name() {
        let refused = refusal(|manifest, _| manifest.spec.failover.lease = "7s".into());
        assert_eq!(refused.reason, reasons::NOT_IMPLEMENTED);
        assert!(refused.message.contains("spec.failover"), "{}", refused.message);
        let by_pod = refusal(|manifest, _| {
            let expose = &mut manifest.spec.regions[1].features.as_mut().unwrap().expose;
            expose.kind = FeatureExposureType::PodIp;
            expose.host_template = None;
        });
        assert!(by_pod.message.contains("eu-west") && by_pod.message.contains("PodIP"), "{}", by_pod.message);
    }

    #[test]
    fn of_two_pipelines_that_want_the_same_the_younger_is_refused() {
        let at = |time: &str, uid: &str, name: &str| {
            let mut manifest = example();
            manifest.metadata.creation_timestamp = Some(serde_json::from_value(serde_json::json!(time)).unwrap());
            manifest.metadata.uid = Some(uid.into());
            manifest.metadata.name = Some(name.into());
            Arc::new(manifest)
        };
        let (older, younger) = (at("2026-01-01T00:00:00Z", "a", "payments"), at("2026-01-02T00:00:00Z", "b", "refunds"));
        let mut inputs = complete();
        for secret in ["redis", "redis-tls"] {
            inputs.secrets.insert(format!("refunds-{secret}"), inputs.secrets[&format!("payments-{secret}")].clone());
        }
        let both = [older.clone(), younger.clone()];
        assert!(pipeline(&older, &operator_config("us-east"), &inputs, &both).is_ok());
        let refused = pipeline(&younger, &operator_config("us-east"), &inputs, &both).unwrap_err();
        assert_eq!(refused.reason, reasons::CONFLICTS_WITH_PIPELINE);
        assert!(refused.message.contains("fraud/payments"), "{}", refused.message);
    }
}
