//! The whole way of a payment, on one page: [`Pipeline::decide`].
//!
//! One absolute deadline: the client's or the pipeline's, whichever is earlier. Each stage gets the smaller of its budget
//! and what is left for it; what is late is dropped, and the answer says what was missing. A valid request always gets a
//! decision: without features the model sees NaN, without the full model the light one scores, without any score the
//! amount decides.

mod facts;
mod findings;
mod warm_up;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, routing::get};
use domain::PlanView;
use process::plan::PlanWatch;
use proto::fraud::v1::{DecideRequest, DecideResponse};
use scoring_core::{
    decide::{self, AuthorityState, Degradation, FeatureState, GraphState, Grounds, IdempotencyState, Tier},
    event::{DecisionState, EntityKind, Event},
    money::Rates,
    protect::{Acceptance, PiiKey, Protected, protect},
    schema::FeatureSchema,
    state::EntityStates,
    validate,
};
use scoring_features::FeatureStore;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    budget::{Split, Stage},
    config::Settings,
    freshness::FreshnessWatch,
    handover::Handover,
    inference::Engine,
    metrics::Metrics,
    model::ModelSlot,
    rules::{ActiveRules, FeatureNames, Phase, RulesWatch},
    service::Refusal,
};
use findings::{Answer, Findings, Watch};

/// The answer leaves this much before the client's own deadline, so that it arrives inside it.
const CLIENT_MARGIN_MAX: Duration = Duration::from_millis(2);

/// Milliseconds since 1970.
pub type Clock = Box<dyn Fn() -> i64 + Send + Sync>;

/// Everything that a decision is made with.
pub struct Parts {
    pub settings: Settings,
    pub plan: PlanWatch,
    pub key: PiiKey,
    pub rates: Rates,
    pub store: FeatureStore,
    pub freshness: FreshnessWatch,
    pub full_schema: Arc<FeatureSchema>,
    pub light_schema: Arc<FeatureSchema>,
    pub rules: RulesWatch,
    pub engine: Engine,
    pub light: Option<ModelSlot>,
    pub handover: Handover,
    pub metrics: Metrics,
    pub clock: Clock,
}

pub struct Pipeline {
    parts: Parts,
    names: FeatureNames,
    /// A bound on what is under way at once; beyond it, decisions are made by amount.
    permits: Semaphore,
    warmed_up: AtomicBool,
}

impl Pipeline {
    pub fn new(parts: Parts) -> Self {
        let names = FeatureNames::new(parts.full_schema.names());
        let permits = Semaphore::new(parts.settings.inflight_max);
        Self { parts, names, permits, warmed_up: AtomicBool::new(false) }
    }

    /// # Errors
    /// Only when the request is not a valid payment.
    pub async fn decide(
        &self,
        request: DecideRequest,
        accepted_at: Instant,
        client_limit: Option<Duration>,
    ) -> Result<DecideResponse, Refusal> {
        let mut watch = Watch::start(accepted_at, &self.parts.metrics);
        let payment = validate::check(request, (self.parts.clock)()).map_err(|problems| {
            self.refused("invalid");
            Refusal::Invalid(problems)
        })?;
        let _in_flight = self.parts.metrics.begin();
        let permit = self.permits.try_acquire().ok();
        let plan = self.parts.plan.current();
        let deadline = Deadline::new(accepted_at, client_limit, &self.parts.settings);

        let Protected { event, request_digest } = protect(payment, &self.parts.key, self.acceptance(&plan));
        let key = event.entities.get(EntityKind::Card).map(|id| id.0).unwrap_or_default();
        let sent = self.parts.handover.send_event(&key, &event.to_wire());
        watch.lap("protect");

        let tier = self.parts.settings.tiers.tier_of(event.amount_base_minor());
        let findings = match permit {
            Some(_) => self.examine(&event, tier, &deadline, &mut watch).await,
            None => self.shed(),
        };
        let answer = self.conclude(&event, &plan, tier, findings);
        watch.lap("decision");

        let record = answer.record(&event, request_digest, (self.parts.clock)());
        let limit = deadline.allowance(Stage::Handover);
        let durability = self.parts.handover.finish(sent, &key, &record, limit).await;
        watch.lap("handover");
        Ok(answer.respond(event, durability, watch))
    }

