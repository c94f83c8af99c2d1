//! How far a copy is behind its primary. Never 0 where it was not measured.

use domain::HostPort;
use futures::future::{try_join, try_join_all};
use redis::aio::MultiplexedConnection;
use serde::Serialize;

use crate::{HEARTBEAT_KEY, ShardClient, ShardError, info::Info};

/// The primary's own clock, so that the age needs no clock of anybody else.
const BEAT: &str = "local now = redis.call('TIME') \
                    return redis.call('SET', KEYS[1], string.format('%d%03d', now[1], math.floor(now[2] / 1000)))";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LagReport {
    pub primary: HostPort,
    pub replica: HostPort,
    /// Of the stream of writes. `None` when the replica's history is another one, or its link is down.
    pub lag_bytes: Option<u64>,
    /// Since the primary wrote the newest heartbeat that the replica has: by the primary's clock, so never less than the lag
    /// plus half a round trip. `None` when no heartbeat is written.
    pub heartbeat_age_ms: Option<u64>,
    pub link_up: bool,
}

struct Side {
    replication: String,
    heartbeat_ms: Option<u64>,
    clock_ms: Option<u64>,
}

impl ShardClient {
    /// Looks at both in the same moment, as far as the ways to them allow.
    ///
    /// # Errors
    /// When one of them does not answer in time or not as Redis does.
    pub async fn lag(&self, primary: &HostPort, replica: &HostPort) -> Result<LagReport, ShardError> {
        let mut connections = try_join_all([self.connect(primary), self.connect(replica)]).await?;
        let [first, second] = connections.as_mut_slice() else {
            return Err(ShardError::Unreadable { address: primary.clone(), what: "its connection".into() });
        };
        let (ahead, behind) = try_join(self.side(first, primary), self.side(second, replica)).await?;
        let (source, copy) = (Info(&ahead.replication), Info(&behind.replication));
        let link_up = copy.get("master_link_status") == Some("up");
        let related = link_up && source.get("master_replid") == copy.get("master_replid");
        let offset: Option<u64> = source.number("master_repl_offset");
        Ok(LagReport {
            primary: primary.clone(),
            replica: replica.clone(),
            lag_bytes: offset.filter(|_| related).map(|offset| offset.saturating_sub(copy.offset())),
            heartbeat_age_ms: ahead.clock_ms.zip(behind.heartbeat_ms).map(|(now, then)| now.saturating_sub(then)),
            link_up,
        })
    }

    /// Writes the heartbeat on a primary.
    ///
    /// # Errors
    /// When the process does not take it.
    pub async fn beat(&self, primary: &HostPort) -> Result<(), ShardError> {
        let mut connection = self.connect(primary).await?;
        self.ask(&mut connection, primary, redis::pipe().cmd("EVAL").arg(BEAT).arg(1).arg(HEARTBEAT_KEY)).await
    }

    async fn side(&self, connection: &mut MultiplexedConnection, address: &HostPort) -> Result<Side, ShardError> {
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("replication").cmd("INFO").arg("server").cmd("GET").arg(HEARTBEAT_KEY);
        let (replication, server, heartbeat): (String, String, Option<String>) = self.ask(connection, address, &pipe).await?;
        let clock_ms = Info(&server).number::<u64>("server_time_usec").map(|us| us / 1_000);
        Ok(Side { replication, heartbeat_ms: heartbeat.and_then(|text| text.parse().ok()), clock_ms })
    }
}
