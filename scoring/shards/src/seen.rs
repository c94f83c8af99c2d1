//! One look at a process: its facts, and the settings that a promotion changes and puts back.

use domain::{Epoch, HostPort};
use operator_planner::ShardFacts;
use redis::{Pipeline, aio::MultiplexedConnection};

use crate::{EPOCH_KEY, HEARTBEAT_KEY, NO_WRITES, ShardClient, ShardError, info::Info};

pub(crate) struct Seen {
    pub(crate) facts: ShardFacts,
    /// The history that the process's stream belongs to: a replica has that of its primary.
    pub(crate) history: String,
    pub(crate) min_replicas: u64,
    /// Zero switches `min-replicas-to-write` off, whatever it says.
    pub(crate) min_replicas_lag_s_max: u64,
    pub(crate) ping_period_s: u64,
}

type Answers = (String, Option<String>, Option<String>, u64, Vec<String>, Vec<String>, Vec<String>);

impl Seen {
    pub(crate) async fn ask(client: &ShardClient, connection: &mut MultiplexedConnection, address: &HostPort) -> Result<Self, ShardError> {
        Self::read(client, connection, address, &questions(redis::pipe())).await
    }

    /// As `ask`, and from now on the connection's next transaction aborts if somebody writes the epoch.
    pub(crate) async fn watch(
        client: &ShardClient,
        connection: &mut MultiplexedConnection,
        address: &HostPort,
    ) -> Result<Self, ShardError> {
        let mut pipe = redis::pipe();
        pipe.cmd("WATCH").arg(EPOCH_KEY).ignore();
        Self::read(client, connection, address, &questions(pipe)).await
    }

    async fn read(
        client: &ShardClient,
        connection: &mut MultiplexedConnection,
        address: &HostPort,
        pipe: &Pipeline,
    ) -> Result<Self, ShardError> {
        let answers: Answers = client.ask(connection, address, pipe).await?;
        Self::of(answers).map_err(|what| ShardError::Unreadable { address: address.clone(), what: what.to_owned() })
    }

    fn of((info, epoch, heartbeat, keys, min_replicas, lag_s_max, ping_period): Answers) -> Result<Self, &'static str> {
        let epoch = epoch.map(|text| read_epoch(&text).ok_or("its epoch")).transpose()?;
        let min_replicas = setting(&min_replicas).ok_or("min-replicas-to-write")?;
        let info = Info(&info);
        let role = info.role(min_replicas == NO_WRITES).ok_or("INFO replication")?;
        let bookkeeping = u64::from(epoch.is_some()).saturating_add(u64::from(heartbeat.is_some()));
        Ok(Self {
            facts: ShardFacts {
                role,
                epoch,
                holds_data: keys > bookkeeping,
                offset: info.offset(),
                replicas_required: min_replicas,
                unlinked_s: info.unlinked_s(),
            },
            history: info.get("master_replid").unwrap_or_default().to_owned(),
            min_replicas,
            min_replicas_lag_s_max: setting(&lag_s_max).ok_or("min-replicas-max-lag")?,
            ping_period_s: setting(&ping_period).ok_or("repl-ping-replica-period")?,
        })
    }
}

fn questions(mut pipe: Pipeline) -> Pipeline {
    pipe.cmd("INFO").arg("replication");
    pipe.cmd("GET").arg(EPOCH_KEY).cmd("GET").arg(HEARTBEAT_KEY).cmd("DBSIZE");
    for name in ["min-replicas-to-write", "min-replicas-max-lag", "repl-ping-replica-period"] {
        pipe.cmd("CONFIG").arg("GET").arg(name);
    }
    pipe
}

/// The answer to CONFIG GET of one setting: its name and its value.
fn setting(answer: &[String]) -> Option<u64> {
    answer.get(1)?.parse().ok()
}

pub(crate) fn read_epoch(text: &str) -> Option<Epoch> {
    text.parse().ok().map(Epoch)
}
