//! `--standalone`: the same pipeline with nothing around it, so that a decision is one `curl` away. Features live in
//! memory, models and rules are in the binary, nothing is kept, and personal data is hashed under a key of this start.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use domain::{Epoch, PipelineName, PlanView, RegionName, RegionRole, Revision, SlotMap, Step};
use process::plan::PlanWatch;
use prometheus_client::registry::Registry;
use scoring_core::{freshness::Completeness, money::Rates, protect::PiiKey, schema::FeatureSchema, windows::Windows};
use scoring_features::{FeatureStore, MemoryStore};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    app::{install_crypto, system_clock},
    config::{Budgets, Currency, Fallback, Limits, Listen, RaiseBy, Settings, Staleness, Thresholds},
    freshness::FreshnessWatch,
    handover::Handover,
    inference::Engine,
    metrics::Metrics,
    model::{ModelSlot, NativeModel},
    pipeline::{Parts, Pipeline},
    rules::{CONFIG_MAP_KEY, FeatureNames, RuleSet, RulesWatch},
    serve,
};

const FULL_MODEL: &[u8] = include_bytes!("../../../models/full.onnx");
const LIGHT_MODEL: &[u8] = include_bytes!("../../../models/light.onnx");
const RULES_MANIFEST: &str = include_str!("../../../examples/rules.yaml");

/// Some 100 bytes each at first; enough for an afternoon of trying out.
const ENTITIES_MAX: usize = 200_000;
const GRACE: Duration = Duration::from_secs(5);

/// # Errors
/// When a port is taken.
pub async fn run(listen: Listen, stop: CancellationToken) -> anyhow::Result<()> {
    install_crypto();
    let mut registry = Registry::default();
    let pipeline = Arc::new(assemble(&mut registry)?);
    let serving = serve::start(pipeline, registry, &listen, None).await?;
    print!("{}", greeting(&serving.addresses));
    serving.run(stop, GRACE).await;
    Ok(())
}

/// # Errors
/// When the bundled models or rules do not fit this build; a test keeps that from being released.
pub fn assemble(registry: &mut Registry) -> anyhow::Result<Pipeline> {
    let windows = Windows::default();
    let full_schema = Arc::new(FeatureSchema::full(&windows));
    let light_schema = Arc::new(FeatureSchema::light(&windows));
    let full = NativeModel::load(FULL_MODEL, None, &full_schema).context("bundled model full.onnx")?;
    let light = NativeModel::load(LIGHT_MODEL, None, &light_schema).context("bundled model light.onnx")?;
    let rules = RuleSet::load(&bundled_rules()?, &FeatureNames::new(full_schema.names())).context("bundled rules")?;
    let region = RegionName::new("standalone")?;
    let currency = Currency::default();
    let limits = Limits::default();
    let settings = Settings {
        region: region.clone(),
        deadline: Duration::from_millis(100),
        budgets: Budgets::default(),
        thresholds: Thresholds::default().checked()?,
        raise_by: RaiseBy::default().checked()?,
        staleness: Staleness::default().checked()?,
        tiers: scoring_core::decide::Tiers::default(),
        approve_below_minor: currency.minor("fallback", &Fallback::default().approve_below)?,
        base_digits: currency.digits()?,
        inflight_max: limits.inflight_max,
        request_bytes_max: limits.request_bytes_max,
    };
    Ok(Pipeline::new(Parts {
        settings,
        plan: PlanWatch::fixed(plan(region)?),
        key: PiiKey::new("standalone", &rand::random::<[u8; 32]>())?,
        rates: Rates::new(&currency.base, "", [])?,
        // Every event goes through this process: nothing can be missing.
        freshness: FreshnessWatch::fixed(&windows, Completeness::Complete),
        store: FeatureStore::Memory(MemoryStore::new(&windows, ENTITIES_MAX)),
        rules: RulesWatch::fixed(rules),
        engine: Engine::InProcess(ModelSlot::loaded(full)),
        light: Some(ModelSlot::loaded(light)),
        handover: Handover::Nowhere,
        metrics: Metrics::register(registry),
        full_schema,
        light_schema,
        clock: system_clock(),
    }))
}

fn plan(region: RegionName) -> anyhow::Result<PlanView> {
    Ok(PlanView {
        pipeline: PipelineName::new("standalone")?,
        namespace: "standalone".into(),
        region: region.clone(),
        epoch: Epoch::FIRST,
        revision: Revision(1),
        active_region: region,
        role: RegionRole::Active,
        step: Step::Steady,
        slots: SlotMap::even(1)?,
        shards: Vec::new(),
    })
}

#[derive(Deserialize)]
struct ConfigMap {
    data: std::collections::BTreeMap<String, String>,
}

/// The rules inside the example's ConfigMap.
fn bundled_rules() -> anyhow::Result<String> {
    let mut map: ConfigMap = process::config::parse(Path::new("rules.yaml"), RULES_MANIFEST)?;
    map.data.remove(CONFIG_MAP_KEY).with_context(|| format!("the bundled ConfigMap has no key {CONFIG_MAP_KEY}"))
}

fn greeting(addresses: &serve::Addresses) -> String {
    let (rest, grpc, admin) = (addresses.rest, addresses.grpc, addresses.admin);
    format!(
        r#"Ready. Everything is in memory; Ctrl-C ends it.

  REST    http://{rest}/v1/decisions   (http://{rest}/v1/openapi.json describes it)
  gRPC    {grpc}   fraud.v1.Scoring
  admin   http://{admin}/metrics /readyz /plan /features

Ask for a decision:

  curl -s http://{rest}/v1/decisions -H 'content-type: application/json' -d '{{
    "transactionId": "t-1", "userId": "customer-1", "amountMinor": 12900, "currency": "USD",
    "card": {{"number": "4111111111111111", "expiryMonth": 12, "expiryYear": 2030, "issuerCountry": "US"}},
    "merchant": {{"id": "m-1", "categoryCode": 5411, "country": "US"}},
    "deviceId": "d-1", "ipAddress": "192.0.2.7", "ipCountry": "US", "channel": "WEB", "cardEntry": "KEYED"
  }}'

Send it five times within five seconds, each under another transactionId, and the rule card-burst declines it.
"#
    )
}
