//! What the Redis store does when shards are away, silent, read-only or full.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{
    NOW, Redis, WITHIN, config, config_of, connected, figure, free_port, in_time, key_of, measured_store, measured_store_of, nobody, part,
    payment, plan, records, store,
};
use domain::{Epoch, HostPort, OlderEpoch, RegionRole};
use scoring_core::{decide::FeatureState, event::EntityKind, record::Record, state::Retention, windows::Windows};
use scoring_features::{FeatureMetrics, FoldError, Positions, RedisConfig, RedisStore, StoreConfig, UnusablePlan};
use tokio::time::Instant;

#[tokio::test]
async fn fifty_payments_of_one_card_over_two_pods_all_count_each_other() {
    let redis = Redis::start();
    let pods = [store(1, RegionRole::Active, &[redis.address()]), store(1, RegionRole::Active, &[redis.address()])];
    for pod in &pods {
        connected(pod).await;
    }
    let events: Vec<_> = (0..50).map(|n| payment(&format!("t-{n}"), 1, NOW + n)).collect();
    let reads = futures::future::join_all(events.iter().enumerate().map(|(n, event)| pods[n % 2].record_and_read(event, in_time()))).await;
    let mut counts: Vec<usize> = reads.iter().map(|read| records(read, EntityKind::Card)).collect();
    counts.sort_unstable();
    assert!(counts.iter().enumerate().all(|(n, count)| *count > n), "{counts:?}");
    assert_eq!(counts[49], 50);
}

#[tokio::test]
async fn without_a_shard_the_answer_is_missing_at_once_and_whole_again_after_it_returns() {
    let port = free_port();
    let store = store(1, RegionRole::Active, &[HostPort { host: "127.0.0.1".into(), port }]);
    let read = store.record_and_read(&payment("t-1", 1, NOW), in_time()).await;
    assert_eq!((read.state(), read.unread.len()), (FeatureState::Missing, 5));
    let _redis = Redis::start_on(port, &[]);
    connected(&store).await;
    assert_eq!(store.record_and_read(&payment("t-2", 1, NOW), in_time()).await.state(), FeatureState::Whole);
}

#[tokio::test]
async fn one_lost_shard_of_two_leaves_the_entities_of_the_other() {
    let (alive, dead) = (Redis::start(), free_port());
    let store = store(1, RegionRole::Active, &[alive.address(), HostPort { host: "127.0.0.1".into(), port: dead }]);
    while store.disconnected() != [1] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let read = store.record_and_read(&payment("t-1", 1, NOW), in_time()).await;
    assert_eq!(read.state(), FeatureState::Incomplete);
    assert_eq!(read.unread.len() + read.states.iter().count(), 5);
    assert!(!read.unread.is_empty() && read.states.iter().count() > 0 && !read.recorded);
}

