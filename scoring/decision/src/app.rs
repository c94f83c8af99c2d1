//! The service in a pod: everything from files, the plan followed, Redis and Kafka behind it.

use std::{path::Path, sync::Arc, time::SystemTime};

use anyhow::{Context as _, bail};
use kafka::{AckProducer, KafkaMetrics};
use process::plan::PlanWatch;
use prometheus_client::registry::Registry;
use scoring_core::schema::FeatureSchema;
use scoring_features::{FeatureMetrics, FeatureStore, RedisStore};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Inference},
    freshness::FreshnessWatch,
    handover::{Handover, KafkaLog},
    inference::{Engine, ServiceEngine},
    inputs,
    metrics::Metrics,
    model::ModelSlot,
    pipeline::{Clock, Parts, Pipeline},
    rules::{FeatureNames, RulesWatch},
    serve,
};

const CLIENT_ID: &str = "scoring-decision";

/// Runs until `stop`, then ends gracefully.
///
/// # Errors
/// When the process cannot start: the sentence says which file or field, and what to do.
pub async fn run(config_path: &Path, plan_path: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    install_crypto();
    let config: Config = process::config::load(config_path)?;
    let mut registry = Registry::default();
    let pipeline = assemble(&config, plan_path, &mut registry, &stop).with_context(|| config_path.display().to_string())?;
    let serving = serve::start(Arc::new(pipeline), registry, &config.listen, config.tls.as_ref()).await?;
    tracing::info!(grpc = %serving.addresses.grpc, rest = %serving.addresses.rest, admin = %serving.addresses.admin, "serving");
    serving.run(stop, config.shutdown_grace).await;
    Ok(())
}

/// Several crates bring a cryptography provider for TLS; the process has to name one.
pub(crate) fn install_crypto() {
    // An error means that one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn assemble(config: &Config, plan_path: &Path, registry: &mut Registry, stop: &CancellationToken) -> anyhow::Result<Pipeline> {
    let settings = config.checked()?;
    let plan = follow_plan(config, plan_path, stop)?;
    let features = config.features.checked().context("features")?;
    let full_schema = Arc::new(FeatureSchema::full(&features.windows));
    let light_schema = Arc::new(FeatureSchema::light(&features.windows));
    let producer = AckProducer::new(&config.kafka, CLIENT_ID, &KafkaMetrics::register(registry))?;
    let store = RedisStore::start(features, FeatureMetrics::register(registry), &plan.current())?;
    Ok(Pipeline::new(Parts {
        freshness: FreshnessWatch::unknown(full_schema.windows()),
        settings,
        plan,
        key: inputs::read_pii_key(&config.pii_keys_dir)?,
        rates: inputs::read_rates(&config.currency)?,
        store: FeatureStore::Redis(store),
        rules: RulesWatch::follow(&config.rules_file, FeatureNames::new(full_schema.names()), stop.clone()),
        engine: engine(&config.inference, &full_schema, stop),
        light: config.light_model.clone().map(|source| ModelSlot::fetch(source, light_schema.clone(), stop.clone())),
        handover: Handover::Kafka(Box::new(KafkaLog::new(producer, &config.topic_prefix, config.region.clone()))),
        metrics: Metrics::register(registry),
        full_schema,
        light_schema,
        clock: system_clock(),
    }))
}

fn follow_plan(config: &Config, path: &Path, stop: &CancellationToken) -> anyhow::Result<PlanWatch> {
    let plan = PlanWatch::follow(path, stop.clone())?;
    let view = plan.current();
    if view.region != config.region || view.pipeline != config.pipeline {
        bail!(
            "the plan is for pipeline {} in {}, the configuration for {} in {}: both must come from the same operator",
            view.pipeline,
            view.region,
            config.pipeline,
            config.region
        );
    }
    Ok(plan)
}

fn engine(inference: &Inference, schema: &Arc<FeatureSchema>, stop: &CancellationToken) -> Engine {
    match inference {
        Inference::Service { address, model_name } => Engine::Service(ServiceEngine::connect(address, model_name, stop.clone())),
        Inference::InProcess { model } => Engine::InProcess(ModelSlot::fetch(model.clone(), schema.clone(), stop.clone())),
    }
}

pub(crate) fn system_clock() -> Clock {
    Box::new(|| {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
    })
}
