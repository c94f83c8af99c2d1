//! What the Redis store does when shards are away, silent, read-only or full, and how folding stays safe.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use common::{Redis, config, free_port, payment, plan};
use domain::{Epoch, HostPort, OlderEpoch, RegionRole};
use prometheus_client::registry::Registry;
use scoring_core::{decide::FeatureState, event::EntityKind, windows::Windows};
use scoring_features::{FeatureMetrics, FoldError, LogPartition, Positions, RedisConfig, RedisStore, UnusablePlan};
use tokio::time::Instant;

const NOW: i64 = 1_700_000_000_000;
const WITHIN: Duration = Duration::from_secs(5);

fn store(epoch: u64, role: RegionRole, addresses: &[HostPort]) -> RedisStore {
    RedisStore::start(config(), Windows::default(), FeatureMetrics::default(), &plan(epoch, role, addresses)).unwrap()
}

async fn connected(store: &RedisStore) {
    let limit = Instant::now() + Duration::from_secs(20);
    while !store.disconnected().is_empty() {
        assert!(Instant::now() < limit, "shards {:?} stay disconnected", store.disconnected());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn in_time() -> Instant {
    Instant::now() + WITHIN
}

fn position(partition: i32, next: i64) -> Positions {
    [(LogPartition { cluster_id: "c".into(), topic: "fraud.events.raw".into(), partition }, next)].into_iter().collect()
}

fn cards(event: &scoring_core::event::Event) -> BTreeSet<(EntityKind, scoring_core::event::EntityId)> {
    event.entities.iter().filter(|(kind, _)| *kind == EntityKind::Card).collect()
}

#[tokio::test]
async fn fifty_payments_of_one_card_over_two_pods_all_count_each_other() {
    let redis = Redis::start();
    let pods = [store(1, RegionRole::Active, &[redis.address()]), store(1, RegionRole::Active, &[redis.address()])];
    for pod in &pods {
        connected(pod).await;
    }
    let events: Vec<_> = (0..50).map(|n| payment(&format!("t-{n}"), 1, NOW + n)).collect();
    let reads = futures::future::join_all(events.iter().enumerate().map(|(n, event)| pods[n % 2].record_and_read(event, in_time()))).await;
    let mut counts: Vec<usize> = reads.iter().map(|read| read.sets.get(EntityKind::Card).unwrap().records().len()).collect();
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
    assert_eq!(read.unread.len() + read.sets.iter().count(), 5);
    assert!(!read.unread.is_empty() && read.sets.iter().count() > 0 && !read.recorded);
}

#[tokio::test]
async fn a_silent_shard_costs_no_more_than_the_deadline_and_its_connection_is_given_up() {
    let redis = Redis::start();
    let store = store(1, RegionRole::Active, &[redis.address()]);
    connected(&store).await;
    redis.stop_answering();
    let mut given_up = false;
    for n in 0..100 {
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
    replica.ask::<()>(&format!("REPLICAOF 127.0.0.1 {}", primary.port));
    while replica.ask::<u64>("DBSIZE") < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let standby = store(1, RegionRole::Standby, &[replica.address()]);
    connected(&standby).await;
    let read = standby.record_and_read(&payment("t-2", 1, NOW + 1), in_time()).await;
    assert_eq!((read.state(), read.recorded), (FeatureState::Incomplete, false));
    assert_eq!(read.sets.get(EntityKind::Card).unwrap().records().len(), 1);
    assert!(matches!(
        standby.fold(&[payment("t-2", 1, NOW)], &position(0, 1), &BTreeSet::new(), NOW, WITHIN).await,
        Err(FoldError::NotWritable(Epoch(1)))
    ));
}

#[tokio::test]
async fn a_shard_that_became_read_only_or_full_still_answers_the_read() {
    let redis = Redis::start();
    let mut registry = Registry::default();
    let metrics = FeatureMetrics::register(&mut registry);
    let store = RedisStore::start(config(), Windows::default(), metrics, &plan(1, RegionRole::Active, &[redis.address()])).unwrap();
    connected(&store).await;
    store.record_and_read(&payment("t-1", 1, NOW), in_time()).await;
    redis.ask::<()>("REPLICAOF 127.0.0.1 1");
    let read = store.record_and_read(&payment("t-2", 1, NOW), in_time()).await;
    assert_eq!((read.recorded, read.unread.len(), read.sets.get(EntityKind::Card).unwrap().records().len()), (false, 0, 1));
    let refused = store.fold(&[payment("t-2", 1, NOW)], &position(0, 1), &BTreeSet::new(), NOW, WITHIN).await.unwrap_err().to_string();
    assert!(refused.contains("shard 0") && refused.contains("read only replica") && refused.len() < 400, "{refused}");

    redis.ask::<()>("REPLICAOF NO ONE");
    redis.ask::<()>("CONFIG SET maxmemory 1");
    let read = store.record_and_read(&payment("t-2", 1, NOW), in_time()).await;
    assert_eq!((read.recorded, read.unread.len()), (false, 0));
    let refused = store.fold(&[payment("t-2", 1, NOW)], &position(0, 1), &BTreeSet::new(), NOW, WITHIN).await.unwrap_err().to_string();
    assert!(refused.contains("maxmemory"), "{refused}");
    redis.ask::<()>("CONFIG SET maxmemory 0");
    assert_eq!(store.positions(WITHIN).await.unwrap(), Positions::new());

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for cause in ["read_only", "out_of_memory"] {
        assert!(text.contains(&format!("feature_store_failures_total{{shard=\"0\",cause=\"{cause}\"}} 5")), "{text}");
    }
}

#[tokio::test]
async fn folding_what_the_decision_path_recorded_changes_nothing_and_moves_every_shards_vector() {
    let shards = [Redis::start(), Redis::start()];
    let store = store(1, RegionRole::Active, &[shards[0].address(), shards[1].address()]);
    connected(&store).await;
    let events = [payment("t-1", 1, NOW), payment("t-2", 1, NOW + 5)];
    let before = store.record_and_read(&events[0], in_time()).await;
    let sizes = || shards.each_ref().map(|shard| shard.ask::<u64>("DBSIZE"));
    let folded = store.fold(&events[..1], &position(0, 1), &cards(&events[0]), NOW, WITHIN).await.unwrap();
    assert_eq!(folded.sets.values().next(), before.sets.get(EntityKind::Card));
    let keys = sizes();
    // Twice, and together with a new one: the set holds two.
    let folded = store.fold(&events, &position(0, 2), &cards(&events[0]), NOW, WITHIN).await.unwrap();
    assert_eq!(folded.sets.values().next().unwrap().records().len(), 2);
    assert_eq!(sizes(), keys);
    assert_eq!(store.positions(WITHIN).await.unwrap(), position(0, 2));
    for shard in &shards {
        assert_eq!(shard.ask::<Vec<String>>("HGETALL fp:vector"), ["c/fraud.events.raw/0", "2"]);
    }
}

#[tokio::test]
async fn a_shard_that_knows_less_holds_all_back() {
    let shards = [Redis::start(), Redis::start()];
    let store = store(1, RegionRole::Active, &[shards[0].address(), shards[1].address()]);
    connected(&store).await;
    let both: Positions = position(0, 9).into_iter().chain(position(1, 4)).collect();
    store.fold(&[], &both, &BTreeSet::new(), NOW, WITHIN).await.unwrap();
    shards[1].ask::<()>("HSET fp:vector c/fraud.events.raw/0 3");
    shards[1].ask::<()>("HDEL fp:vector c/fraud.events.raw/1");
    assert_eq!(store.positions(WITHIN).await.unwrap(), position(0, 3));
    shards[1].ask::<()>("HSET fp:vector nonsense 3");
    assert!(store.positions(WITHIN).await.unwrap_err().to_string().contains("nonsense"));
}

#[tokio::test]
async fn events_older_than_every_window_are_counted_and_old_members_trimmed() {
    let redis = Redis::start();
    let store = store(1, RegionRole::Active, &[redis.address()]);
    connected(&store).await;
    let day = 86_400_000;
    let (old, new) = (payment("t-old", 1, NOW - day), payment("t-new", 1, NOW));
    store.fold(&[payment("t-early", 1, NOW - day + 1)], &position(0, 1), &BTreeSet::new(), NOW, WITHIN).await.unwrap();
    let folded = store.fold(&[old, new.clone()], &position(0, 3), &cards(&new), NOW, WITHIN).await.unwrap();
    assert_eq!((folded.expired, folded.sets.values().next().unwrap().records().len()), (1, 2));
    let later = payment("t-later", 1, NOW + 1_000);
    store.fold(&[later], &position(0, 4), &BTreeSet::new(), NOW + 1_000, WITHIN).await.unwrap();
    let key = redis.ask::<Vec<String>>("KEYS e:{card:*").remove(0);
    assert_eq!(redis.ask::<u64>(&format!("ZCARD {key}")), 2);
    assert!(redis.ask::<i64>(&format!("PTTL {key}")) > day);
}

#[tokio::test]
async fn an_entity_under_attack_takes_bounded_memory() {
    let redis = Redis::start();
    let windows = Windows::new(Windows::default().lengths().to_vec(), Duration::ZERO, 10).unwrap();
    let store = RedisStore::start(config(), windows, FeatureMetrics::default(), &plan(1, RegionRole::Active, &[redis.address()])).unwrap();
    connected(&store).await;
    let attack: Vec<_> = (0..100).map(|n| payment(&format!("t-{n}"), 1, NOW + n)).collect();
    store.fold(&attack, &position(0, 100), &BTreeSet::new(), NOW, WITHIN).await.unwrap();
    let key = redis.ask::<Vec<String>>("KEYS e:{card:*").remove(0);
    assert_eq!(redis.ask::<u64>(&format!("ZCARD {key}")), 11);
    let read = store.record_and_read(&payment("t-x", 1, NOW + 200), in_time()).await;
    assert_eq!((read.saturated().count(), read.sets.get(EntityKind::Card).unwrap().records().len()), (5, 10));
}

#[tokio::test]
async fn a_plan_older_than_the_one_in_force_is_refused_and_so_is_a_fold_under_an_older_one_than_the_shards() {
    let redis = Redis::start();
    let store = store(4, RegionRole::Active, &[redis.address()]);
    connected(&store).await;
    let older = OlderEpoch { given: Epoch(3), highest: Epoch(4) };
    assert_eq!(store.follow(&plan(3, RegionRole::Standby, &[redis.address()])), Err(UnusablePlan::Older(older)));
    assert_eq!(store.epoch(), Epoch(4));

    let event = payment("t-1", 1, NOW);
    redis.ask::<()>("SET fp:epoch 4");
    store.fold(std::slice::from_ref(&event), &position(0, 1), &BTreeSet::new(), NOW, WITHIN).await.unwrap();
    redis.ask::<()>("SET fp:epoch 5");
    let refused = store.fold(&[event], &position(0, 2), &BTreeSet::new(), NOW, WITHIN).await;
    assert!(matches!(refused, Err(FoldError::Superseded { shard: 0, .. })), "{refused:?}");
    assert_eq!(redis.ask::<Vec<String>>("HGETALL fp:vector"), ["c/fraud.events.raw/0", "1"]);
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
}

/// A shard's name stays when another process takes its place; connections that are open lead to the former one.
#[tokio::test]
async fn a_process_that_became_a_replica_is_left_for_the_one_that_has_its_name_now() {
    let (former, next) = (Redis::start(), Redis::start());
    let name = Name::leading_to(&former).await;
    let store = store(1, RegionRole::Active, &[name.address()]);
    connected(&store).await;
    assert!(store.record_and_read(&payment("t-1", 1, NOW), in_time()).await.recorded);
    former.ask::<String>(&format!("REPLICAOF 127.0.0.1 {}", next.port));
    name.lead_to(&next);
    let started = std::time::Instant::now();
    while !store.record_and_read(&payment("t-2", 1, NOW), in_time()).await.recorded {
        assert!(started.elapsed() < Duration::from_secs(5), "it stays with the former one");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Passes connections on to one process or another, as a Service does.
struct Name {
    port: u16,
    target: std::sync::Arc<std::sync::atomic::AtomicU16>,
}

impl Name {
    async fn leading_to(redis: &Redis) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = std::sync::Arc::new(std::sync::atomic::AtomicU16::new(redis.port));
        let leads_to = target.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let port = leads_to.load(std::sync::atomic::Ordering::Relaxed);
                tokio::spawn(async move {
                    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port, target }
    }

    fn address(&self) -> domain::HostPort {
        domain::HostPort { host: "127.0.0.1".into(), port: self.port }
    }

    fn lead_to(&self, redis: &Redis) {
        self.target.store(redis.port, std::sync::atomic::Ordering::Relaxed);
    }
}

#[tokio::test]
async fn the_password_is_read_anew_for_each_connection() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "wrong\n").unwrap();
    let redis = Redis::start_on(free_port(), &["--user", "decision", "on", ">s3cret", "~*", "+@all"]);
    let config = RedisConfig { user: Some("decision".into()), password_file: Some(file.clone()), ..config() };
    let store =
        RedisStore::start(config, Windows::default(), FeatureMetrics::default(), &plan(1, RegionRole::Active, &[redis.address()])).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(store.disconnected(), [0]);
    std::fs::write(&file, "s3cret\n").unwrap();
    connected(&store).await;
    assert_eq!(store.record_and_read(&payment("t-1", 1, NOW), in_time()).await.state(), FeatureState::Whole);
}
