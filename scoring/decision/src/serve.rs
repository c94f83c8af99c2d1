//! The three ports, and a shutdown that loses nothing: not ready, finish what is under way, flush Kafka, end.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use axum::serve::ListenerExt as _;
use process::admin::AdminServer;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming};

use crate::{
    config::{Listen, Tls},
    grpc::Grpc,
    pipeline::Pipeline,
    rest,
    service::Service,
};

/// Part of the grace that is kept for flushing Kafka once the last decision is made.
const FLUSH_SHARE: u32 = 3;
const TICK: Duration = Duration::from_secs(1);
/// A pod whose dependencies do not answer becomes ready after this: degraded answers are answers.
const WARM_UP_MAX: Duration = Duration::from_secs(3);

/// Where a server can be reached; ports are the real ones, also when 0 was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub rest: SocketAddr,
    pub admin: SocketAddr,
}

pub struct Serving {
    pub addresses: Addresses,
    service: Arc<Service>,
    pipeline: Arc<Pipeline>,
    ports: [JoinHandle<()>; 2],
    admin: JoinHandle<()>,
    ending: Arc<AtomicBool>,
    stop_ports: CancellationToken,
    stop_admin: CancellationToken,
}

/// Binds all ports and starts to serve.
///
/// # Errors
/// When a port cannot be bound or the TLS files cannot be used.
pub async fn start(pipeline: Arc<Pipeline>, registry: Registry, listen: &Listen, tls: Option<&Tls>) -> anyhow::Result<Serving> {
    let service = Arc::new(Service::new(pipeline.clone()));
    let ending = Arc::new(AtomicBool::new(false));
    let (stop_ports, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let grpc = bind("gRPC", listen.grpc).await?;
    let rest = bind("REST", listen.rest).await?;
    let admin = bind("admin", listen.admin).await?;
    let addresses = Addresses { grpc: grpc.local_addr()?, rest: rest.local_addr()?, admin: admin.local_addr()? };

    let ports = [serve_grpc(grpc, service.clone(), tls, stop_ports.clone())?, serve_rest(rest, service.clone(), tls, stop_ports.clone())?];
    let admin = serve_admin(admin, registry, pipeline.clone(), ending.clone(), stop_admin.clone());
    tokio::spawn(tick(pipeline.clone(), stop_admin.clone()));
    tokio::spawn({
        let (pipeline, stop) = (pipeline.clone(), stop_admin.clone());
        async move { stop.run_until_cancelled(pipeline.warm_up(WARM_UP_MAX)).await }
    });
    tokio::spawn({
        let (pipeline, stop) = (pipeline.clone(), stop_admin.clone());
        async move { stop.run_until_cancelled(pipeline.follow_plan()).await }
    });
    tokio::spawn({
        let (pipeline, stop) = (pipeline.clone(), stop_admin.clone());
        async move { stop.run_until_cancelled(pipeline.follow_freshness()).await }
    });
    tokio::spawn({
        let (pipeline, stop) = (pipeline.clone(), stop_admin.clone());
        async move { stop.run_until_cancelled(pipeline.write_hot_list()).await }
    });
    Ok(Serving { addresses, service, pipeline, ports, admin, ending, stop_ports, stop_admin })
}

impl Serving {
    /// Serves until `stop`, then ends within `grace`.
    pub async fn run(self, stop: CancellationToken, grace: Duration) {
        stop.cancelled().await;
        self.end(grace).await;
    }

    async fn end(self, grace: Duration) {
        self.ending.store(true, Ordering::Relaxed);
        self.stop_ports.cancel();
        let until = Instant::now() + (grace - grace / FLUSH_SHARE);
        for mut port in self.ports {
            // A port has ended when its last answer is written. A client that keeps a connection open beyond the time
            // limit is cut off.
            if tokio::time::timeout_at(until, &mut port).await.is_err() {
                port.abort();
            }
        }
        let open = self.service.drain(until).await;
        let unacknowledged = self.pipeline.handover().flush(grace / FLUSH_SHARE).await;
        if open + unacknowledged > 0 {
            tracing::warn!(open, unacknowledged, "ended before everything was finished");
        }
        self.stop_admin.cancel();
        // The admin port has nothing under way that could fail.
        let _ = tokio::time::timeout(TICK, self.admin).await;
        tracing::info!("ended");
    }
}

async fn bind(what: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot bind the {what} port {address}: is something else using it?"))
}

fn serve_grpc(listener: TcpListener, service: Arc<Service>, tls: Option<&Tls>, stop: CancellationToken) -> anyhow::Result<JoinHandle<()>> {
    let mut server = Server::builder().http2_keepalive_interval(Some(Duration::from_secs(20)));
    if let Some(tls) = tls {
        let read = |path| std::fs::read(path).with_context(|| format!("tls: cannot read {}", std::path::Path::display(path)));
        let identity = Identity::from_pem(read(&tls.cert_file)?, read(&tls.key_file)?);
        server = server.tls_config(ServerTlsConfig::new().identity(identity)).context("tls: certificate and key cannot be used")?;
    }
    let router = server.add_service(Grpc::server(service, stop.clone()));
    // The builder's own setting does not reach listeners that are handed in; an answer must not wait for an acknowledgement.
    let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(tokio::spawn(async move {
        if let Err(error) = router.serve_with_incoming_shutdown(connections, stop.cancelled_owned()).await {
            tracing::error!(%error, "gRPC port failed");
        }
    }))
}

fn serve_rest(listener: TcpListener, service: Arc<Service>, tls: Option<&Tls>, stop: CancellationToken) -> anyhow::Result<JoinHandle<()>> {
    let router = rest::router(service);
    let Some(tls) = tls else {
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        return Ok(tokio::spawn(async move {
            // Serving ends only with the shutdown: accept errors are retried inside.
            let _ = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        }));
    };
    let listener = rest::TlsListener::new(listener, tls)?;
    Ok(tokio::spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    }))
}

fn serve_admin(
    listener: TcpListener,
    registry: Registry,
    pipeline: Arc<Pipeline>,
    ending: Arc<AtomicBool>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let routes = pipeline.admin_routes();
    let readiness = move || {
        if ending.load(Ordering::Relaxed) {
            return Err("shutting down".to_owned());
        }
        pipeline.readiness()
    };
    let router = AdminServer::new(registry, readiness).with_routes(routes).router();
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    })
}

async fn tick(pipeline: Arc<Pipeline>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            _ = interval.tick() => pipeline.tick(),
            () = stop.cancelled() => return,
        }
    }
}
