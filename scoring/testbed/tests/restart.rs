//! Redis holds its data in memory: a process that restarts is empty. Nothing is overwritten by that, and nobody takes the
//! emptiness for what is known of a customer (feature `region-tests`).
//!
//! The operator's part is played by its own planner, with real processes to look at and to change; what it does not plan,
//! which is promoting a copy of the same region, is done by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{Epoch, HostPort, Known, ModelRef, PipelineName, Plan, RegionName};
use feature_shards::{Change, ShardClient, ShardError, Unplanned, Upstream};
use operator_planner::{
    Action, Link, Observation, PlanInput, RegionFacts, RegionKind, ShardFacts, ShardRole, SpecFacts, TopicsState, actions,
    plan as make_plan, view_of,
};
use redis_testbed::Server;
use scoring_core::event::Event;
use support::{
    EU, PARTITIONS, Region, SHARDS, US, insist, operator,
    oracle::{States, assert_features, difference, folded, states_of},
    refusal, region,
    traffic::{Traffic, payment},
    until, until_right,
};
use tokio::time::sleep;

/// How long a process is empty before anybody does something about it.
const EMPTY_FOR: Duration = Duration::from_secs(3);

/// us-east with everything, copies of its shards in eu-west, and one more copy of shard 0 in us-east.
struct World {
    us: Arc<Region>,
    eu: Vec<Server>,
    near: Server,
    plan: Plan,
}

impl World {
    async fn start() -> Self {
        let us = Region::start(US, (1, US)).await;
        let eu: Vec<Server> = (0..SHARDS).map(|_| Server::start("").unwrap()).collect();
        let near = Server::start("").unwrap();
        let eu_addresses: Vec<HostPort> = eu.iter().map(Server::address).collect();
        let plan = first_plan([&us.addresses, &eu_addresses]);
        let mut world = Self { us, eu, near, plan };
        world.settle().await;
        world.plan.features.seeded_shards = [0, 1].into();
        world.follow(&world.near.address(), &world.us.addresses[0]).await;
        world
    }

    async fn follow(&self, address: &HostPort, upstream: &HostPort) {
        let upstream = Upstream { address: upstream.clone(), from_follower: upstream.clone() };
        insist(async || operator().follow(address, &upstream, Epoch(1), false).await).await;
    }

    fn addresses(&self, name: &RegionName) -> Vec<HostPort> {
        if name.as_str() == US { self.us.addresses.clone() } else { self.eu.iter().map(Server::address).collect() }
    }

    /// What one pass of a region's operator would do about the shards.
    async fn allowed(&self, name: &RegionName) -> (Vec<Action>, bool) {
        let other = region(if name.as_str() == US { EU } else { US });
        let seen = Observation {
            view: Known::Fresh { value: view_of(&self.plan, name), seen_at_ms: 0 },
            topics: Known::Fresh { value: TopicsState::Ready, seen_at_ms: 0 },
            shards: look(&self.addresses(name)).await,
            copies: BTreeMap::from([(other.clone(), look(&self.addresses(&other)).await)]),
            components: BTreeMap::new(),
        };
        let allowed = actions(&self.plan, name, &seen);
        (allowed.actions, allowed.blocked.is_empty())
    }

    /// Both operators pass after pass until nothing is left to do: what they did, in order.
    async fn settle(&self) -> Vec<(&'static str, &'static str)> {
        let mut done = Vec::new();
        until("settled", async || {
            let mut settled = true;
            for name in [US, EU] {
                let (actions, nothing_waits) = self.allowed(&region(name)).await;
                settled &= actions.is_empty() && nothing_waits;
                for action in actions {
                    self.act(&region(name), &action).await;
                    done.push((name, action.name()));
                }
            }
            settled
        })
        .await;
        done
    }

