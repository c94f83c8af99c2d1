//! The configuration files of the data plane, as the processes read them. Their types live in the crates that read them;
//! golden files on both sides keep the two together.
//!
//! Secrets are never in here: pods mount them, and the files name the paths.

use crds::{FraudPipelineSpec, scoring::TierTreatment, text::DurationText};
use domain::{RegionName, duration};
use serde_json::{Value, json};

use super::{BuildError, BuildInput, decision, inference, mirror};

/// The key of the ConfigMap, and so the name of the file.
pub(super) const KEY: &str = "config.yaml";
pub(super) const CONFIG_FOLDER: &str = "/etc/fraudpipeline/config";
pub(super) const PLAN_FOLDER: &str = "/etc/fraudpipeline/plan";
pub(super) const RULES_FOLDER: &str = "/etc/fraudpipeline/rules";
pub(super) const RATES_FOLDER: &str = "/etc/fraudpipeline/rates";
pub(super) const PII_FOLDER: &str = "/etc/fraudpipeline/pii";
pub(super) const REDIS_FOLDER: &str = "/etc/fraudpipeline/redis";
pub(super) const REDIS_TLS_FOLDER: &str = "/etc/fraudpipeline/redis-tls";
pub(super) const BUCKET_FOLDER: &str = "/etc/fraudpipeline/bucket";
pub(super) const MODELS_FOLDER: &str = "/var/cache/fraudpipeline/models";

/// A file whose process follows part of it while it runs.
pub(super) struct Followed {
    pub(super) text: String,
    /// The rest of it, for which pods must be replaced.
    pub(super) restart_on: String,
}

pub(super) fn config_path() -> String {
    format!("{CONFIG_FOLDER}/{KEY}")
}

pub(super) fn plan_path() -> String {
    format!("{PLAN_FOLDER}/{}", super::PLAN_KEY)
}

pub(super) fn decision(input: &BuildInput<'_>) -> Result<String, BuildError> {
    let spec = &input.effective.spec;
    let mut config = json!({
        "region": input.region.as_str(),
        "pipeline": input.pipeline(),
        "deadline": length("scoring.deadline", &spec.scoring.deadline)?,
        "budgets": budgets(spec)?,
        "thresholds": {"review": spec.scoring.thresholds.review.as_str(), "decline": spec.scoring.thresholds.decline.as_str()},
        "raise_by": {
            "review": spec.features.staleness.raise_by.review.as_str(),
            "decline": spec.features.staleness.raise_by.decline.as_str(),
        },
        "staleness": {
            "warn": length("features.staleness.warn", &spec.features.staleness.warn)?,
            "raise": length("features.staleness.raise", &spec.features.staleness.raise)?,
            "stop": length("features.staleness.stop", &spec.features.staleness.stop)?,
        },
        "tiers": spec.scoring.tiers.iter().map(tier).collect::<Vec<_>>(),
        "fallback": {"approve_below": spec.scoring.fallback.approve_below.as_str()},
        "kafka": kafka(input, input.region)?,
        "topic_prefix": spec.kafka.topic_prefix,
        "features": features(input, "decision")?,
        "inference": {
            "engine": "Service",
            "address": format!("{}.{}.svc:{}", input.name("inference"), input.owner.namespace, inference::GRPC_PORT),
            "model_name": input.pipeline(),
        },
        "rules_file": format!("{RULES_FOLDER}/rules.yaml"),
        "pii_keys_dir": PII_FOLDER,
        "currency": {"base": spec.currency.base},
        "shutdown_grace": seconds(decision::SHUTDOWN_GRACE_SECONDS),
    });
    if let Some(light) = &spec.model.light {
        config["light_model"] = model(input, light.uri.as_str(), light.sha256.as_str());
    }
    if spec.currency.rates_ref.is_some() {
        config["currency"]["rates_file"] = json!(format!("{RATES_FOLDER}/rates.yaml"));
    }
    yaml(&config)
}

fn budgets(spec: &FraudPipelineSpec) -> Result<Value, BuildError> {
    let budgets = &spec.scoring.budgets;
    Ok(json!({
        "features": length("scoring.budgets.features", &budgets.features)?,
        "rules": length("scoring.budgets.rules", &budgets.rules)?,
        "inference": length("scoring.budgets.inference", &budgets.inference)?,
        "graph": length("scoring.budgets.graph", &budgets.graph)?,
        "decision": length("scoring.budgets.decision", &budgets.decision)?,
        "handover": length("scoring.budgets.handover", &budgets.handover)?,
    }))
}

