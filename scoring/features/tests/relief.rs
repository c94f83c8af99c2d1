//! What helps while a shard is slow or silent: its breaker, its replica, and the profiles that a process remembers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{NOW, Redis, connected, figure, in_time, measured_store, payment, plan, plan_with_replicas, records, store_of};
use domain::RegionRole;
use scoring_core::{decide::FeatureState, event::EntityKind};
use scoring_features::{FeatureRead, RedisStore};
use tokio::time::Instant;

/// Asks under a deadline as decisions do.
async fn ask(store: &RedisStore, n: i64, who: u8) -> FeatureRead {
    store.record_and_read(&payment(&format!("t-{n}"), who, NOW + n), Instant::now() + Duration::from_millis(30)).await
}

async fn replicas_connected() {
    // There is no need to know of replicas from outside; they connect as the others do.
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test]
async fn while_a_shard_is_silent_its_replica_answers_and_the_others_go_on() {
    let shards = [Redis::start(), Redis::start()];
    let replicas = [Redis::start(), Redis::start()];
    replicas.iter().zip(&shards).for_each(|(replica, shard)| replica.replicate(shard));
    let plan = plan_with_replicas(1, &[(shards[0].address(), replicas[0].address()), (shards[1].address(), replicas[1].address())]);
    let (store, registry) = measured_store(&plan);
    connected(&store).await;
    replicas_connected().await;
    // Long enough for a threshold to mean something. Customers 0 to 3 have entities in both shards.
    for n in 0..300 {
        assert_eq!(
            store.record_and_read(&payment(&format!("t-{n}"), u8::try_from(n % 4).unwrap(), NOW + n), in_time()).await.state(),
            FeatureState::Whole
        );
    }
    let breaker = |shard: u16| figure(&registry, &format!("breaker_state{{shard=\"{shard}\"}}"));
    let relief = |shard: u16, which: &str| figure(&registry, &format!("reliefs_total{{shard=\"{shard}\",cause=\"{which}\"}}"));
    shards[0].ask::<()>("WAIT 1 5000");
    shards[0].stop_answering();
    let mut requests = 0;
    while breaker(0) < 2.0 {
        requests += 1;
        assert!(requests < 200, "the breaker stays closed");
        let read = ask(&store, 300 + requests, 0).await;
        assert!(read.states.iter().count() > 0 && !read.recorded);
    }
    // Now nobody waits for it: everything is read, from the replica what it would have told.
    for n in 0..50 {
        let read = ask(&store, 1_000 + n, 1).await;
        if breaker(0) == 2.0 && read.unread.is_empty() {
            assert_eq!((read.state(), read.recorded), (FeatureState::Incomplete, false));
            assert!(EntityKind::ALL.iter().all(|kind| records(&read, *kind) >= 75));
        }
    }
    assert!(relief(0, "stand_in") >= 30.0);
    assert_eq!((breaker(1), relief(1, "stand_in")), (0.0, 0.0));
    for shard in [0, 1] {
        let asked = figure(&registry, &format!("round_trip_seconds_count{{shard=\"{shard}\",operation=\"record_and_read\"}}"));
        assert!(
            relief(shard, "hedged") <= 0.02 * (asked + relief(shard, "hedge_won")),
            "shard {shard}: {} of {asked}",
            relief(shard, "hedged")
        );
    }

    shards[0].answer_again();
    let limit = Instant::now() + Duration::from_secs(20);
    while store.record_and_read(&payment("t-after", 2, NOW), in_time()).await.state() != FeatureState::Whole {
        assert!(Instant::now() < limit, "the shard is not asked again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_late_answer_is_taken_from_the_replica_and_the_event_counts_as_not_recorded() {
    let (shard, replica) = (Redis::start(), Redis::start());
    replica.replicate(&shard);
    let (store, registry) = measured_store(&plan_with_replicas(1, &[(shard.address(), replica.address())]));
    connected(&store).await;
    replicas_connected().await;
    for n in 0..300 {
        store.record_and_read(&payment(&format!("t-{n}"), 1, NOW + n), in_time()).await;
    }
    shard.ask::<()>("WAIT 1 5000");
    shard.stop_answering();
    let read = store.record_and_read(&payment("t-late", 1, NOW + 300), in_time()).await;
    assert_eq!((read.state(), read.recorded, read.unread.len()), (FeatureState::Incomplete, false, 0));
    assert_eq!(records(&read, EntityKind::Card), 300);
    assert_eq!(figure(&registry, "reliefs_total{shard=\"0\",cause=\"hedge_won\"}"), 1.0);
    shard.answer_again();
}

#[tokio::test]
async fn of_a_user_who_comes_often_the_profile_is_remembered_and_never_a_window() {
    let redis = Redis::start();
    let plan = plan(1, RegionRole::Active, &[redis.address()]);
    let (store, registry) = measured_store(&plan);
    connected(&store).await;
    for n in 0..5 {
        ask(&store, n, 1).await;
    }
    ask(&store, 5, 2).await;
    redis.stop_answering();
    let (known, unknown) = (ask(&store, 6, 1).await, ask(&store, 7, 2).await);
    assert_eq!((known.state(), unknown.state()), (FeatureState::Cached, FeatureState::Missing));
    let user = known.states.get(EntityKind::User).unwrap();
    assert!(user.is_lasting_only() && user.records().len() == 0 && !user.profile().devices().is_empty());
    assert!(known.cached.is_some_and(|age| age < Duration::from_secs(60)));
    assert_eq!((known.states.iter().count(), known.unread.len(), known.recorded), (1, 5, false));
    assert_eq!(figure(&registry, "reliefs_total{shard=\"0\",cause=\"cached\"}"), 1.0);
    redis.answer_again();
}

#[tokio::test]
async fn a_process_that_starts_knows_the_users_who_come_often_from_the_list_of_another() {
    let redis = Redis::start();
    let plan = plan(1, RegionRole::Active, &[redis.address()]);
    let (one, other) = (store_of(&plan), store_of(&plan));
    connected(&one).await;
    connected(&other).await;
    for n in 0..5 {
        one.record_and_read(&payment(&format!("t-{n}"), 1, NOW + n), in_time()).await;
    }
    one.write_hot_list_once().await;
    assert_eq!(redis.ask::<u64>("STRLEN fp:hot"), 16);
    assert!(redis.ask::<i64>("TTL fp:hot") > 3_600);
    other.read_hot_list(Duration::from_secs(5)).await;
    redis.stop_answering();
    assert_eq!(ask(&other, 9, 1).await.state(), FeatureState::Cached);
    redis.answer_again();
}