    async fn act(&self, name: &RegionName, action: &Action) {
        let (shard, change, epoch) = match action {
            Action::MakePrimary { shard, epoch } => (shard, Change::Primary, epoch),
            Action::FollowRemote { shard, upstream, epoch } => (shard, Change::Follow(upstream.clone()), epoch),
            Action::HoldCopy { shard, epoch } => (shard, Change::Hold, epoch),
            Action::EnsurePlanView(_) | Action::EnsureTopics => panic!("{} is not about shards", action.name()),
        };
        insist(async || operator().change(&self.addresses(name)[usize::from(*shard)], &change, *epoch).await).await;
    }

    /// The copies of shard 0 outside it: they stay as they are while it is empty.
    fn copies(&self) -> [States; 2] {
        [states_of(&self.eu[0]), states_of(&self.near)]
    }

    /// The primary of shard 0 restarts, and for a while nobody does anything.
    async fn lose_the_primary(&self, known: &Event) {
        until("copies", async || self.copies().iter().all(|copy| copy.len() > 50)).await;
        self.us.shard(0).kill();
        let before = self.copies();
        self.us.shard(0).restart().unwrap();
        let end = tokio::time::Instant::now() + EMPTY_FOR;
        while tokio::time::Instant::now() < end {
            let facts = self.us.look(0).await;
            assert_eq!((facts.role, facts.holds_data), (ShardRole::Nowhere, false));
            self.us.shard(0).ask::<()>("SET {x} 1").unwrap_err();
            assert!(self.copies() == before, "a copy changed while its primary was empty");
            self.nobody_is_unknown(known).await;
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// A customer whom the empty process does not know is missing, and no stranger.
    async fn nobody_is_unknown(&self, known: &Event) {
        let read = self.us.decide(known).await;
        assert!(!read.recorded && !read.unread.is_empty());
        for (kind, state) in read.states.iter() {
            let entity = (kind, known.entities.get(kind).unwrap());
            // Of a user who comes often the profile is remembered, and no window.
            assert!(state.is_lasting_only() || state.records().len() > 0, "{entity:?} is taken for new");
        }
    }

    /// What refuses to make the emptiness the truth.
    async fn nothing_can_be_made_of_the_emptiness(&self) {
        let empty = Upstream { address: self.us.addresses[0].clone(), from_follower: self.us.addresses[0].clone() };
        for copy in [self.near.address(), self.eu[0].address()] {
            let refused = refusal(async || operator().follow(&copy, &empty, Epoch(1), false).await).await;
            assert!(matches!(refused, ShardError::EmptyUpstream { .. }), "{refused}");
        }
        let promote = Unplanned { shard: 0, new: self.us.addresses[0].clone(), old: None, force: false };
        let refused = refusal(async || operator().promote_unplanned(&promote, Epoch(1)).await).await;
        assert!(refused.to_string().contains("it holds no data"), "{refused}");
        let (planned, _) = self.allowed(&region(US)).await;
        assert!(!planned.iter().any(|action| matches!(action, Action::MakePrimary { .. })), "{planned:?}");
    }
}

async fn look(addresses: &[HostPort]) -> Vec<Known<ShardFacts>> {
    let client: ShardClient = operator();
    let mut seen = Vec::new();
    for address in addresses {
        seen.push(match client.look(address).await {
            Ok(value) => Known::Fresh { value, seen_at_ms: 0 },
            Err(error) => Known::unknown(error.to_string()),
        });
    }
    seen
}

fn first_plan(exposed: [&[HostPort]; 2]) -> Plan {
    let facts = |(name, exposed, preference): (&str, &[HostPort], u32)| RegionFacts {
        name: region(name),
        kind: RegionKind::DataPlane,
        preference: Some(preference),
        exposed: exposed.to_vec(),
        ingress: vec![format!("203.0.113.{preference}")],
    };
    let spec = SpecFacts {
        pipeline: PipelineName::new("payments").unwrap(),
        namespace: "fraud".into(),
        regions: vec![facts((US, exposed[0], 1)), facts((EU, exposed[1], 2))],
        shards: u16::try_from(SHARDS).unwrap(),
        model: ModelRef { uri: "s3://models/full.onnx".into(), sha256: "ab".into() },
        light_model: None,
        version: None,
        effective: serde_json::json!({"features": {"shards": SHARDS}}),
    };
    let seen = Observation::nothing("test");
    let input = PlanInput { region: &region(US), spec: &spec, current: None, seen: &seen, newest_version: "0.1.0" };
    make_plan(&input).plan.unwrap()
}

/// Until each holds what the events say: all of it, or of shard 0 alone.
async fn until_equal(us: &dyn Fn() -> States, copies: &dyn Fn() -> [States; 2], events: &[Event]) {
    until_right("equal to the oracle", || difference(&us(), &folded(events))).await;
    until_right("copies are equal", || {
        let whole = us();
        copies().iter().find_map(|copy| difference(copy, &shard_0_of(&whole, copy)))
    })
    .await;
    assert_features(&us(), events);
}

/// Those that a copy of the shard must have too.
fn shard_0_of(whole: &States, copy: &States) -> States {
    let slots = domain::SlotMap::even(u16::try_from(SHARDS).unwrap()).unwrap();
    let here = |entity: &(_, _)| slots.shard_of(domain::slot_of(&scoring_core::key::entity_key(entity.0, entity.1))) == 0;
    assert!(copy.keys().all(here));
    whole.iter().filter(|(entity, _)| here(entity)).map(|(entity, state)| (*entity, state.clone())).collect()
}

async fn last_payments(region: &Region) -> Vec<Event> {
    let mut events = Vec::new();
    for partition in 0..PARTITIONS {
        let event = payment(&format!("last-{partition}"), 3, region, 1);
        assert!(region.log(&event, partition).await);
        events.push(event);
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_empty_redis_overwrites_nothing() {
    let world = World::start().await;
    let builder = world.us.builder();
    let known = payment("known", 0, &world.us, 1);
    assert!(world.us.accept(&known).await);
    let traffic = Traffic::start(&world.us, "us", 1);
    sleep(Duration::from_secs(3)).await;
    world.lose_the_primary(&known).await;
    world.nothing_can_be_made_of_the_emptiness().await;

    let done = world.settle().await;
    assert_eq!(done, [(EU, "HoldCopy"), (US, "FollowRemote"), (US, "MakePrimary"), (EU, "FollowRemote")]);
    sleep(Duration::from_secs(1)).await;
    let mut acknowledged = traffic.stop().await;
    acknowledged.push(known);
    acknowledged.extend(last_payments(&world.us).await);
    until_equal(&|| world.us.states(), &|| world.copies(), &acknowledged).await;
    builder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_copy_beside_a_primary_that_restarted_empty_takes_over_and_nothing_is_missing() {
    let world = World::start().await;
    let builder = world.us.builder();
    let known = payment("known", 0, &world.us, 1);
    assert!(world.us.accept(&known).await);
    let traffic = Traffic::start(&world.us, "us", 1);
    sleep(Duration::from_secs(3)).await;
    world.lose_the_primary(&known).await;

    let (empty, near) = (world.us.addresses[0].clone(), world.near.address());
    let promote = Unplanned { shard: 0, new: near.clone(), old: Some(empty.clone()), force: false };
    insist(async || operator().promote_unplanned(&promote, Epoch(1)).await).await;
    world.us.adopt_with((1, US), 2, &[near.clone(), world.us.addresses[1].clone()]);
    world.follow(&empty, &near).await;
    world.follow(&world.eu[0].address(), &near).await;
    let up = ShardRole::Following { upstream: near.clone(), link: Link::Up };
    until("a copy", async || world.us.look(0).await.role == up).await;
    sleep(Duration::from_secs(1)).await;
    let mut acknowledged = traffic.stop().await;
    acknowledged.push(known);
    acknowledged.extend(last_payments(&world.us).await);
    let us = || world.us.states();
    until_equal(&us, &|| world.copies(), &acknowledged).await;
    builder.stop().await;
}
