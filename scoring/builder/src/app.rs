//! The process: everything from files, one session after the other as the plan says, health and metrics.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use domain::PlanView;
use kafka::{AckProducer, Admin, KafkaMetrics};
use process::{admin::AdminServer, plan::PlanWatch};
use prometheus_client::registry::Registry;
use scoring_core::schema::FeatureSchema;
use scoring_features::{FeatureMetrics, RedisStore};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    announce::Announcer,
    clock::SteadyClock,
    config::Config,
    dead_letter::DeadLetters,
    heartbeat::Heart,
    metrics::Metrics,
    publish::Publisher,
    session::{Builder, SessionError},
    watermarks::Watermarks,
};

const CLIENT_ID: &str = "scoring-builder";
const HEART_CLIENT_ID: &str = "scoring-builder-heart";
/// Between a session that failed and the next.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A session that went on for this long had recovered.
const RECOVERED: Duration = Duration::from_secs(30);

/// Runs until `stop`, then ends with the batch that is under way.
///
/// # Errors
/// When the process cannot start: the sentence says which file or field, and what to do.
pub async fn run(config_path: &Path, plan_path: &Path, stop: CancellationToken) -> anyhow::Result<()> {
    // Two TLS implementations are linked; whoever connects first would have to guess.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config: Config = process::config::load(config_path)?;
    config.check().with_context(|| config_path.display().to_string())?;
    let plan = PlanWatch::follow(plan_path, stop.clone())?;
    serve(config, plan, stop).await
}

/// As [`run`], with configuration and plan at hand.
///
/// # Errors
/// When a client cannot be made of the configuration, or the admin port cannot be bound.
pub async fn serve(config: Config, plan: PlanWatch, stop: CancellationToken) -> anyhow::Result<()> {
    let mut registry = Registry::default();
    let builder = Arc::new(assemble(config, &plan.current(), &mut registry)?);
    let stop_admin = CancellationToken::new();
    let readiness = {
        let (builder, plan) = (builder.clone(), plan.clone());
        move || readiness(&builder, &plan.current())
    };
    let admin = AdminServer::new(registry, readiness).serve(builder.config.admin, stop_admin.clone());
    let admin = tokio::spawn(admin);
    let heart = tokio::spawn(heart(&builder, plan.clone())?.beat_until(stop.clone()));
    let announcer = Announcer { builder: builder.clone(), plan: plan.clone() };
    let announcer = tokio::spawn(announcer.announce_until(stop.clone()));
    let grace = builder.config.shutdown_grace;
    let mut supervisor = tokio::spawn(Supervisor { builder, plan }.run(stop.clone()));
    tokio::select! {
        _ = &mut supervisor => {}
        ended = admin => ended.context("admin port")??,
        () = stop.cancelled() => {
            if tokio::time::timeout(grace, &mut supervisor).await.is_err() {
                tracing::warn!("the batch under way did not end in time: it will be folded again after the start");
                supervisor.abort();
            }
        }
    }
    heart.abort();
    announcer.abort();
    stop_admin.cancel();
    tracing::info!("ended");
    Ok(())
}

fn assemble(config: Config, plan: &PlanView, registry: &mut Registry) -> anyhow::Result<Builder> {
    let kafka_metrics = KafkaMetrics::register(registry);
    let features = config.features.checked().context("features")?;
    let publisher = Arc::new(Publisher {
        producer: AckProducer::new(&config.kafka, CLIENT_ID, &kafka_metrics).context("kafka")?,
        topic: config.features_topic(),
        schema: FeatureSchema::full(&features.windows),
        region: config.region.clone(),
    });
    let timeout = config.limits.kafka_timeout;
    Ok(Builder {
        store: RedisStore::start(features, FeatureMetrics::register(registry), plan).context("plan")?,
        admin: Admin::new(&config.kafka, CLIENT_ID, &kafka_metrics).context("kafka")?,
        publisher,
        dead_letters: DeadLetters::new(&config.kafka, CLIENT_ID, config.dead_letter_topic(), timeout).context("kafka")?,
        watermarks: Arc::new(Watermarks::new(config.region.clone(), SteadyClock::start())),
        metrics: Metrics::register(registry),
        kafka_metrics,
        config,
        problem: std::sync::Mutex::default(),
    })
}

/// Its producer is its own: heartbeats must not wait behind features.
fn heart(builder: &Builder, plan: PlanWatch) -> anyhow::Result<Heart> {
    let config = &builder.config;
    Ok(Heart {
        producer: AckProducer::new(&config.kafka, HEART_CLIENT_ID, &builder.kafka_metrics).context("kafka")?,
        admin: builder.admin.clone(),
        topic: config.events_topic(),
        region: config.region.clone(),
        plan,
        interval: config.freshness.heartbeat_interval,
        watermarks: builder.watermarks.clone(),
        metrics: builder.metrics.clone(),
    })
}

/// A builder that has nothing to do is ready to begin.
fn readiness(builder: &Builder, plan: &PlanView) -> Result<(), String> {
    if !plan.writes_features() {
        return Ok(());
    }
    let disconnected = builder.store.disconnected();
    if !disconnected.is_empty() {
        return Err(format!("no connection to shards {disconnected:?} of the feature store"));
    }
    builder.problem().map_or(Ok(()), Err)
}

/// Runs one session after the other: folding while this region is the active one, else following the logs' heartbeats.
struct Supervisor {
    builder: Arc<Builder>,
    plan: PlanWatch,
}

impl Supervisor {
    async fn run(self, stop: CancellationToken) {
        let mut changes = self.plan.changes();
        let mut pause = PAUSE_MIN;
        while !stop.is_cancelled() {
            let plan = changes.borrow_and_update().clone();
            self.adopt(&plan);
            let session_stop = stop.child_token();
            let began = Instant::now();
            let session = self.session(&plan, &session_stop);
            tokio::pin!(session);
            let ended = tokio::select! {
                ended = &mut session => ended,
                () = changed(&mut changes) => { session_stop.cancel(); session.await }
                () = stop.cancelled() => session.await,
            };
            self.builder.metrics.idle();
            let Err(error) = ended else { continue };
            self.note(&plan, &error);
            pause = if began.elapsed() >= RECOVERED { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => {}, () = changed(&mut changes) => {} }
        }
    }

    fn adopt(&self, plan: &PlanView) {
        self.builder.watermarks.follow(plan);
        if let Err(error) = self.builder.store.follow(plan) {
            tracing::error!(%error, "plan cannot be followed: keeping the former");
            self.builder.set_problem(Some(error.to_string()));
        }
    }

    async fn session(&self, plan: &PlanView, stop: &CancellationToken) -> Result<(), SessionError> {
        if plan.writes_features() {
            return self.builder.session(plan, stop).await;
        }
        self.builder.set_problem(None);
        tracing::info!(role = %plan.role, epoch = plan.epoch.0, "this region does not write its shards: following the logs");
        self.builder.follow(stop).await
    }

    /// A region that does not fold lacks nothing that anybody waits for.
    fn note(&self, plan: &PlanView, error: &SessionError) {
        self.builder.metrics.needs_somebody(error.needs_somebody());
        if error.needs_somebody() {
            tracing::error!(%error, "folding stands still until somebody acts");
        } else {
            tracing::warn!(%error, "session ended, beginning anew");
        }
        if plan.writes_features() {
            self.builder.set_problem(Some(error.to_string()));
        }
    }
}

/// Returns when there is another plan; never, when there can be none.
async fn changed(changes: &mut watch::Receiver<Arc<PlanView>>) {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
