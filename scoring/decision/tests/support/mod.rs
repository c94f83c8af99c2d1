//! Parts of a decision service for tests: memory store, real models, real gRPC, no Kafka unless a test adds one.
#![allow(dead_code)] // each test file uses its own share

pub(crate) mod inference;

use std::{sync::Arc, time::Duration};

use domain::{Epoch, PipelineName, PlanView, RegionName, RegionRole, Revision, SlotMap, Step};
use process::plan::PlanWatch;
use proto::fraud::v1::{Card, CardEntry, Channel, DecideRequest, DecideResponse, Merchant};
use scoring_core::{
    decide::{RaiseBy, Thresholds, Tiers},
    freshness::{Completeness, Staleness},
    money::Rates,
    protect::PiiKey,
    schema::FeatureSchema,
    windows::Windows,
};
use scoring_decision::{
    config::{Budgets, Settings},
    freshness::FreshnessWatch,
    handover::Handover,
    inference::{Engine, ServiceEngine},
    metrics::Metrics,
    model::{ModelSlot, NativeModel},
    pipeline::{Parts, Pipeline},
    rules::{FeatureNames, RuleSet, RulesWatch},
};
use scoring_features::{FeatureStore, MemoryStore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) const LIGHT_MODEL: &[u8] = include_bytes!("../../../../models/light.onnx");

/// 2026-11-20T12:00:00Z.
pub(crate) const NOW_MS: i64 = 1_795_176_000_000;

pub(crate) fn settings() -> Settings {
    Settings {
        region: RegionName::new("us-east").unwrap(),
        deadline: Duration::from_millis(100),
        budgets: Budgets::default(),
        thresholds: Thresholds::new(0.5, 0.9).unwrap(),
        raise_by: RaiseBy::new(0.15, 0.05).unwrap(),
        staleness: Staleness::default(),
        tiers: Tiers::default(),
        approve_below_minor: 10_000,
        base_digits: 2,
        inflight_max: 64,
        request_bytes_max: 64 * 1024,
    }
}

pub(crate) fn plan(active: &str) -> PlanView {
    let role = if active == "us-east" { RegionRole::Active } else { RegionRole::Standby };
    PlanView {
        pipeline: PipelineName::new("payments").unwrap(),
        namespace: "fraud".into(),
        region: RegionName::new("us-east").unwrap(),
        epoch: Epoch(7),
        revision: Revision(1),
        active_region: RegionName::new(active).unwrap(),
        role,
        step: Step::Steady,
        slots: SlotMap::even(1).unwrap(),
        shards: vec![],
    }
}

pub(crate) fn names() -> FeatureNames {
    FeatureNames::new(FeatureSchema::full(&Windows::default()).names())
}

pub(crate) fn rules(text: &str) -> RulesWatch {
    RulesWatch::fixed(RuleSet::load(text, &names()).unwrap())
}

pub(crate) fn light() -> ModelSlot {
    ModelSlot::loaded(NativeModel::load(LIGHT_MODEL, None, &FeatureSchema::light(&Windows::default())).unwrap())
}

pub(crate) fn service(address: impl ToString) -> Engine {
    Engine::Service(ServiceEngine::connect(&address.to_string(), "payments", CancellationToken::new()))
}

/// Everything works, with the given engine.
pub(crate) fn parts(engine: Engine) -> Parts {
    let windows = Windows::default();
    Parts {
        settings: settings(),
        plan: PlanWatch::fixed(plan("us-east")),
        key: PiiKey::new("k1", &[7; 32]).unwrap(),
        rates: Rates::new("USD", "2026-11-20", [("EUR", "1.10")]).unwrap(),
        store: FeatureStore::Memory(MemoryStore::new(&windows, 10_000)),
        full_schema: Arc::new(FeatureSchema::full(&windows)),
        light_schema: Arc::new(FeatureSchema::light(&windows)),
        rules: rules("rules: []"),
        engine,
        light: Some(light()),
        freshness: FreshnessWatch::fixed(&windows, Completeness::Complete),
        handover: Handover::Nowhere,
        metrics: Metrics::default(),
        clock: Box::new(|| NOW_MS),
    }
}

pub(crate) fn payment(transaction_id: &str) -> DecideRequest {
    DecideRequest {
        transaction_id: transaction_id.into(),
        user_id: "customer-1".into(),
        card: Some(Card {
            number: "4111111111111111".into(),
            expiry_month: 12,
            expiry_year: 2030,
            holder_name: "A Person".into(),
            issuer_country: "US".into(),
        }),
        amount_minor: 5_000,
        currency: "USD".into(),
        merchant: Some(Merchant { id: "m-1".into(), category_code: 5411, country: "US".into() }),
        device_id: "d-1".into(),
        ip_address: "192.0.2.7".into(),
        ip_country: "US".into(),
        channel: Channel::Web.into(),
        card_entry: CardEntry::Keyed.into(),
        ..DecideRequest::default()
    }
}

pub(crate) async fn decide(pipeline: &Pipeline, request: DecideRequest) -> DecideResponse {
    pipeline.decide(request, Instant::now(), None).await.unwrap()
}

/// Decides until the connection to the stand-in is up: it is made in the background.
pub(crate) async fn warm(pipeline: &Pipeline) {
    for attempt in 0..200 {
        let response = decide(pipeline, payment(&format!("warm-{attempt}"))).await;
        if response.degradation.unwrap().inference() == proto::fraud::v1::InferenceState::InferenceUsed {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the stand-in for the inference service was never used");
}
