//! Two whole regions that lose each other: whatever was acknowledged anywhere is in both in the end, once (feature
//! `region-tests`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{collections::BTreeSet, time::Duration};

use domain::Epoch;
use feature_shards::{Outcome, Pair, PlannedOptions, ShardError, Unplanned, Upstream};
use operator_planner::ShardRole;
use scoring_core::{event::Event, freshness::OriginData, record::RecordId};
use support::{
    EU, PARTITIONS, Region, SHARDS, US, insist,
    mirror::{Mirror, mirrored_events},
    now_ms, operator,
    oracle::{States, assert_features, difference, folded, ids},
    refusal, region,
    traffic::{Traffic, is_young, payment, retry},
    two_regions, until, until_right,
};
use tokio::time::sleep;

/// How long both regions take payments at once, in seconds.
const SPLIT: &str = "FRAUDPIPELINE_SPLIT_SECONDS";
const SPLIT_SECONDS_DEFAULT: u64 = 10;

fn identities(events: &[Event]) -> BTreeSet<RecordId> {
    events.iter().map(|event| event.identity().into()).collect()
}

/// Identities of all records that are not summed up.
fn recorded(states: &States) -> BTreeSet<RecordId> {
    states.values().flat_map(ids).collect()
}

/// The copies in `new` become the primaries of `epoch`, without the old ones being asked.
async fn take_over(new: &Region, old: &Region, epoch: u64) {
    for shard in 0..SHARDS {
        let wanted = Unplanned {
            shard: u16::try_from(shard).unwrap(),
            new: new.addresses[shard].clone(),
            old: Some(old.lines[shard].address()),
            force: false,
        };
        insist(async || operator().promote_unplanned(&wanted, Epoch(epoch)).await).await;
    }
}

/// Payments at the end of each log: whoever has folded them has folded what is before them.
async fn last_payments(region: &Region, name: &str, epoch: u64) -> Vec<Event> {
    let mut events = Vec::new();
    for partition in 0..PARTITIONS {
        let event = payment(&format!("{name}-{partition}"), 3, region, epoch);
        assert!(region.log(&event, partition).await);
        events.push(event);
    }
    events
}

