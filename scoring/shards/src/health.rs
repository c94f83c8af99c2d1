//! How a process and its copies are doing, from one look at it.

use domain::{Epoch, HostPort};
use operator_planner::{Link, ShardRole};
use serde::Serialize;

use crate::{ShardClient, ShardError, info::Info, resync::Resyncs, seen::Seen, settings::Settings};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub address: HostPort,
    /// `primary`, `held`, `following` or `nowhere`.
    pub role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    pub holds_data: bool,
    /// How far it is in the stream of writes.
    pub offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<HostPort>,
    /// `up`, `syncing` or `down`: the link to what it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<&'static str>,
    /// Since it last heard anything on that link, PINGs included: tells that the link lives, not that the copy is fresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heard_s_ago: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_down_s: Option<u64>,
    /// What follows it.
    pub replicas: Vec<ReplicaHealth>,
    pub resyncs: Resyncs,
    pub used_memory_bytes: u64,
    pub settings: Settings,
    /// The clock of its machine, to compare two looks at the same process.
    pub time_ms: u64,
}

/// A replica, as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaHealth {
    pub address: HostPort,
    /// `online` when it gets the stream.
    pub state: String,
    pub lag_bytes: u64,
    /// Since it last acknowledged; healthy replicas do so each second.
    pub lag_s: u64,
}

impl ShardClient {
    /// # Errors
    /// When the process does not answer in time or not as Redis does.
    pub async fn health(&self, address: &HostPort) -> Result<Health, ShardError> {
        let mut connection = self.connect(address).await?;
        let seen = Seen::ask(self, &mut connection, address).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("INFO").arg("replication").cmd("INFO").arg("stats").cmd("INFO").arg("memory").cmd("INFO").arg("server");
        let (replication, stats, memory, server): (String, String, String, String) = self.ask(&mut connection, address, &pipe).await?;
        let settings = Settings::ask(self, &mut connection, address, &server).await?;
        let (upstream, link) = upstream_of(&seen.facts.role);
        let info = Info(&replication);
        Ok(Health {
            address: address.clone(),
            role: seen.facts.role.name(),
            epoch: seen.facts.epoch,
            holds_data: seen.facts.holds_data,
            offset: info.offset(),
            upstream,
            link,
            // -1 while there is no link.
            heard_s_ago: info.number("master_last_io_seconds_ago"),
            link_down_s: info.number("master_link_down_since_seconds"),
            replicas: replicas_of(&info),
            resyncs: Resyncs::of(&Info(&stats)),
            used_memory_bytes: Info(&memory).number("used_memory").unwrap_or(0),
            settings,
            time_ms: Info(&server).number::<u64>("server_time_usec").unwrap_or(0) / 1_000,
        })
    }
}

fn upstream_of(role: &ShardRole) -> (Option<HostPort>, Option<&'static str>) {
    match role {
        ShardRole::Following { upstream, link } => (Some(upstream.clone()), Some(link_name(*link))),
        ShardRole::Nowhere | ShardRole::Primary | ShardRole::Held => (None, None),
    }
}

fn link_name(link: Link) -> &'static str {
    match link {
        Link::Up => "up",
        Link::Syncing => "syncing",
        Link::Down => "down",
    }
}

fn replicas_of(info: &Info<'_>) -> Vec<ReplicaHealth> {
    let offset: u64 = info.number("master_repl_offset").unwrap_or(0);
    let health = |line: crate::info::ReplicaLine| ReplicaHealth {
        lag_bytes: offset.saturating_sub(line.offset),
        lag_s: line.ack_age_s,
        address: line.address,
        state: line.state,
    };
    info.replicas().into_iter().map(health).collect()
}
