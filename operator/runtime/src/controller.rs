//! Puts the parts together and runs them until the process is told to stop or loses its lease.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use crds::{FraudPipeline, RegionPlan};
use futures::{Stream, StreamExt, channel::mpsc, future::join_all, stream::select};
use kube::{
    Client, ResourceExt,
    runtime::{
        Controller,
        controller::Action as Requeue,
        events::{Recorder, Reporter},
        reflector::ObjectRef,
        watcher,
    },
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    apply::Applier,
    build::ClusterFacts,
    cache::{Cache, Scope},
    client,
    config::{Identity, OperatorConfig},
    error::{Error, with_causes},
    execute::Executor,
    lease::Election,
    metrics::Metrics,
    observe::{Observer, Pulse, Topics},
    reconcile::{Context, reconcile},
    register::{KubeRegister, PipelineKey, Register},
    report::WriteLimit,
};

/// Changes that come together give one pass.
const GATHER: Duration = Duration::from_millis(200);
const PIPELINES_AT_ONCE: u16 = 8;
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("no way to the Kubernetes API server: {0}. In a pod, mount the service account's token; elsewhere, set KUBECONFIG")]
    Config(#[from] kube::config::InferConfigError),
    #[error("Kubernetes client: {0}")]
    Client(#[from] kube::Error),
    #[error(transparent)]
    Admin(#[from] process::admin::AdminError),
    #[error("the lease was lost: another replica may be acting now")]
    LeaseLost,
}

/// Runs until `stop`.
///
/// # Errors
/// When it cannot start, or may not go on. The caller ends the process at once: nothing more may be written.
pub async fn run(config: OperatorConfig, identity: Identity, stop: CancellationToken) -> Result<(), RunError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let kafka_metrics = kafka::KafkaMetrics::register(&mut registry);
    let client = client::connect(kube::Config::infer().await?, &metrics)?;
    let scopes = Scope::of(&config.watch_namespaces);
    let (cache, keep_cache, changes) = Cache::start(&client, &scopes);
    let warm = Arc::new(AtomicBool::new(false));

    let admin = process::admin::AdminServer::new(registry, readiness(warm.clone()));
    let mut election = Election::new(client.clone(), identity.clone());
    let act = async {
        cache.ready().await;
        warm.store(true, Ordering::Relaxed);
        tracing::info!("waiting for the lease");
        election.win().await;
        tracing::info!("this replica acts");
        metrics.leads(true);
        let controllers = act(&client, config.clone(), identity, &scopes, cache.clone(), changes, kafka_metrics, &metrics, &stop);
        tokio::select! {
            () = election.hold() => Err(RunError::LeaseLost),
            result = controllers => result,
        }
    };
    let result = tokio::select! {
        result = act => result,
        () = keep_cache => Ok(()),
        result = admin.serve(config.admin, CancellationToken::new()) => result.map_err(RunError::from),
        () = stop.cancelled() => Ok(()),
    };
    if result.is_ok() {
        election.release().await;
    }
    result
}

fn readiness(warm: Arc<AtomicBool>) -> impl Fn() -> process::admin::Readiness + Send + Sync + 'static {
    move || if warm.load(Ordering::Relaxed) { Ok(()) } else { Err("what is in the cluster is not known yet".into()) }
}

