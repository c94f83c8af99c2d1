//! The connection of peers: as tuned as ours (one, multiplexed, RESP3, without delay), and without a response time-out of its own.

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo};

/// # Errors
/// When Redis does not take the connection.
pub async fn connect(port: u16) -> Result<MultiplexedConnection> {
    let info = ConnectionAddr::Tcp("127.0.0.1".to_string(), port)
        .into_connection_info()?
        .set_redis_settings(RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3))
        .set_tcp_settings(TcpSettings::default().set_nodelay(true));
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Client::open(info)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .with_context(|| format!("cannot connect to the benchmark's Redis on port {port}"))
}
