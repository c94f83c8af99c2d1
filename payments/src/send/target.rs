//! Where payments go: several HTTP/2 connections to one decision service. IO: network, one certificate file.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use proto::fraud::v1::scoring_client::ScoringClient;
use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

const RETRY_EVERY: Duration = Duration::from_millis(250);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// Such as `http://127.0.0.1:8443` or `https://198.18.0.10:30443`.
    pub address: String,
    /// PEM file of the authority that signed the service's certificate.
    pub tls_ca: Option<PathBuf>,
    /// The name in the service's certificate, if it is not the host of the address.
    pub tls_name: Option<String>,
    pub connections: usize,
    /// How long to wait for the service to accept connections.
    pub ready_within: Duration,
}

/// Connected; a connection that breaks is re-established by itself.
#[derive(Debug, Clone)]
pub struct Target {
    clients: Vec<ScoringClient<Channel>>,
}

impl Target {
    pub async fn connect(options: &TargetOptions) -> anyhow::Result<Self> {
        let endpoint = endpoint(options)?;
        let give_up_at = Instant::now() + options.ready_within;
        let mut clients = Vec::new();
        while clients.len() < options.connections.max(1) {
            match endpoint.connect().await {
                Ok(channel) => clients.push(ScoringClient::new(channel)),
                Err(error) if Instant::now() >= give_up_at => {
                    let within = options.ready_within;
                    return Err(error).with_context(|| {
                        format!(
                            "{} does not accept gRPC connections ({within:?} waited): is the decision service running there?",
                            options.address
                        )
                    });
                }
                Err(_) => tokio::time::sleep(RETRY_EVERY).await,
            }
        }
        Ok(Self { clients })
    }

    /// The connection for this payment: one after the other.
    pub(crate) fn client(&self, sequence: u64) -> ScoringClient<Channel> {
        let index = sequence % self.clients.len() as u64;
        self.clients[usize::try_from(index).unwrap_or(0)].clone()
    }
}

fn endpoint(options: &TargetOptions) -> anyhow::Result<Endpoint> {
    let address = &options.address;
    let endpoint = Endpoint::from_shared(address.clone())
        .with_context(|| format!("--target {address:?} is not an address: write it like http://127.0.0.1:8443"))?
        .connect_timeout(CONNECT_WITHIN)
        .tcp_nodelay(true);
    let encrypted = match address.split_once("://").map(|(scheme, _)| scheme) {
        Some("https") => true,
        Some("http") => false,
        _ => bail!("--target {address:?} has no scheme: write http:// (plain) or https:// (TLS) before the host"),
    };
    match (&options.tls_ca, encrypted) {
        (None, false) => Ok(endpoint),
        (Some(_), false) => bail!("--tls-ca is given, but --target {address:?} is http: write https://"),
        (None, true) => bail!("--target {address:?} is https: say with --tls-ca FILE which authority to trust"),
        (Some(path), true) => {
            let pem = std::fs::read(path).with_context(|| format!("cannot read --tls-ca {}", path.display()))?;
            let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
            if let Some(name) = &options.tls_name {
                tls = tls.domain_name(name);
            }
            endpoint.tls_config(tls).with_context(|| format!("--tls-ca {} is not a PEM certificate", path.display()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_targets_are_refused_with_the_fix() {
        for (address, tls_ca, expected) in [
            ("127.0.0.1:8443", None, "write http://"),
            ("https://127.0.0.1:8443", None, "--tls-ca FILE"),
            ("http://127.0.0.1:8443", Some(PathBuf::from("ca.pem")), "write https://"),
            ("http://no host", None, "is not an address"),
        ] {
            let options = TargetOptions { address: address.into(), tls_ca, tls_name: None, connections: 1, ready_within: Duration::ZERO };
            let error = format!("{:#}", endpoint(&options).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