#[allow(clippy::too_many_arguments)]
async fn act(
    client: &Client,
    config: OperatorConfig,
    identity: Identity,
    scopes: &[Scope],
    cache: Cache,
    changes: mpsc::Receiver<()>,
    kafka_metrics: kafka::KafkaMetrics,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    let cluster = cluster_facts(client).await?;
    let topics = Arc::new(Topics::new(kafka_metrics));
    let (noticed, news) = mpsc::channel(1);
    let pulse = Arc::new(Pulse::new(noticed));
    let (senders, receivers): (Vec<_>, Vec<_>) = scopes.iter().map(|_| mpsc::channel::<()>(1)).unzip();
    let controllers = scopes.iter().zip(receivers).map(|(scope, changes)| {
        let controller = controller(client, scope, changes, stop);
        let executor = Executor {
            client: client.clone(),
            applier: Applier::new(client.clone(), cache.clone()),
            topics: topics.clone(),
            region: config.region.clone(),
            cluster,
            metrics: metrics.clone(),
        };
        let context = Context {
            client: client.clone(),
            register: KubeRegister::new(client.clone(), config.region.clone()),
            observer: Observer::new(client.clone(), cache.clone(), config.region.clone(), topics.clone(), pulse.clone(), metrics.clone()),
            executor,
            pipelines: controller.store(),
            recorder: Recorder::new(
                client.clone(),
                Reporter { controller: crds::names::FIELD_MANAGER.into(), instance: Some(identity.pod.clone()) },
            ),
            limit: WriteLimit::default(),
            metrics: metrics.clone(),
            config: config.clone(),
        };
        drive(controller, Arc::new(context))
    });
    tokio::join!(join_all(controllers), pass_on(select(changes, news), senders));
    Ok(())
}

/// Tells every scope of changes to owned objects and to shards' processes. Ends when all have ended.
async fn pass_on(mut changes: impl Stream<Item = ()> + Unpin, mut scopes: Vec<mpsc::Sender<()>>) {
    while changes.next().await.is_some() {
        scopes.retain(|scope| !scope.is_closed());
        if scopes.is_empty() {
            return;
        }
        for scope in &mut scopes {
            // Full: a pass is coming already.
            drop(scope.try_send(()));
        }
    }
}

fn controller(client: &Client, scope: &Scope, changes: mpsc::Receiver<()>, stop: &CancellationToken) -> Controller<FraudPipeline> {
    let settings = kube::runtime::controller::Config::default().debounce(GATHER).concurrency(PIPELINES_AT_ONCE);
    Controller::new(scope.api(client), watcher::Config::default())
        .with_config(settings)
        .watches(scope.api::<RegionPlan>(client), watcher::Config::default(), |cell| {
            let namespace = cell.namespace().unwrap_or_default();
            Some(ObjectRef::new(&cell.name_any()).within(&namespace))
        })
        .reconcile_all_on(changes)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
}

async fn drive<R: Register>(controller: Controller<FraudPipeline>, context: Arc<Context<R>>) {
    let retries = Arc::new(Retries::default());
    let succeeded = retries.clone();
    let results = controller.run(reconcile, move |pipeline, error, _| retries.after(&pipeline, error), context);
    results
        .for_each(|result| {
            match result {
                Ok((pipeline, _)) => succeeded.forget(&pipeline),
                Err(error) => tracing::warn!(error = with_causes(&error), "a pass did not end"),
            }
            async {}
        })
        .await;
}

/// How often each pipeline's pass has failed in a row.
#[derive(Default)]
struct Retries {
    failed: Mutex<BTreeMap<PipelineKey, usize>>,
}

impl Retries {
    /// Longer with each failure, with jitter, so that many pipelines do not come back together.
    fn after(&self, pipeline: &FraudPipeline, error: &Error) -> Requeue {
        if error.is_race() {
            return Requeue::requeue(RETRY_MIN);
        }
        let key = PipelineKey { namespace: pipeline.namespace().unwrap_or_default(), name: pipeline.name_any() };
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failed.entry(key).or_default();
        let mut waits =
            ExponentialBuilder::default().with_min_delay(RETRY_MIN).with_max_delay(RETRY_MAX).with_jitter().without_max_times().build();
        let wait = waits.nth((*count).min(16)).unwrap_or(RETRY_MAX);
        *count += 1;
        Requeue::requeue(wait)
    }

    fn forget(&self, pipeline: &ObjectRef<FraudPipeline>) {
        let key = PipelineKey { namespace: pipeline.namespace.clone().unwrap_or_default(), name: pipeline.name.clone() };
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// Looked at once, when this replica begins to act.
async fn cluster_facts(client: &Client) -> kube::Result<ClusterFacts> {
    let groups = client.list_api_groups().await?;
    Ok(ClusterFacts { custom_metrics: groups.groups.iter().any(|group| group.name == "custom.metrics.k8s.io") })
}
