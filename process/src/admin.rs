//! The admin port: `/livez`, `/readyz`, `/metrics` (Prometheus text), and what a service adds.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Why a process is not ready; `Ok` when it is. Shown in the body of `/readyz`.
pub type Readiness = Result<(), String>;

type ReadinessCheck = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// Serves the admin port until shutdown.
pub struct AdminServer {
    registry: Arc<Registry>,
    readiness: ReadinessCheck,
    extra: Router,
}

#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    readiness: ReadinessCheck,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot serve the admin port on {address}: {source}")]
pub struct AdminError {
    address: SocketAddr,
    source: std::io::Error,
}

impl AdminServer {
    /// `readiness` is called for each probe: it must be quick and must not wait.
    pub fn new(registry: Registry, readiness: impl Fn() -> Readiness + Send + Sync + 'static) -> Self {
        Self { registry: Arc::new(registry), readiness: Arc::new(readiness), extra: Router::new() }
    }

    /// Adds routes of the service's own, such as `/plan` or `/positions`.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.extra = self.extra.merge(routes);
        self
    }

    /// The whole router, for tests and for services that share a port.
    pub fn router(self) -> Router {
        let shared = Shared { registry: self.registry, readiness: self.readiness };
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(shared)
            .merge(self.extra)
    }

    /// Binds and serves. Goes on through the drain: `stop` should be cancelled last, so that probes are answered until
    /// the end.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve(self, address: SocketAddr, stop: CancellationToken) -> Result<(), AdminError> {
        let failed = |source| AdminError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        axum::serve(listener, self.router()).with_graceful_shutdown(stop.cancelled_owned()).await.map_err(failed)
    }
}

async fn readyz(State(shared): State<Shared>) -> impl IntoResponse {
    match (shared.readiness)() {
        Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shared.registry) {
        Ok(()) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
