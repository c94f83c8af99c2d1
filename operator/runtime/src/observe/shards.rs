//! What the processes of this region's shards are and, while a shard is not what it should be, what the other regions'
//! copies are.

use std::collections::BTreeMap;

use domain::{HostPort, Known, Plan, RegionName};
use feature_shards::ShardClient;
use futures::future::join_all;
use operator_planner::{Link, ShardFacts, ShardRole};

use super::{Observer, ShardCredentials};

/// By shard, and then by process.
type Processes<T> = Vec<Vec<T>>;
type Copies = BTreeMap<RegionName, Vec<Known<ShardFacts>>>;

pub(super) async fn look(
    observer: &Observer,
    plan: &Plan,
    addresses: &Processes<HostPort>,
    credentials: Result<ShardCredentials, String>,
) -> (Processes<Known<ShardFacts>>, Copies) {
    let credentials = match credentials {
        Ok(credentials) => credentials,
        Err(why) => return (addresses.iter().map(|shard| vec![Known::unknown(why.clone()); shard.len()]).collect(), Copies::new()),
    };
    let client = &credentials.client(&observer.region);
    let shards = join_all(addresses.iter().map(|shard| join_all(look_at_all(observer, client, shard)))).await;
    let unsettled: Vec<bool> = shards.iter().map(|processes| !is_settled(plan, &observer.region, processes)).collect();
    let others = plan.features.exposed.iter().filter(|(region, _)| *region != &observer.region && unsettled.contains(&true));
    let copies = others.map(|(region, addresses)| look_at_copies(observer, credentials.client(region), region, addresses, &unsettled));
    let copies = join_all(copies).await.into_iter().collect();
    (shards, copies)
}

fn look_at_all<'a>(
    observer: &'a Observer,
    client: &'a ShardClient,
    addresses: &'a [HostPort],
) -> impl Iterator<Item = impl Future<Output = Known<ShardFacts>>> {
    addresses.iter().map(move |address| look_at_own(observer, client, address))
}

/// A pod's own address: where it refuses connections, the process has ended.
async fn look_at_own(observer: &Observer, client: &ShardClient, address: &HostPort) -> Known<ShardFacts> {
    match client.look(address).await {
        Ok(facts) => observer.fresh(facts),
        Err(error) if error.is_nobody() => observer.fresh(ShardFacts::gone()),
        Err(error) => Known::unknown(error.to_string()),
    }
}

async fn look_at_copies(
    observer: &Observer,
    client: ShardClient,
    region: &RegionName,
    addresses: &[HostPort],
    wanted: &[bool],
) -> (RegionName, Vec<Known<ShardFacts>>) {
    let client = &client;
    let looks = addresses.iter().zip(wanted).map(|(address, wanted)| async move {
        if *wanted { look_at_copy(observer, client, address).await } else { Known::unknown("not looked at") }
    });
    (region.clone(), join_all(looks).await)
}

/// Something stands in front of another region's processes, so a refusal says nothing of them.
async fn look_at_copy(observer: &Observer, client: &ShardClient, address: &HostPort) -> Known<ShardFacts> {
    match client.look(address).await {
        Ok(facts) => observer.fresh(facts),
        Err(error) => Known::unknown(error.to_string()),
    }
}

/// Whether nothing about the other regions' copies could matter: the shard has its primary, or follows the active region's.
fn is_settled(plan: &Plan, region: &RegionName, processes: &[Known<ShardFacts>]) -> bool {
    let known = || processes.iter().filter_map(Known::fresh);
    if &plan.active_region == region {
        let empty_beside_data = |facts: &ShardFacts| !facts.holds_data && known().any(|other| other.holds_data);
        return known().any(|facts| facts.role == ShardRole::Primary && facts.epoch == Some(plan.epoch) && !empty_beside_data(facts));
    }
    let exposed = plan.features.exposed.get(&plan.active_region);
    known().any(|facts| match &facts.role {
        ShardRole::Following { upstream, link: Link::Up } => exposed.is_some_and(|addresses| addresses.contains(upstream)),
        _ => false,
    })
}

/// For metrics, in bounded words.
pub(super) fn role_names(shards: &Processes<Known<ShardFacts>>) -> Vec<&'static str> {
    let name = |facts: &Known<ShardFacts>| match facts.fresh().map(|facts| &facts.role) {
        Some(ShardRole::Primary) => "primary",
        Some(ShardRole::Following { .. }) => "following",
        Some(ShardRole::Held) => "held",
        Some(ShardRole::Nowhere) => "nowhere",
        Some(ShardRole::Gone) => "gone",
        None => "unknown",
    };
    shards.iter().flatten().map(name).collect()
}
