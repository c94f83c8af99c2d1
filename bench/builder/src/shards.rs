//! The shards: where they stand, and what they hold.

use anyhow::{Context, Result};
use bench::redis_server::RedisServer;
use bench_features::connection::connect;
use domain::{Epoch, HostPort, PipelineName, PlanView, RegionName, RegionRole, Revision, ShardAddress, SlotMap, Step};
use redis::aio::MultiplexedConnection;
use redis::cmd;
use scoring_core::event::{EntityId, EntityKind};
use scoring_core::key::{entity_key, slot_of_entity};
use scoring_core::state::EntityState;

use crate::log::{EVENTS, Ends};

const SHARDS: u16 = 2;
/// The most that a card has here is far below.
const EVENTS_MAX: usize = 512;

pub struct Shards {
    servers: Vec<RedisServer>,
    connections: Vec<MultiplexedConnection>,
    slots: SlotMap,
}

impl Shards {
    /// # Errors
    /// When Redis cannot be started.
    pub async fn start() -> Result<Self> {
        let (mut servers, mut connections) = (Vec::new(), Vec::new());
        for _ in 0..SHARDS {
            let server = RedisServer::start(&[])?;
            connections.push(connect(server.port()).await?);
            servers.push(server);
        }
        Ok(Self { servers, connections, slots: SlotMap::even(SHARDS)? })
    }

    /// The plan of the region that they are of.
    ///
    /// # Errors
    /// Never: the names are constants.
    pub fn plan(&self) -> Result<PlanView> {
        let region = RegionName::new("us-east").context("the region of the benchmark")?;
        let address = |(shard, server): (u16, &RedisServer)| ShardAddress {
            shard,
            primary: HostPort { host: "127.0.0.1".to_string(), port: server.port() },
            replicas: Vec::new(),
        };
        Ok(PlanView {
            pipeline: PipelineName::new("payments").context("the pipeline of the benchmark")?,
            namespace: "fraud".to_string(),
            region: region.clone(),
            epoch: Epoch(1),
            revision: Revision(1),
            active_region: region,
            role: RegionRole::Active,
            step: Step::Steady,
            slots: self.slots.clone(),
            shards: (0..).zip(&self.servers).map(address).collect(),
        })
    }

    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.servers.iter().map(RedisServer::pid)
    }

    /// Up to where all shards have folded the log.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn folded(&self) -> Result<Ends> {
        let mut folded: Option<Ends> = None;
        for connection in &self.connections {
            let vector: Vec<(String, i64)> = cmd("HGETALL").arg("fp:vector").query_async(&mut connection.clone()).await?;
            let ends = positions(&vector);
            folded = Some(match folded {
                None => ends,
                Some(others) => others.into_iter().filter_map(|(at, next)| Some((at, next.min(*ends.get(&at)?)))).collect(),
            });
        }
        Ok(folded.unwrap_or_default())
    }

    /// How many payments of each card there are.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub async fn payments(&self, cards: &[EntityId]) -> Result<Vec<u64>> {
        let mut counts = Vec::with_capacity(cards.len());
        for card in cards {
            let slot = slot_of_entity(EntityKind::Card, *card);
            let shard = usize::from(self.slots.shard_of(slot));
            let connection = self.connections.get(shard).context("a slot has no shard")?;
            let value: Option<Vec<u8>> =
                cmd("GET").arg(&entity_key(EntityKind::Card, *card)[..]).query_async(&mut connection.clone()).await?;
            let state = EntityState::parse(&value.unwrap_or_default(), EVENTS_MAX);
            let summed_up: u64 = state.panes().as_slice().iter().map(|pane| u64::from(pane.attempts())).sum();
            counts.push(summed_up + state.records().len() as u64);
        }
        Ok(counts)
    }
}

/// Of a vector, whose fields are CLUSTER/TOPIC/PARTITION.
fn positions(vector: &[(String, i64)]) -> Ends {
    let position = |(field, next): &(String, i64)| {
        let (log, partition) = field.rsplit_once('/')?;
        log.ends_with(&format!("/{EVENTS}")).then_some((partition.parse().ok()?, *next))
    };
    vector.iter().filter_map(position).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_log_of_events() {
        let vector = [("c/fraud.events.raw/3", 7), ("c/fraud.profiles/0", 9), ("odd", 1)].map(|(field, next)| (field.to_string(), next));
        assert_eq!(positions(&vector), Ends::from([(3, 7)]));
    }
}