    /// The payment is accepted here and now: this is the only time that windows will ever use.
    fn acceptance(&self, plan: &PlanView) -> Acceptance<'_> {
        Acceptance {
            event_time_ms: (self.parts.clock)(),
            origin_region: self.parts.settings.region.clone(),
            epoch: plan.epoch,
            decision: DecisionState::Made,
            rates: &self.parts.rates,
        }
    }

    /// Features, rules, score, rules.
    async fn examine(&self, event: &Event, tier: Tier, deadline: &Deadline, watch: &mut Watch<'_>) -> Findings {
        let rules = self.parts.rules.current();
        let mut findings = Findings::nothing(rules.state, self.parts.freshness.current());
        let states = self.features(event, deadline, &mut findings).await;
        let vector =
            self.parts.full_schema.assemble(event, &states).without_windows(&self.parts.full_schema, findings.freshness().missing());
        watch.lap("features");

        let mut facts = self.facts(event, vector.values());
        rules.set.evaluate(Phase::Before, &facts, &mut findings.hits);
        watch.lap("rules");

        self.score(event, &states, vector.values(), tier, deadline, &mut findings).await;
        watch.lap("inference");

        facts.score = findings.score();
        rules.set.evaluate(Phase::After, &facts, &mut findings.hits);
        self.parts.metrics.rules(&findings.hits);
        watch.lap("rules");
        drop(facts);
        findings.vector = Some(vector);
        findings
    }

    /// Records the event and reads who took part. What does not come in time is NaN.
    async fn features(&self, event: &Event, deadline: &Deadline, findings: &mut Findings) -> EntityStates {
        let limit = deadline.allowance(Stage::Features);
        if limit.is_zero() {
            self.parts.metrics.features_not_whole();
            return EntityStates::default();
        }
        let read = self.parts.store.record_and_read(event, Instant::now() + limit).await;
        findings.incomplete_windows = match read.state() {
            FeatureState::Whole => findings.freshness().incomplete_windows(),
            _ => read.incomplete_windows(self.parts.full_schema.windows()),
        };
        findings.features = findings.freshness().state(read.state());
        if findings.features != FeatureState::Whole {
            self.parts.metrics.features_not_whole();
        }
        read.states
    }

    /// The score that the tier asks for, or the next best.
    async fn score(&self, event: &Event, states: &EntityStates, vector: &[f32], tier: Tier, deadline: &Deadline, findings: &mut Findings) {
        let light = self.parts.light.as_ref().and_then(ModelSlot::get);
        if tier == Tier::RulesOnly {
            findings.score_not_needed();
            return;
        }
        // Without a light model, the full one is the next best for its tier too.
        if tier == Tier::Full || light.is_none() {
            let limit = deadline.allowance(Stage::Inference);
            match self.parts.engine.score(vector, limit).await {
                Ok(scored) => return findings.scored_by_full_model(scored),
                Err(error) => self.parts.metrics.inference_failed(error.reason()),
            }
        }
        if let Some(model) = light {
            let vector =
                self.parts.light_schema.assemble(event, states).without_windows(&self.parts.light_schema, findings.freshness().missing());
            findings.scored_by_light_model(model.score(vector.values()), &model.digest);
        }
    }

    /// Too much is under way: no features, no rules, no score; the amount decides, and the answer says so.
    fn shed(&self) -> Findings {
        self.parts.metrics.shed();
        Findings::nothing(self.parts.rules.current().state, self.parts.freshness.current())
    }

    fn conclude(&self, event: &Event, plan: &PlanView, tier: Tier, findings: Findings) -> Answer {
        let settings = &self.parts.settings;
        let (thresholds, cause) = decide::thresholds_for(settings.thresholds, settings.raise_by, findings.features);
        let decision = decide::decide(&Grounds {
            scored: findings.scored,
            rules: &findings.hits.fired,
            thresholds,
            amount_base_minor: event.amount_base_minor(),
            approve_below_minor: settings.approve_below_minor,
        });
        let confirmed = plan.active_region == settings.region;
        let degradation = Degradation {
            features: findings.features,
            incomplete_windows: findings.incomplete_windows,
            graph: GraphState::None,
            inference: findings.inference,
            rules: findings.rules,
            authority: if confirmed { AuthorityState::Confirmed } else { AuthorityState::Unconfirmed },
            durability: decide::Durability::None,
            // Ids are not claimed anywhere yet (issue 5), so a retry may be decided twice.
            idempotency: IdempotencyState::Unconfirmed,
        };
        Answer {
            thresholds: decision.score.map(|_| thresholds.to_wire(cause)),
            decision,
            degradation,
            tier,
            freshness: findings.freshness,
            model_digest: findings.model_digest,
            vector: findings.vector,
            feature_schema: self.parts.full_schema.fingerprint().to_owned(),
        }
    }

    pub fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// Counts a request that got an error and no decision.
    pub fn refused(&self, reason: &'static str) {
        self.parts.metrics.refused(reason);
    }

    pub fn handover(&self) -> &Handover {
        &self.parts.handover
    }

    /// Whether this pod should get traffic. A feature store, an inference service or a Kafka that is away is no reason to
    /// say no: degraded answers are answers, and all pods would say no at once.
    ///
    /// # Errors
    /// The sentence says what is still missing.
    pub fn readiness(&self) -> Result<(), String> {
        let rules: Arc<ActiveRules> = self.parts.rules.current();
        if !rules.loaded {
            return Err(rules.problem.clone().unwrap_or_else(|| "rules are not loaded yet".into()));
        }
        let models = [("light model", self.parts.light.as_ref()), ("model", self.parts.engine.in_process())];
        for (name, slot) in models {
            if let Some(problem) = slot.and_then(ModelSlot::problem) {
                return Err(format!("{name} is not loaded: {problem}"));
            }
        }
        if !self.warmed_up.load(Ordering::Relaxed) {
            return Err("connecting to feature store, inference and Kafka".into());
        }
        Ok(())
    }

    /// Lets the feature store follow the plan, until its source is gone.
    pub async fn follow_plan(&self) {
        let FeatureStore::Redis(store) = &self.parts.store else { return };
        let mut changes = self.parts.plan.changes();
        while changes.changed().await.is_ok() {
            let plan = changes.borrow_and_update().clone();
            if let Err(error) = store.follow(&plan) {
                tracing::error!(%error, epoch = plan.epoch.0, "feature store stays with the plan before");
            }
        }
    }

    /// Keeps what is known of the features' freshness current.
    pub async fn follow_freshness(&self) {
        let FeatureStore::Redis(store) = &self.parts.store else { return };
        self.parts.freshness.follow(store, self.parts.settings.staleness, &self.parts.metrics, &self.parts.clock).await;
    }

    /// Tells the processes after this one who is asked for most.
    pub async fn write_hot_list(&self) {
        let FeatureStore::Redis(store) = &self.parts.store else { return };
        store.write_hot_list().await;
    }

    /// Once a second.
    pub fn tick(&self) {
        let rules = self.parts.rules.current();
        self.parts.metrics.tick(&rules.set, rules.state);
    }

    /// `/plan`: the plan that this process follows. `/features`: the names that rules may use.
    pub fn admin_routes(&self) -> Router {
        let plan = self.parts.plan.clone();
        let names: Vec<String> = self.parts.full_schema.names().map(str::to_owned).collect();
        Router::new()
            .route("/plan", get(move || async move { Json(plan.current().as_ref().clone()) }))
            .route("/features", get(move || async move { Json(names) }))
    }
}

/// When the answer is due, and how the time until then is divided.
struct Deadline {
    at: Instant,
    split: Split,
}

impl Deadline {
    fn new(accepted_at: Instant, client_limit: Option<Duration>, settings: &Settings) -> Self {
        let by_client = client_limit.map(|limit| limit - (limit / 10).min(CLIENT_MARGIN_MAX));
        let total = by_client.unwrap_or(Duration::MAX).min(settings.deadline);
        Self { at: accepted_at + total, split: Split::new(settings.budgets, total, settings.deadline) }
    }

    fn allowance(&self, stage: Stage) -> Duration {
        self.split.allowance(stage, self.at.saturating_duration_since(Instant::now()))
    }
}
