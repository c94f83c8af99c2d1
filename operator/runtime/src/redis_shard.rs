//! One shard's Redis process: what it is, and making it something else.
//!
//! Redis knows no epochs, so a role changes only inside a transaction that first looks at the epoch written there
//! (`WATCH fp:epoch`, `GET`, `MULTI` … `EXEC`): a command of an operator that was overtaken aborts. A replica refuses
//! writes when they are queued, so the new primary writes its epoch by a script, which runs when it is none any more.

use std::{str::FromStr, time::Duration};

use domain::{Epoch, HostPort};
use operator_planner::{Link, ShardFacts, ShardRole};
use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
use scoring_dial::{Dial, Tls};

/// Where every process looks for a primary when it starts; nothing listens there.
const NOWHERE: (&str, u16) = ("127.0.0.1", 1);
const EPOCH_KEY: &str = "fp:epoch";
/// So many replicas nobody has: a primary that wants them refuses all writes.
const NO_WRITES: u64 = 255;
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const WRITE_EPOCH: &str = "return redis.call('SET', KEYS[1], ARGV[1])";
const USER: &str = "operator";

/// What a process becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Primary,
    Follow(HostPort),
    Hold,
    /// As a primary, takes writes only while so many replicas have them at hand.
    Require(u64),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ShardError {
    #[error("{address}: {source}")]
    Redis { address: HostPort, source: redis::RedisError },
    #[error("{address} holds epoch {seen}, which is newer than epoch {ours}: nothing was changed")]
    NewerEpoch { address: HostPort, seen: Epoch, ours: Epoch },
    #[error("{address}: somebody else wrote its epoch in this moment: nothing was changed")]
    Raced { address: HostPort },
    #[error("{address}: {what} cannot be understood: nothing was changed")]
    Unreadable { address: HostPort, what: String },
}

impl ShardError {
    /// Whether nobody listens at that address.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Redis { source, .. } if source.is_connection_refusal())
    }
}

/// Connects as the role `operator`. Debug output has no password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ShardClient {
    password: String,
    tls: Option<Tls>,
}

impl std::fmt::Debug for ShardClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShardClient")
    }
}

impl ShardClient {
    pub(crate) fn new(password: String) -> Self {
        Self { password, tls: None }
    }

    pub(crate) fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// What the process is. Its answers are not of one moment.
    ///
    /// # Errors
    /// When it does not answer in time or not as Redis does.
    pub(crate) async fn look(&self, address: &HostPort) -> Result<ShardFacts, ShardError> {
        let failed = |source| ShardError::Redis { address: address.clone(), source };
        let mut connection = self.connect(address).await.map_err(failed)?;
        let (info, epoch, keys, guard): (String, Option<String>, u64, Vec<String>) = redis::pipe()
            .cmd("INFO")
            .arg("replication")
            .cmd("GET")
            .arg(EPOCH_KEY)
            .cmd("DBSIZE")
            .cmd("CONFIG")
            .arg("GET")
            .arg("min-replicas-to-write")
            .query_async(&mut connection)
            .await
            .map_err(failed)?;
        let unreadable = |what: &str| ShardError::Unreadable { address: address.clone(), what: what.to_owned() };
        let epoch = epoch.map(|text| read_epoch(&text).ok_or_else(|| unreadable("its epoch"))).transpose()?;
        let replicas_required = guard.get(1).and_then(|value| value.parse().ok()).ok_or_else(|| unreadable("min-replicas-to-write"))?;
        let info = Info(&info);
        let role = info.role(replicas_required == NO_WRITES).ok_or_else(|| unreadable("INFO replication"))?;
        let holds_data = keys > u64::from(epoch.is_some());
        Ok(ShardFacts { role, epoch, holds_data, offset: info.offset(), replicas_required, unlinked_s: info.unlinked_s() })
    }

    /// Changes what the process is, unless somebody has acted there in a newer epoch. Safe to repeat.
    ///
    /// # Errors
    /// When nothing was changed, or when it is not known whether something was.
    pub(crate) async fn change(&self, address: &HostPort, change: &Change, epoch: Epoch) -> Result<(), ShardError> {
        let failed = |source| ShardError::Redis { address: address.clone(), source };
        // A connection of its own: WATCH belongs to the connection.
        let mut connection = self.connect(address).await.map_err(failed)?;
        redis::cmd("WATCH").arg(EPOCH_KEY).exec_async(&mut connection).await.map_err(failed)?;
        let seen: Option<String> = redis::cmd("GET").arg(EPOCH_KEY).query_async(&mut connection).await.map_err(failed)?;
        if let Some(text) = seen {
            let what = || ShardError::Unreadable { address: address.clone(), what: "its epoch".into() };
            let seen = read_epoch(&text).ok_or_else(what)?;
            if seen > epoch {
                return Err(ShardError::NewerEpoch { address: address.clone(), seen, ours: epoch });
            }
        }
        let done: Option<Vec<redis::Value>> = transaction(change, epoch).query_async(&mut connection).await.map_err(failed)?;
        done.map(drop).ok_or_else(|| ShardError::Raced { address: address.clone() })
    }