fn tier(tier: &crds::scoring::Tier) -> Value {
    let treatment = match tier.treatment {
        TierTreatment::RulesOnly => "RulesOnly",
        TierTreatment::LightModel => "LightModel",
        TierTreatment::FullModel => "FullModel",
    };
    json!({"below": tier.below.as_str(), "use": treatment})
}

/// The model is followed while the process runs: a new one restarts nothing, and the old one stays if it is bad.
pub(super) fn inference(input: &BuildInput<'_>) -> Result<Followed, BuildError> {
    let fixed = json!({"cache_dir": MODELS_FOLDER, "shutdown_grace": seconds(inference::SHUTDOWN_GRACE_SECONDS)});
    let mut config = fixed.clone();
    config["model"] = model(input, &input.plan.model.uri, &input.plan.model.sha256);
    config["model"]["name"] = json!(input.pipeline());
    Ok(Followed { text: yaml(&config)?, restart_on: yaml(&fixed)? })
}

pub(super) fn builder(input: &BuildInput<'_>) -> Result<String, BuildError> {
    let spec = &input.effective.spec;
    let origins: Vec<&str> = input.other_regions().map(|(region, _)| region.as_str()).collect();
    yaml(&json!({
        "pipeline": input.pipeline(),
        "region": input.region.as_str(),
        "origins": origins,
        "kafka": kafka(input, input.region)?,
        "topic_prefix": spec.kafka.topic_prefix,
        "features": features(input, "builder")?,
        "shutdown_grace": seconds(super::builder::SHUTDOWN_GRACE_SECONDS),
    }))
}

pub(super) fn mirror(input: &BuildInput<'_>, origin: &RegionName, ordinal: u8) -> Result<String, BuildError> {
    let spec = &input.effective.spec;
    yaml(&json!({
        "pipeline": input.pipeline(),
        "region": input.region.as_str(),
        "origin": origin.as_str(),
        "source": kafka(input, origin)?,
        "target": kafka(input, input.region)?,
        "topic_prefix": spec.kafka.topic_prefix,
        "additional_topics": spec.mirror.additional_topics,
        "positions_partition": ordinal,
        "lag_objective": length("mirror.lagObjective", &spec.mirror.lag_objective)?,
        "shutdown_grace": seconds(mirror::SHUTDOWN_GRACE_SECONDS),
    }))
}

/// Shards are known by one name in the whole region, whatever address leads to them.
fn features(input: &BuildInput<'_>, user: &str) -> Result<Value, BuildError> {
    let windows = input.effective.spec.features.windows.iter();
    let windows: Result<Vec<_>, _> = windows.map(|window| length("features.windows", window)).collect();
    let tls = json!({"ca_file": format!("{REDIS_TLS_FOLDER}/ca.crt"), "server_name": domain::feature_store_name(input.region)});
    Ok(json!({"windows": windows?, "redis": {"user": user, "password_file": format!("{REDIS_FOLDER}/password"), "tls": tls}}))
}

fn kafka(input: &BuildInput<'_>, region: &RegionName) -> Result<Value, BuildError> {
    let kafka = input.effective.spec.region(region.as_str()).and_then(|region| region.kafka.as_ref());
    let kafka = kafka.ok_or_else(|| BuildError::new(format!("regions[{region}].kafka"), "is needed in a DataPlane region"))?;
    Ok(json!({"bootstrap_servers": kafka.bootstrap_servers}))
}

/// A model on this region's own bucket.
fn model(input: &BuildInput<'_>, uri: &str, sha256: &str) -> Value {
    let mut model = json!({"uri": uri, "sha256": sha256});
    if let Some(bucket) = &input.effective.region.model {
        model["endpoint"] = json!(bucket.endpoint.as_str());
        if bucket.secret_ref.is_some() {
            model["credentials_dir"] = json!(BUCKET_FOLDER);
        }
    }
    model
}

/// One number and one unit, as the processes read it; the manifest may say `1m30s`.
fn length(field: &str, text: &DurationText) -> Result<String, BuildError> {
    text.to_std().map(duration::format).map_err(|error| BuildError::new(field, error))
}

fn seconds(seconds: u64) -> String {
    format!("{seconds}s")
}

fn yaml(config: &Value) -> Result<String, BuildError> {
    let text = serde_yaml::to_string(config).map_err(|error| BuildError::new("configuration", error))?;
    Ok(format!("# Written by the operator from the FraudPipeline: changes here are undone.\n{text}"))
}
