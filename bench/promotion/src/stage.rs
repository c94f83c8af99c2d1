//! Two regions with a Redis process for each shard. Whoever is in one region reaches the other over a slow line.

use std::time::Duration;

use anyhow::{Result, bail};
use domain::{Epoch, HostPort};
use feature_shards::{Change, Pair, ShardClient};
use redis_testbed::{Line, Server};
use tokio::time::Instant;

const COPIES_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Stage {
    /// By region, then by shard.
    servers: [Vec<Server>; 2],
    /// To the servers of a region, from the other one.
    lines: [Vec<Line>; 2],
}

impl Stage {
    /// Region 0 has the primaries of epoch 1.
    pub(crate) async fn set_up(shards: u16, one_way: Duration) -> Result<Self> {
        let servers = [start(shards)?, start(shards)?];
        let lines = [connect(&servers[0], one_way).await?, connect(&servers[1], one_way).await?];
        let stage = Self { servers, lines };
        let client = ShardClient::without_login();
        for shard in 0..usize::from(shards) {
            client.change(&stage.near(0, shard), &Change::Primary, Epoch(1)).await?;
            // So that it holds data.
            stage.servers[0][shard].ask::<()>("SET e:{first} 1")?;
            client.change(&stage.near(1, shard), &Change::Follow(stage.far(0, shard)), Epoch(1)).await?;
        }
        stage.wait_for_copies(1).await?;
        Ok(stage)
    }

    pub(crate) fn servers(&self, region: usize) -> &[Server] {
        &self.servers[region]
    }

    fn near(&self, region: usize, shard: usize) -> HostPort {
        self.servers[region][shard].address()
    }

    fn far(&self, region: usize, shard: usize) -> HostPort {
        self.lines[region][shard].address()
    }

    /// A region's shards, as somebody in region `from` reaches them.
    pub(crate) fn addresses(&self, region: usize, from: usize) -> Vec<HostPort> {
        let shards = 0..self.servers[region].len();
        shards.map(|shard| if region == from { self.near(region, shard) } else { self.far(region, shard) }).collect()
    }

    /// What a controller in region `to` moves there.
    pub(crate) fn pairs(&self, from: usize, to: usize) -> Vec<Pair> {
        let pair = |(number, shard)| Pair {
            shard: number,
            old: self.far(from, shard),
            new: self.near(to, shard),
            new_from_old: self.far(to, shard),
        };
        (0..).zip(0..self.servers[to].len()).map(pair).collect()
    }

    pub(crate) async fn wait_for_copies(&self, region: usize) -> Result<()> {
        let started = Instant::now();
        for server in &self.servers[region] {
            while !server.ask::<String>("INFO replication")?.contains("master_link_status:up") {
                if started.elapsed() > COPIES_WITHIN {
                    bail!("the copies were not complete after {} s", COPIES_WITHIN.as_secs());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Partial and full resyncs that all servers have counted since they started.
    pub(crate) fn resyncs(&self) -> Result<(u64, u64)> {
        let (mut partial, mut full) = (0, 0);
        for server in self.servers.iter().flatten() {
            partial += server.info("sync_partial_ok")?;
            full += server.info("sync_full")?;
        }
        Ok((partial, full))
    }
}

fn start(shards: u16) -> Result<Vec<Server>> {
    (0..shards).map(|_| Server::start("")).collect()
}

async fn connect(servers: &[Server], one_way: Duration) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for server in servers {
        lines.push(Line::start(server.address(), one_way).await?);
    }
    Ok(lines)
}