/// Until all of `regions` hold what the events say, and stay so.
async fn until_equal(what: &str, regions: &[&Region], events: &[Event]) {
    let differs = || {
        let expected = folded(events);
        regions.iter().find_map(|region| Some(format!("{}: {}", region.name, difference(&region.states(), &expected)?)))
    };
    let why = |difference: String| {
        let ready: Vec<String> = regions.iter().map(|region| region.get("/readyz")).collect();
        format!("{difference}; ready: {ready:?}")
    };
    until_right(what, || differs().map(why)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(differs(), None, "{what}, and then");
    for region in regions {
        assert_features(&region.states(), events);
    }
}

/// What is missing of a region that lost authority, as the builder here says it: milliseconds.
fn missing_ms(here: &Region, of: &str) -> Option<i64> {
    match here.published(0)?.origins.remove(&region(of))? {
        OriginData::Ended { folded_through_ms, ended_ms } => Some(ended_ms - folded_through_ms.fresh()?),
        OriginData::Producing { .. } => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn active_redis_and_the_last_mirrored_second_lost_together() {
    let (us, eu) = two_regions().await;
    let (there, back) = (Mirror::start(&us, &eu), Mirror::start(&eu, &us));
    let builders = [us.builder(), eu.builder()];
    let traffic = Traffic::start(&us, "us", 1);
    sleep(Duration::from_secs(6)).await;
    // Shard 1 will come back with what it has now, shard 0 with nothing.
    us.shard(1).ask::<()>("SAVE").unwrap();
    until("a copy of the log", async || eu.states().len() > 100 && mirrored_events(&us, &eu).await.len() > 100).await;

    // The mirrors stop, a moment later the Redis processes are cut off too; a second later these are lost, and then the region.
    there.stop().await;
    back.stop().await;
    sleep(Duration::from_millis(500)).await;
    us.cut();
    eu.cut();
    sleep(Duration::from_secs(1)).await;
    (0..SHARDS).for_each(|shard| us.shard(shard).kill());
    sleep(Duration::from_millis(300)).await;
    let mut acknowledged = traffic.stop().await;
    us.broker().kill();

    take_over(&eu, &us, 2).await;
    eu.adopt((2, EU));
    let traffic = Traffic::start(&eu, "eu", 2);
    sleep(Duration::from_secs(3)).await;
    let in_log = identities(&mirrored_events(&us, &eu).await);
    let in_redis = recorded(&eu.states());
    let young = acknowledged.iter().filter(|event| is_young(event));
    let tail: Vec<Event> = young.filter(|event| !in_log.contains(&event.identity().into())).cloned().collect();
    let (ahead, lost): (Vec<Event>, Vec<Event>) = tail.into_iter().partition(|event| in_redis.contains(&event.identity().into()));
    assert!(ahead.len() > 5 && lost.len() > 20, "{} payments are in Redis alone, {} in neither", ahead.len(), lost.len());
    assert!(missing_ms(&eu, US).is_none_or(|missing| missing > 0), "nobody is told that something is missing");
    // Their clients try again here, and get another rate.
    for event in &lost[..lost.len() / 2] {
        let again = retry(event, &eu, 2);
        assert!(eu.accept(&again).await);
        acknowledged.push(again);
    }

    // The region returns, with a builder that still believes in epoch 1.
    us.broker().restart().unwrap();
    (0..SHARDS).for_each(|shard| us.shard(shard).restart().unwrap());
    sleep(Duration::from_secs(1)).await;
    for (shard, holds_data) in [(0, false), (1, true)] {
        let facts = us.look(shard).await;
        assert_eq!((facts.role, facts.holds_data), (ShardRole::Nowhere, holds_data), "shard {shard}");
    }
    us.adopt((2, EU));
    us.mend();
    eu.mend();
    us.follow(&eu, 2).await;
    let mirrors = [Mirror::start(&us, &eu), Mirror::start(&eu, &us)];
    sleep(Duration::from_secs(2)).await;
    acknowledged.extend(traffic.stop().await);
    acknowledged.extend(last_payments(&us, "last-us", 1).await);
    acknowledged.extend(last_payments(&eu, "last-eu", 2).await);
    until_equal("after the return", &[&eu, &us], &acknowledged).await;
    until("nothing is missing", async || missing_ms(&eu, US).is_some_and(|missing| missing <= 0)).await;

    // And home again: the builder there goes on where the other one stood.
    let pair = |shard: usize| Pair {
        shard: u16::try_from(shard).unwrap(),
        old: eu.addresses[shard].clone(),
        new: us.addresses[shard].clone(),
        new_from_old: us.lines[shard].address(),
    };
    let pairs: Vec<Pair> = (0..SHARDS).map(pair).collect();
    until("promoted", async || operator().promote_planned(&pairs, Epoch(3), &PlannedOptions::default()).await.outcome == Outcome::Promoted)
        .await;
    us.adopt((3, US));
    eu.adopt((3, US));
    let traffic = Traffic::start(&us, "us-again", 3);
    sleep(Duration::from_secs(2)).await;
    acknowledged.extend(traffic.stop().await);
    acknowledged.extend(last_payments(&eu, "very-last-eu", 3).await);
    acknowledged.extend(last_payments(&us, "very-last-us", 3).await);
    until_equal("at home again", &[&us, &eu], &acknowledged).await;
    for mirror in mirrors {
        mirror.stop().await;
    }
    for builder in builders {
        builder.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_regions_took_traffic_for_a_minute_and_heal_to_equality() {
    let seconds = std::env::var(SPLIT).map_or(SPLIT_SECONDS_DEFAULT, |seconds| seconds.parse().expect("a number of seconds"));
    let (us, eu) = two_regions().await;
    let (there, back) = (Mirror::start(&us, &eu), Mirror::start(&eu, &us));
    let builders = [us.builder(), eu.builder()];
    let before = Traffic::start(&us, "before", 1);
    until("a copy of the log", async || eu.states().len() > 100 && !mirrored_events(&us, &eu).await.is_empty()).await;
    let mut acknowledged = before.stop().await;

    // The line is cut, and the other side is made active while this one goes on.
    us.cut();
    eu.cut();
    there.stop().await;
    back.stop().await;
    take_over(&eu, &us, 2).await;
    eu.adopt((2, EU));
    let traffic = [Traffic::start(&us, "us", 1), Traffic::start(&eu, "eu", 2)];
    sleep(Duration::from_secs(seconds)).await;
    let [in_us, in_eu] = traffic;
    let (in_us, in_eu) = (in_us.stop().await, in_eu.stop().await);
    let both = identities(&in_us).intersection(&identities(&in_eu)).count();
    assert!(both > 0 && in_us.len() > 100 && in_eu.len() > 100, "{} and {}, {both} in both", in_us.len(), in_eu.len());
    assert!(recorded(&us.states()).is_disjoint(&identities(&only(&in_eu, &in_us))), "they were not apart");
    acknowledged.extend(in_us);
    acknowledged.extend(in_eu);

    // The logs meet first: each builder folds the other's, in another order, into shards of its own.
    us.mend();
    eu.mend();
    let mirrors = [Mirror::start(&us, &eu), Mirror::start(&eu, &us)];
    acknowledged.extend(last_payments(&us, "last-us", 1).await);
    acknowledged.extend(last_payments(&eu, "last-eu", 2).await);
    until_equal("by the logs alone", &[&us, &eu], &acknowledged).await;
    for (side, epoch) in [(&us, 1), (&eu, 2)] {
        let facts = side.look(0).await;
        assert_eq!((facts.role, facts.epoch), (ShardRole::Primary, Some(Epoch(epoch))), "{}", side.name);
    }

    // The higher epoch wins: nobody can make it follow the lower one, and the other one follows.
    let lower = Upstream { address: us.addresses[0].clone(), from_follower: us.lines[0].address() };
    let refused = refusal(async || operator().follow(&eu.addresses[0], &lower, Epoch(1), false).await).await;
    assert!(matches!(refused, ShardError::NewerEpoch { seen: Epoch(2), ours: Epoch(1), .. }), "{refused}");
    us.adopt((2, EU));
    us.follow(&eu, 2).await;
    let traffic = Traffic::start(&eu, "after", 2);
    sleep(Duration::from_secs(1)).await;
    acknowledged.extend(traffic.stop().await);
    acknowledged.extend(last_payments(&us, "very-last-us", 2).await);
    acknowledged.extend(last_payments(&eu, "very-last-eu", 2).await);
    until_equal("one region follows the other", &[&eu, &us], &acknowledged).await;
    assert_eq!(us.look(0).await.epoch, Some(Epoch(2)));
    println!("apart for {seconds} s until {}", now_ms());
    for mirror in mirrors {
        mirror.stop().await;
    }
    for builder in builders {
        builder.stop().await;
    }
}

/// Those of `events` that are not among `others` too.
fn only(events: &[Event], others: &[Event]) -> Vec<Event> {
    let others = identities(others);
    events.iter().filter(|event| !others.contains(&event.identity().into())).cloned().collect()
}