    pub(crate) async fn connect(&self, address: &HostPort) -> redis::RedisResult<MultiplexedConnection> {
        let user = RedisConnectionInfo::default().set_username(USER).set_password(&self.password);
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN)).set_response_timeout(Some(ANSWER_WITHIN));
        Dial { address, tls: self.tls.as_ref(), user }.connect(config).await
    }
}

fn transaction(change: &Change, epoch: Epoch) -> redis::Pipeline {
    let mut pipe = redis::pipe();
    pipe.atomic();
    let set_guard = |pipe: &mut redis::Pipeline, replicas: u64| {
        pipe.cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(replicas);
    };
    match change {
        Change::Primary => {
            set_guard(&mut pipe, 0);
            pipe.cmd("REPLICAOF").arg("NO").arg("ONE");
            pipe.cmd("EVAL").arg(WRITE_EPOCH).arg(1).arg(EPOCH_KEY).arg(epoch.0);
        }
        Change::Follow(upstream) => {
            pipe.cmd("REPLICAOF").arg(&upstream.host).arg(upstream.port);
        }
        Change::Hold => {
            set_guard(&mut pipe, NO_WRITES);
            pipe.cmd("REPLICAOF").arg("NO").arg("ONE");
        }
        Change::Require(replicas) => set_guard(&mut pipe, *replicas),
    }
    pipe
}

fn read_epoch(text: &str) -> Option<Epoch> {
    text.parse().ok().map(Epoch)
}

/// The answer to INFO: lines `name:value`.
struct Info<'a>(&'a str);

impl Info<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
    }

    fn number<T: FromStr>(&self, name: &str) -> Option<T> {
        self.get(name)?.parse().ok()
    }

    fn role(&self, writes_blocked: bool) -> Option<ShardRole> {
        match self.get("role")? {
            "master" if writes_blocked => Some(ShardRole::Held),
            "master" => Some(ShardRole::Primary),
            "slave" => {
                let upstream = HostPort { host: self.get("master_host")?.to_owned(), port: self.number("master_port")? };
                if (upstream.host.as_str(), upstream.port) == NOWHERE {
                    return Some(ShardRole::Nowhere);
                }
                let syncing = self.get("master_sync_in_progress") == Some("1");
                let link = match self.get("master_link_status")? {
                    "up" => Link::Up,
                    _ if syncing => Link::Syncing,
                    _ => Link::Down,
                };
                Some(ShardRole::Following { upstream, link })
            }
            _ => None,
        }
    }

    /// One that never had a connection says -1.
    fn unlinked_s(&self) -> u64 {
        match self.get("master_link_status") {
            Some("down") => self.number("master_link_down_since_seconds").unwrap_or(u64::MAX),
            _ => 0,
        }
    }

    fn offset(&self) -> u64 {
        // A replica that never had a connection says -1 or 0.
        self.number("slave_repl_offset").or_else(|| self.number("master_repl_offset")).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_says_of_itself_is_understood() {
        let replica = |host: &str, port: u16, status: &str, syncing: u8| {
            format!(
                "# Replication\r\nrole:slave\r\nmaster_host:{host}\r\nmaster_port:{port}\r\nmaster_link_status:{status}\r\nmaster_sync_in_progress:{syncing}\r\nslave_repl_offset:42\r\n"
            )
        };
        let role = |text: &str, blocked| Info(text).role(blocked);
        assert_eq!(role(&replica("127.0.0.1", 1, "down", 0), false), Some(ShardRole::Nowhere));
        let following = |link| Some(ShardRole::Following { upstream: HostPort { host: "node.us-east".into(), port: 30400 }, link });
        assert_eq!(role(&replica("node.us-east", 30400, "up", 0), false), following(Link::Up));
        assert_eq!(role(&replica("node.us-east", 30400, "down", 1), false), following(Link::Syncing));
        assert_eq!(role(&replica("node.us-east", 30400, "down", 0), false), following(Link::Down));
        assert_eq!(Info(&replica("a", 1, "up", 0)).offset(), 42);
        let alone = |seconds: i64| format!("role:slave\r\nmaster_link_status:down\r\nmaster_link_down_since_seconds:{seconds}\r\n");
        assert_eq!((Info(&alone(7)).unlinked_s(), Info(&alone(-1)).unlinked_s()), (7, u64::MAX));
        assert_eq!(Info(&replica("a", 1, "up", 0)).unlinked_s(), 0);
        assert_eq!(role("role:master\r\nmaster_repl_offset:7\r\n", false), Some(ShardRole::Primary));
        assert_eq!(role("role:master\r\n", true), Some(ShardRole::Held));
        for nonsense in ["", "role:sentinel", "role:slave\r\nmaster_host:x\r\n"] {
            assert_eq!(role(nonsense, false), None);
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", ShardClient::new("secret".into())).contains("secret"));
    }
}
