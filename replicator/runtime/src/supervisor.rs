//! Keeps one link connected: starts it on a thread of its own, shows why it ended, and starts the next one.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use kafka::KafkaMetrics;
use process::{admin::AdminServer, plan::PlanWatch};
use prometheus_client::registry::Registry;
use replicator_core::{LinkState, Trouble};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, InvalidField},
    link::{self, Clock, Shared},
    metrics::Metrics,
    view::{Shown, View},
};

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// After another mirror has taken over: long enough for a rolling update to end this process, and not for ever, because
/// the other one may die.
const RETRY_FENCED: Duration = Duration::from_secs(30);
/// A link that lasted this long was a good one: its end is no sign that the next attempt will fail.
const GOOD: Duration = Duration::from_secs(60);

/// Why the replicator does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Config(#[from] InvalidField),
    #[error("plan is for region {plan}, configuration for {config}: mount the plan of this region")]
    OtherRegion { plan: String, config: String },
    #[error(transparent)]
    Admin(#[from] process::admin::AdminError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Mirrors until `stop` is cancelled, then commits what is open. Trouble with a cluster is shown and tried again; only what
/// cannot work at all is an error.
///
/// # Errors
/// When the configuration cannot work or the admin port is taken.
pub async fn run(config: Config, plan: PlanWatch, stop: CancellationToken) -> Result<(), RunError> {
    config.check()?;
    let current = plan.current();
    if current.region != config.region {
        return Err(RunError::OtherRegion { plan: current.region.to_string(), config: config.region.to_string() });
    }
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry, config.origin.as_str(), config.lag_objective);
    let kafka = KafkaMetrics::register(&mut registry);
    let shown = Shown::new(without_link(&config, &plan, LinkState::Starting, None));
    let admin = AdminServer::new(registry, readiness(shown.clone(), stop.clone())).with_routes(shown.routes());
    let admin_stop = CancellationToken::new();
    let admin = tokio::spawn(admin.serve(config.admin, admin_stop.clone()));

    let shared = Shared { config: Arc::new(config), plan, clock: Clock::start(), shown, metrics, kafka, runtime: Handle::current(), stop };
    let (finished, ended) = oneshot::channel();
    let stop = shared.stop.clone();
    let mirror = thread::Builder::new().name("mirror".into()).spawn(move || {
        supervise(&shared);
        // Nobody waits any more when the admin port failed.
        let _ = finished.send(());
    })?;
    tokio::pin!(admin);
    tokio::select! {
        // Without its admin port the process could not be watched: end, and be restarted.
        served = &mut admin => {
            stop.cancel();
            served.unwrap_or(Ok(()))?;
        }
        _ = ended => {
            admin_stop.cancel();
            let _ = admin.await;
        }
    }
    // Its channel is closed: it has ended or is about to.
    drop(mirror);
    Ok(())
}

fn supervise(shared: &Shared) {
    let mut retry_after = RETRY_FIRST;
    while !shared.stop.is_cancelled() {
        let began = Instant::now();
        let Err(trouble) = link::run(shared) else { return };
        if shared.stop.is_cancelled() {
            tracing::warn!(%trouble, "the last transaction was not committed; its records are mirrored after the next start");
            return;
        }
        if began.elapsed() >= GOOD {
            retry_after = RETRY_FIRST;
        }
        let wait = if matches!(trouble, Trouble::Fenced { .. }) { RETRY_FENCED } else { retry_after };
        show(shared, &trouble, wait);
        // Ends early when the process stops.
        let _ = shared.runtime.block_on(async { tokio::time::timeout(wait, shared.stop.cancelled()).await });
        retry_after = RETRY_MAX.min(retry_after * 2);
    }
}

fn show(shared: &Shared, trouble: &Trouble, wait: Duration) {
    tracing::warn!(%trouble, retry_after_s = wait.as_secs(), "mirror is not connected");
    shared.metrics.restarted();
    let mut view = without_link(&shared.config, &shared.plan, trouble.into(), Some(trouble.to_string()));
    view.came_home_records = shared.shown.get().came_home_records;
    shared.metrics.show(&view);
    shared.shown.set(view);
}

/// Without a link nothing is known of partitions.
fn without_link(config: &Config, plan: &PlanWatch, state: LinkState, why: Option<String>) -> View {
    View {
        origin: config.origin.clone(),
        region: config.region.clone(),
        state,
        why,
        epoch: plan.current().epoch,
        source_cluster: None,
        target_cluster: None,
        came_home_records: 0,
        partitions: vec![],
    }
}

fn readiness(shown: Shown, stop: CancellationToken) -> impl Fn() -> process::admin::Readiness + Send + Sync + 'static {
    move || {
        let view = shown.get();
        if stop.is_cancelled() {
            return Err("shutting down".to_owned());
        }
        if view.state.is_ready() {
            return Ok(());
        }
        Err(format!("{}{}", view.state, view.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()))
    }
}
