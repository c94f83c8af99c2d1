//! Bytes to and from shards, encrypted where they speak TLS.

use std::{io, sync::Arc, time::Duration};

use domain::HostPort;
use scoring_dial::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A connection, encrypted or not.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}
pub(crate) type AnyConnection = Box<dyn Connection>;

/// The certificate and key that we show to shards that follow us: of the authority that they trust. Debug output has no key.
#[derive(Clone)]
pub struct Identity(TlsAcceptor);

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// # Errors
    /// When certificate and key, as PEM, cannot be understood or do not belong together.
    pub fn of(certificate: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(|error| format!("the certificate: {error}"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
        Ok(Self(TlsAcceptor::from(Arc::new(config.map_err(|error| error.to_string())?))))
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<AnyConnection> {
        Ok(Box::new(self.0.accept(stream).await?))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// # Errors
/// When nobody answers there in time, or somebody whose certificate is not the shard's.
pub(crate) async fn connect(address: &HostPort, tls: Option<&Tls>) -> io::Result<AnyConnection> {
    let connecting = async {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        match tls {
            None => Ok(Box::new(stream) as AnyConnection),
            Some(tls) => {
                let name = ServerName::try_from(tls.server_name.clone()).map_err(io::Error::other)?;
                Ok(Box::new(connector(tls)?.connect(name, stream).await?) as AnyConnection)
            }
        }
    };
    tokio::time::timeout(CONNECT_WITHIN, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn connector(tls: &Tls) -> io::Result<TlsConnector> {
    let mut authorities = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&tls.ca_pem) {
        authorities.add(authority.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(authorities).with_no_client_auth())))
}
