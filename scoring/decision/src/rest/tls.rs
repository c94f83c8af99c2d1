//! TLS for REST, which speaks HTTP/1.1 (the gRPC server offers HTTP/2 only, and so cannot serve both).

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

use crate::config::Tls;

const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Finished handshakes that wait to be served.
const READY_MAX: usize = 256;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsFileError {
    #[error("tls: cannot use {}: {why}", path.display())]
    File { path: PathBuf, why: String },
    #[error("tls: certificate and key do not fit: {0}")]
    Mismatch(String),
}

/// Accepts connections and makes their handshakes side by side, so that a slow client holds up nobody.
pub(crate) struct TlsListener {
    local: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// # Errors
    /// When the files cannot be read or do not belong together.
    pub(crate) fn new(listener: TcpListener, tls: &Tls) -> Result<Self, TlsFileError> {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(tls)?));
        let local = listener.local_addr().map_err(|error| TlsFileError::Mismatch(error.to_string()))?;
        let (sender, ready) = mpsc::channel(READY_MAX);
        tokio::spawn(accept(listener, acceptor, sender));
        Ok(Self { local, ready })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The accepting task ends only with its receiver, which is here.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

async fn accept(mut listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    loop {
        let (stream, peer) = tokio::select! {
            connection = Listener::accept(&mut listener) => connection,
            () = ready.closed() => return,
        };
        // Only latency is lost where the socket refuses.
        let _ = stream.set_nodelay(true);
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                // Nobody listens any more: the connection is closed with the process.
                Ok(Ok(stream)) => drop(ready.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            }
        });
    }
}

fn server_config(tls: &Tls) -> Result<ServerConfig, TlsFileError> {
    let file = |path: &PathBuf, why: String| TlsFileError::File { path: path.clone(), why };
    let certificates = CertificateDer::pem_file_iter(&tls.cert_file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file(&tls.cert_file, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key_file).map_err(|error| file(&tls.key_file, error.to_string()))?;
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(certificates, key).map_err(|error| TlsFileError::Mismatch(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