#[tokio::test]
async fn a_silent_shard_costs_no_more_than_the_deadline_and_its_connection_is_given_up() {
    let redis = Redis::start();
    let store = store(1, RegionRole::Active, &[redis.address()]);
    connected(&store).await;
    redis.stop_answering();
    let mut given_up = false;
    for n in 0..200 {
        let started = Instant::now();
        let event = payment(&format!("t-{n}"), 1, NOW);
        let read = store.record_and_read(&event, Instant::now() + Duration::from_millis(20)).await;
        assert_eq!(read.state(), FeatureState::Missing);
        assert!(started.elapsed() < Duration::from_secs(5), "the deadline of 20 ms was not kept at all");
        given_up |= !store.disconnected().is_empty();
        if given_up {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(given_up);
    redis.answer_again();
    connected(&store).await;
    assert_eq!(store.record_and_read(&payment("t-after", 1, NOW), in_time()).await.state(), FeatureState::Whole);
}

#[tokio::test]
async fn a_standby_region_reads_its_replica_and_writes_nothing() {
    let (primary, replica) = (Redis::start(), Redis::start());
    let active = store(1, RegionRole::Active, &[primary.address()]);
    connected(&active).await;
    active.record_and_read(&payment("t-1", 1, NOW), in_time()).await;
    replica.replicate(&primary);
    let standby = store(1, RegionRole::Standby, &[replica.address()]);
    connected(&standby).await;
    let read = standby.record_and_read(&payment("t-2", 1, NOW + 1), in_time()).await;
    assert_eq!((read.state(), read.recorded), (FeatureState::Incomplete, false));
    assert_eq!(records(&read, EntityKind::Card), 1);
    assert!(matches!(
        standby.fold(&part(0, 0, &[payment("t-2", 1, NOW)]), &nobody(), NOW, WITHIN).await,
        Err(FoldError::NotWritable(Epoch(1)))
    ));
}

#[tokio::test]
async fn a_shard_that_became_read_only_or_full_still_answers_the_read_and_takes_no_fold() {
    let redis = Redis::start();
    let (store, registry) = measured_store(&plan(1, RegionRole::Active, &[redis.address()]));
    connected(&store).await;
    store.fold(&part(0, 0, &[payment("t-1", 1, NOW)]), &nobody(), NOW, WITHIN).await.unwrap();
    redis.ask::<()>("REPLICAOF 127.0.0.1 1");
    let read = store.record_and_read(&payment("t-2", 1, NOW), in_time()).await;
    assert_eq!((read.recorded, read.unread.len(), records(&read, EntityKind::Card)), (false, 0, 1));
    let batch = part(0, 1, &[payment("t-2", 1, NOW)]);
    let refused = store.fold(&batch, &nobody(), NOW, WITHIN).await.unwrap_err().to_string();
    assert!(refused.contains("shard 0") && refused.contains("READONLY") && refused.len() < 400, "{refused}");

    redis.ask::<()>("REPLICAOF NO ONE");
    redis.ask::<()>("CONFIG SET maxmemory 1");
    let before = redis.ask_bytes::<Vec<u8>>(&[b"GET", &key_of(&payment("t-1", 1, NOW), EntityKind::Card)]);
    let read = store.record_and_read(&payment("t-2", 1, NOW), in_time()).await;
    assert_eq!((read.state(), read.recorded, read.unread.len()), (FeatureState::Incomplete, false, 0));
    let refused = store.fold(&batch, &nobody(), NOW, WITHIN).await.unwrap_err();
    assert!(matches!(refused, FoldError::Full { shard: 0 }) && refused.to_string().contains("maxmemory"), "{refused}");
    assert_eq!(redis.ask_bytes::<Vec<u8>>(&[b"GET", &key_of(&payment("t-1", 1, NOW), EntityKind::Card)]), before);
    assert_eq!(store.positions(WITHIN).await.unwrap(), common::position(0, 1));

    redis.ask::<()>("CONFIG SET maxmemory 0");
    store.fold(&batch, &nobody(), NOW, WITHIN).await.unwrap();
    assert_eq!(store.positions(WITHIN).await.unwrap(), common::position(0, 2));
    for cause in ["read_only", "out_of_memory"] {
        assert_eq!(figure(&registry, &format!("failures_total{{shard=\"0\",cause=\"{cause}\"}}")), 5.0, "{cause}");
    }
}

#[tokio::test]
async fn an_entity_under_attack_takes_bounded_memory() {
    let redis = Redis::start();
    let windows = Windows::new(Windows::default().lengths().to_vec(), Duration::ZERO, 10).unwrap();
    let config = config_of(windows, Retention::default());
    let store = RedisStore::start(config, FeatureMetrics::default(), &plan(1, RegionRole::Active, &[redis.address()])).unwrap();
    connected(&store).await;
    let attack: Vec<_> = (0..100).map(|n| payment(&format!("t-{n}"), 1, NOW + n)).collect();
    store.fold(&part(0, 0, &attack), &nobody(), NOW, WITHIN).await.unwrap();
    // Ten events, the mark that there were more, and no profile.
    assert_eq!(redis.ask_bytes::<u64>(&[b"STRLEN", &key_of(&attack[0], EntityKind::Ip)]), 11 * 32);
    let read = store.record_and_read(&payment("t-x", 1, NOW + 200), in_time()).await;
    assert_eq!((read.saturated().count(), records(&read, EntityKind::Card)), (5, 10));
}

#[tokio::test]
async fn a_value_that_nobody_shortens_is_not_made_longer_for_a_second() {
    let redis = Redis::start();
    let windows = Windows::new(Windows::default().lengths().to_vec(), Duration::ZERO, 4).unwrap();
    let config = config_of(windows, Retention::default());
    let store = RedisStore::start(config, FeatureMetrics::default(), &plan(1, RegionRole::Active, &[redis.address()])).unwrap();
    connected(&store).await;
    let event = payment("t-0", 1, NOW);
    let key = key_of(&event, EntityKind::Card);
    let slots: Vec<u8> = (0..17).flat_map(|n| Record::of(&payment(&format!("t-{n}"), 1, NOW + n)).slot()).collect();
    redis.ask_bytes::<()>(&[b"SET", &key, &slots]);
    let length = || redis.ask_bytes::<u64>(&[b"STRLEN", &key]) / 32;
    store.record_and_read(&event, in_time()).await;
    let met = Instant::now();
    assert_eq!(length(), 18);
    let read = store.record_and_read(&payment("t-18", 1, NOW), in_time()).await;
    if met.elapsed() < Duration::from_millis(900) {
        assert_eq!(length(), 18);
    }
    assert!(read.saturated().any(|kind| kind == EntityKind::Card) && read.unread.is_empty());
    assert_eq!(records(&read, EntityKind::User), 2);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    store.record_and_read(&payment("t-19", 1, NOW), in_time()).await;
    assert_eq!(length(), 19);
}

#[tokio::test]
async fn slots_of_a_newer_version_are_counted_and_kept_and_take_nothing_with_them() {
    let redis = Redis::start();
    let (store, registry) = measured_store(&plan(1, RegionRole::Active, &[redis.address()]));
    connected(&store).await;
    let event = payment("t-1", 1, NOW);
    let key = key_of(&event, EntityKind::Card);
    let newer = [0x7f_u8; 32];
    redis.ask_bytes::<()>(&[b"APPEND", &key, &newer]);
    let read = store.record_and_read(&event, in_time()).await;
    assert_eq!((records(&read, EntityKind::Card), read.state()), (1, FeatureState::Whole));
    assert_eq!(figure(&registry, "unreadable_slots_total"), 1.0);
    let folded = store.fold(&part(0, 0, &[payment("t-2", 1, NOW), event]), &nobody(), NOW, WITHIN).await.unwrap();
    assert_eq!(folded.counts.unreadable, 1);
    let value = redis.ask_bytes::<Vec<u8>>(&[b"GET", &key]);
    assert_eq!((value.len(), value.chunks(32).filter(|slot| *slot == newer).count()), (3 * 32, 1));
}

#[tokio::test]
async fn a_plan_older_than_the_one_in_force_is_refused() {
    let redis = Redis::start();
    let store = store(4, RegionRole::Active, &[redis.address()]);
    connected(&store).await;
    let older = OlderEpoch { given: Epoch(3), highest: Epoch(4) };
    assert_eq!(store.follow(&plan(3, RegionRole::Standby, &[redis.address()])), Err(UnusablePlan::Older(older)));
    assert_eq!(store.epoch(), Epoch(4));
}

#[tokio::test]
async fn a_plan_moves_traffic_to_other_addresses_and_roles_at_once() {
    let (first, second) = (Redis::start(), Redis::start());
    let store = store(1, RegionRole::Active, &[first.address()]);
    connected(&store).await;
    store.record_and_read(&payment("t-1", 1, NOW), in_time()).await;
    store.follow(&plan(2, RegionRole::Active, &[second.address()])).unwrap();
    connected(&store).await;
    store.record_and_read(&payment("t-2", 1, NOW), in_time()).await;
    assert_eq!((first.ask::<u64>("DBSIZE"), second.ask::<u64>("DBSIZE")), (5, 5));
    let mut unaddressed = plan(3, RegionRole::Active, &[first.address(), second.address()]);
    unaddressed.shards.pop();
    assert_eq!(store.follow(&unaddressed), Err(UnusablePlan::NoAddress { epoch: Epoch(3), shard: 1 }));
    assert_eq!(store.epoch(), Epoch(2));
    assert_eq!(store.positions(WITHIN).await.unwrap(), Positions::new());
}

#[tokio::test]
async fn a_wrong_password_is_told_apart_and_a_rotated_one_is_used_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let redis = Redis::start_on(free_port(), &["--user", "decision", "on", ">s3cret", "~*", "+@all"]);
    let redis_config = RedisConfig { user: Some("decision".into()), password_file: Some(file.clone()), ..config().redis };
    let plan = plan(1, RegionRole::Active, &[redis.address()]);
    let (store, registry) = measured_store_of(StoreConfig { redis: redis_config, ..config() }, &plan);
    let refusals = || figure(&registry, "connection_failures_total{shard=\"0\",cause=\"authentication\"}");
    let limit = Instant::now() + Duration::from_secs(20);
    while refusals() < 2.0 {
        assert!(Instant::now() < limit, "the refusals are not counted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.disconnected(), [0]);
    std::fs::write(&file, "s3cret\n").unwrap();
    connected(&store).await;
    assert_eq!(store.record_and_read(&payment("t-1", 1, NOW), in_time()).await.state(), FeatureState::Whole);
}
