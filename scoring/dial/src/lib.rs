//! How a shard of the feature store is connected to.
//!
//! A shard is reached at many addresses: its pods' names, a Service, a node's port from another region. Its certificate has
//! one name, that of the region's feature store (`domain::feature_store_name`), and is verified by that one wherever the
//! connection leads. So a certificate of another region is refused, and none has to be made anew for a new address.
#![forbid(unsafe_code)]

use std::{net::SocketAddr, path::PathBuf};

use domain::HostPort;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, RedisFuture, RedisResult, TlsCertificates,
    aio::MultiplexedConnection,
    io::{AsyncDNSResolver, tcp::TcpSettings},
};
use serde::{Deserialize, Serialize};

/// Part `redis.tls` of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The authorities that may have signed a shard's certificate, as PEM. It is read for each new connection.
    pub ca_file: PathBuf,
    /// The name that the certificate must have, whatever the address.
    pub server_name: String,
}

impl TlsConfig {
    /// # Errors
    /// When the file cannot be read.
    pub async fn load(&self) -> std::io::Result<Tls> {
        Ok(Tls { ca_pem: tokio::fs::read(&self.ca_file).await?, server_name: self.server_name.clone() })
    }
}

/// What a shard's certificate is verified by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub ca_pem: Vec<u8>,
    pub server_name: String,
}

/// One connection to be made. Without `tls` nothing is encrypted: for tests on loopback.
pub struct Dial<'a> {
    pub address: &'a HostPort,
    pub tls: Option<&'a Tls>,
    pub user: RedisConnectionInfo,
}

impl Dial<'_> {
    /// # Errors
    /// When nobody answers there, or somebody whose certificate is not the shard's, or who refuses the user.
    pub async fn connect(self, config: AsyncConnectionConfig) -> RedisResult<MultiplexedConnection> {
        let (client, config) = match self.tls {
            None => (Client::open(self.info(ConnectionAddr::Tcp(self.address.host.clone(), self.address.port))?)?, config),
            Some(tls) => {
                let (host, port) = (tls.server_name.clone(), self.address.port);
                let info = self.info(ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None })?;
                let authorities = TlsCertificates { client_tls: None, root_cert: Some(tls.ca_pem.clone()) };
                (Client::build_with_tls(info, authorities)?, config.set_dns_resolver(Toward(self.address.host.clone())))
            }
        };
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn info(&self, address: ConnectionAddr) -> RedisResult<redis::ConnectionInfo> {
        // A pipeline is written whole: waiting for the acknowledgement of the one before it would only add latency.
        let without_delay = TcpSettings::default().set_nodelay(true);
        Ok(address.into_connection_info()?.set_redis_settings(self.user.clone()).set_tcp_settings(without_delay))
    }
}

/// Leads to this host, by whatever name the client verifies it.
struct Toward(String);

impl AsyncDNSResolver for Toward {
    fn resolve<'a, 'b: 'a>(&'a self, _: &'b str, port: u16) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((self.0.as_str(), port)).await?;
            Ok(Box::new(found) as Box<dyn Iterator<Item = SocketAddr> + Send + 'a>)
        })
    }
}
