//! Putting the parts together: ports, threads, the follower of the configuration, and the order in which they end.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use process::admin::AdminServer;
use prometheus_client::registry::Registry;
use proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::{
    cache::ModelCache,
    config::Config,
    follow::Follower,
    grpc::Grpc,
    infer::Service,
    metrics::Metrics,
    models::{Loader, Models},
    onnx::{OnnxRuntime, RuntimeError},
    pool::Pool,
    rest,
};

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Config(#[from] crate::config::InvalidField),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("cache_dir {}: {source}. It must be a folder that the service may write", path.display())]
    Cache { path: PathBuf, source: std::io::Error },
    #[error("cannot start threads: {0}")]
    Threads(std::io::Error),
    #[error("cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
}

/// A service that has started. Its ports are bound, even if no model is in service yet.
pub struct Running {
    pub grpc: SocketAddr,
    pub rest: SocketAddr,
    pub admin: SocketAddr,
    service: Arc<Service>,
    servers: JoinSet<()>,
    /// Ends last, so that probes are answered through the drain.
    admin_server: tokio::task::JoinHandle<()>,
    admin_stop: CancellationToken,
}

/// Starts everything; the model is loaded in the background. `path` is followed for changes of the model.
///
/// # Errors
/// When ONNX Runtime is missing, a port is taken, or the cache cannot be written.
pub async fn run(config: Config, path: &Path, stop: CancellationToken) -> Result<Running, ServeError> {
    config.check()?;
    let runtime = OnnxRuntime::load(config.runtime.library.as_deref())?;
    tracing::info!(library = %runtime.path().display(), "ONNX Runtime loaded");
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let threads = config.runtime.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let pool = Pool::start(threads, config.limits.queue_max, &metrics).map_err(ServeError::Threads)?;
    let models = Arc::new(Models::default());
    let service = Arc::new(Service { models: models.clone(), pool, metrics: metrics.clone(), rows_max: config.limits.rows_max });

    let mut servers = JoinSet::new();
    let grpc = serve_grpc(&config, service.clone(), &mut servers, stop.clone()).await?;
    let rest = serve_rest(&config, service.clone(), &mut servers, stop.clone()).await?;
    let admin_stop = CancellationToken::new();
    let (admin, admin_server) = serve_admin(&config, registry, models.clone(), stop.clone(), admin_stop.clone()).await?;

    let loader = Arc::new(Loader {
        runtime,
        windows: config.feature_windows()?,
        cache: open_cache(&config)?,
        threads,
        rows_max: config.limits.rows_max,
        bytes_max: config.limits.model_bytes_max,
    });
    let follower = Follower { path: path.to_owned(), wanted: config.model.clone(), loader, models, metrics, logged: None };
    servers.spawn(follower.run(stop));
    Ok(Running { grpc, rest, admin, service, servers, admin_server, admin_stop })
}

impl Running {
    /// Waits until the stop token is cancelled and everything that had begun is answered.
    pub async fn finish(mut self) {
        while self.servers.join_next().await.is_some() {}
        let service = self.service;
        // Waits for threads, hence not here. Nothing is queued any more unless a connection broke.
        let _ = tokio::task::spawn_blocking(move || service.pool.close()).await;
        self.admin_stop.cancel();
        let _ = self.admin_server.await;
    }
}

fn open_cache(config: &Config) -> Result<ModelCache, ServeError> {
    ModelCache::open(&config.cache_dir).map_err(|source| ServeError::Cache { path: config.cache_dir.clone(), source })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn serve_grpc(
    config: &Config,
    service: Arc<Service>,
    servers: &mut JoinSet<()>,
    stop: CancellationToken,
) -> Result<SocketAddr, ServeError> {
    let (listener, address) = listen(config.listen.grpc).await?;
    let protocol = GrpcInferenceServiceServer::new(Grpc::new(service)).max_decoding_message_size(config.limits.request_bytes_max);
    servers.spawn(async move {
        let server = tonic::transport::Server::builder().add_service(protocol);
        // Small answers must not wait for more bytes.
        let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
        if let Err(error) = server.serve_with_incoming_shutdown(connections, stop.cancelled_owned()).await {
            tracing::error!(%error, "gRPC server ended");
        }
    });
    Ok(address)
}

async fn serve_rest(
    config: &Config,
    service: Arc<Service>,
    servers: &mut JoinSet<()>,
    stop: CancellationToken,
) -> Result<SocketAddr, ServeError> {
    let (listener, address) = listen(config.listen.rest).await?;
    let router = rest::router(service, config.limits.request_bytes_max);
    servers.spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
            tracing::error!(%error, "REST server ended");
        }
    });
    Ok(address)
}

async fn serve_admin(
    config: &Config,
    registry: Registry,
    models: Arc<Models>,
    stop: CancellationToken,
    admin_stop: CancellationToken,
) -> Result<(SocketAddr, tokio::task::JoinHandle<()>), ServeError> {
    let (listener, address) = listen(config.listen.admin).await?;
    let readiness = move || {
        if stop.is_cancelled() {
            return Err("shutting down".to_owned());
        }
        match models.current() {
            Some(_) => Ok(()),
            None => Err(models.problem().unwrap_or_else(|| "no model is in service yet".to_owned())),
        }
    };
    let router = AdminServer::new(registry, readiness).router();
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(admin_stop.cancelled_owned()).await {
            tracing::error!(%error, "admin server ended");
        }
    });
    Ok((address, server))
}
