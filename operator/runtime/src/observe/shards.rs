//! What this region's shards are and, while one of them is not what it should be, what the other regions' copies are.

use std::collections::BTreeMap;

use domain::{HostPort, Known, Plan, RegionName};
use feature_shards::ShardClient;
use futures::future::join_all;
use operator_planner::{Link, ShardFacts, ShardRole, view_of};

use super::Observer;

type Shards = Vec<Known<ShardFacts>>;

pub(super) async fn look(observer: &Observer, plan: &Plan, password: Result<String, String>) -> (Shards, BTreeMap<RegionName, Shards>) {
    let Some(view) = view_of(plan, &observer.region) else { return (Vec::new(), BTreeMap::new()) };
    let client = match password {
        Ok(password) => ShardClient::new(password),
        Err(why) => return (view.shards.iter().map(|_| Known::unknown(why.clone())).collect(), BTreeMap::new()),
    };
    let own: Vec<HostPort> = view.shards.into_iter().map(|shard| shard.primary).collect();
    let shards = join_all(own.iter().map(|address| look_at(observer, &client, address))).await;
    let unsettled: Vec<bool> = shards.iter().map(|facts| !is_settled(plan, &observer.region, facts)).collect();
    let others = plan.features.exposed.iter().filter(|(region, _)| *region != &observer.region && unsettled.contains(&true));
    let copies = others.map(|(region, addresses)| look_at_copies(observer, &client, region, addresses, &unsettled));
    (shards, join_all(copies).await.into_iter().collect())
}

async fn look_at_copies(
    observer: &Observer,
    client: &ShardClient,
    region: &RegionName,
    addresses: &[HostPort],
    wanted: &[bool],
) -> (RegionName, Shards) {
    let looks = addresses.iter().zip(wanted).map(|(address, wanted)| async move {
        if *wanted { look_at(observer, client, address).await } else { Known::unknown("not looked at") }
    });
    (region.clone(), join_all(looks).await)
}

async fn look_at(observer: &Observer, client: &ShardClient, address: &HostPort) -> Known<ShardFacts> {
    match client.look(address).await {
        Ok(facts) => observer.fresh(facts),
        Err(error) => Known::unknown(error.to_string()),
    }
}

/// Whether nothing about the other copies could matter.
fn is_settled(plan: &Plan, region: &RegionName, facts: &Known<ShardFacts>) -> bool {
    let Some(facts) = facts.fresh() else { return false };
    match &facts.role {
        ShardRole::Primary => &plan.active_region == region && facts.epoch == Some(plan.epoch),
        ShardRole::Following { link, .. } => &plan.active_region != region && *link == Link::Up,
        ShardRole::Nowhere | ShardRole::Held => false,
    }
}

/// For metrics, in bounded words.
pub(super) fn role_names(shards: &[Known<ShardFacts>]) -> Vec<&'static str> {
    shards.iter().map(|facts| facts.fresh().map_or("unknown", |facts| facts.role.name())).collect()
}
