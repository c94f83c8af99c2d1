//! Folding of logs into real shards: what is guarded, what is refused, and what is left as it was.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{
    NOW, Redis, WITHIN, cards, config, connected, in_time, key_of, log, measured_store_of, nobody, part, payment, plan, position, records,
    store,
};
use domain::RegionRole;
use proptest::{prelude::*, test_runner::TestRunner};
use scoring_core::{decide::FeatureState, event::EntityKind, profile::ProfileRecord, record::RecordId, state::splice};
use scoring_features::{FoldError, LogParts, Positions, RedisConfig, RedisStore, StoreConfig};

const LIBRARY: &str = include_str!("../src/functions.lua");
const DAY: i64 = 86_400_000;

async fn one_shard() -> (Redis, RedisStore) {
    let redis = Redis::start();
    let store = store(1, RegionRole::Active, &[redis.address()]);
    connected(&store).await;
    (redis, store)
}

#[tokio::test]
async fn folding_what_the_decision_path_recorded_changes_nothing_and_moves_every_shards_vector() {
    let shards = [Redis::start(), Redis::start()];
    let store = store(1, RegionRole::Active, &[shards[0].address(), shards[1].address()]);
    connected(&store).await;
    let events = [payment("t-1", 1, NOW), payment("t-2", 1, NOW + 5)];
    let before = store.record_and_read(&events[0], in_time()).await;
    let folded = store.fold(&part(0, 0, &events[..1]), &cards(&events[0]), NOW, WITHIN).await.unwrap();
    assert_eq!(folded.states.values().next(), before.states.get(EntityKind::Card));
    let sizes = || shards.each_ref().map(|shard| shard.ask::<u64>("DBSIZE"));
    let keys = sizes();
    // Again, and together with a new one: two are known.
    let folded = store.fold(&part(0, 0, &events), &cards(&events[0]), NOW, WITHIN).await.unwrap();
    assert_eq!(folded.states.values().next().unwrap().records().len(), 2);
    assert_eq!((sizes(), folded.counts.duplicates), (keys, 0));
    assert_eq!(store.positions(WITHIN).await.unwrap(), position(0, 2));
    for shard in &shards {
        assert_eq!(shard.ask::<Vec<String>>("HGETALL fp:vector"), ["c/fraud.events.raw/0", "2"]);
    }
}

#[tokio::test]
async fn each_shard_takes_what_it_does_not_have_and_nothing_twice() {
    let shards = [Redis::start(), Redis::start()];
    let store = store(1, RegionRole::Active, &[shards[0].address(), shards[1].address()]);
    connected(&store).await;
    // Much older than the exact horizon, and more than stay exact: they go to panes, in which an event has no identity.
    let events: Vec<_> = (0..100).map(|n| payment(&format!("t-{n}"), 1, NOW - 7_200_000 + n)).collect();
    store.fold(&part(0, 0, &events[..80]), &nobody(), NOW, WITHIN).await.unwrap();
    // One shard went back to where it was before.
    let lost = shards.iter().find(|shard| shard.ask_bytes::<u64>(&[b"EXISTS", &key_of(&events[0], EntityKind::Card)]) == 0).unwrap();
    lost.ask::<()>("FLUSHALL SYNC");
    assert_eq!(store.positions(WITHIN).await.unwrap(), Positions::new());
    store.fold(&part(0, 0, &events), &nobody(), NOW, WITHIN).await.unwrap();
    let read = store.record_and_read(&payment("t-now", 1, NOW), in_time()).await;
    for (kind, state) in read.states.iter() {
        let in_panes: u32 = state.panes().as_slice().iter().map(|pane| pane.attempts()).sum();
        assert_eq!((state.records().len(), in_panes), (65, 36), "{kind:?}");
    }
}

#[tokio::test]
async fn a_shard_that_knows_less_holds_all_back_and_a_batch_behind_it_is_refused() {
    let shards = [Redis::start(), Redis::start()];
    let store = store(1, RegionRole::Active, &[shards[0].address(), shards[1].address()]);
    connected(&store).await;
    let events: Vec<_> = (0..9).map(|n| payment(&format!("t-{n}"), 1, NOW + n)).collect();
    let mut both = part(0, 0, &events);
    both.extend(part(1, 0, &events[..4]));
    store.fold(&both, &nobody(), NOW, WITHIN).await.unwrap();
    shards[1].ask::<()>("HSET fp:vector c/fraud.events.raw/0 3");
    shards[1].ask::<()>("HDEL fp:vector c/fraud.events.raw/1");
    assert_eq!(store.positions(WITHIN).await.unwrap(), position(0, 3));
    for batch in [part(0, 9, &events[..1]), part(1, 4, &events[..1])] {
        match store.fold(&batch, &nobody(), NOW, WITHIN).await {
            Err(FoldError::Moved { shard: 1, stored }) if batch.contains_key(&log(0)) => assert_eq!(stored, position(0, 3)),
            Err(FoldError::Moved { shard: 1, stored }) => assert_eq!(stored, Positions::new()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(shards[1].ask::<Vec<String>>("HGETALL fp:vector"), ["c/fraud.events.raw/0", "3"]);
    shards[1].ask::<()>("HSET fp:vector nonsense 3");
    assert!(store.positions(WITHIN).await.unwrap_err().to_string().contains("nonsense"));
}

#[tokio::test]
async fn events_older_than_every_window_are_counted_and_a_key_lives_longer_than_its_events() {
    let (redis, store) = one_shard().await;
    let (old, new) = (payment("t-old", 1, NOW - DAY - 60_000), payment("t-new", 1, NOW));
    store.fold(&part(0, 0, &[payment("t-early", 1, NOW - DAY + 1)]), &nobody(), NOW, WITHIN).await.unwrap();
    let folded = store.fold(&part(0, 1, &[old, new.clone()]), &cards(&new), NOW, WITHIN).await.unwrap();
    assert_eq!((folded.counts.expired, folded.states.values().next().unwrap().records().len()), (5, 2));
    store.fold(&part(0, 3, &[payment("t-later", 1, NOW + 60_002)]), &nobody(), NOW + 60_002, WITHIN).await.unwrap();
    let ip = key_of(&new, EntityKind::Ip);
    assert_eq!(redis.ask_bytes::<u64>(&[b"STRLEN", &ip]), 2 * 32);
    assert!((DAY..2 * DAY).contains(&redis.ask_bytes::<i64>(&[b"PTTL", &ip])));
    assert!(redis.ask_bytes::<i64>(&[b"PTTL", &key_of(&new, EntityKind::User)]) > 29 * DAY);
}

#[tokio::test]
async fn what_batch_jobs_say_reaches_the_profile_once() {
    let (_redis, store) = one_shard().await;
    let event = payment("t-1", 1, NOW);
    let user = (EntityKind::User, event.entities.get(EntityKind::User).unwrap());
    let mut batch = part(0, 0, &[]);
    let said = ProfileRecord::new(user, "average_basket", 42.5, NOW, RecordId([1; 10])).unwrap();
    batch.get_mut(&log(0)).unwrap().profiles.push((0, said));
    batch.get_mut(&log(0)).unwrap().next = 1;
    let folded = store.fold(&batch, &[user].into(), NOW, WITHIN).await.unwrap();
    assert_eq!(folded.states[&user].profile().batch_value("average_basket"), Some((42.5, NOW)));
    let read = store.record_and_read(&event, in_time()).await;
    assert_eq!(read.states.get(EntityKind::User).unwrap().profile().batch_value("average_basket"), Some((42.5, NOW)));
}

#[tokio::test]
async fn a_fold_under_an_older_plan_than_the_shards_is_refused() {
    let redis = Redis::start();
    let store = store(4, RegionRole::Active, &[redis.address()]);
    connected(&store).await;
    let event = payment("t-1", 1, NOW);
    redis.ask::<()>("SET fp:epoch 4");
    store.fold(&part(0, 0, std::slice::from_ref(&event)), &nobody(), NOW, WITHIN).await.unwrap();
    redis.ask::<()>("SET fp:epoch 5");
    let refused = store.fold(&part(0, 1, &[event]), &nobody(), NOW, WITHIN).await;
    assert!(matches!(refused, Err(FoldError::Superseded { shard: 0, .. })), "{refused:?}");
    assert_eq!(redis.ask::<Vec<String>>("HGETALL fp:vector"), ["c/fraud.events.raw/0", "1"]);
}

#[tokio::test]
async fn functions_that_are_missing_or_of_another_version_are_loaded_and_reach_replicas() {
    let (redis, store) = one_shard().await;
    let replica = Redis::start();
    replica.replicate(&redis);
    let version = |redis: &Redis| redis.ask::<String>("FCALL_RO fp_version 0");
    store.fold(&part(0, 0, &[payment("t-1", 1, NOW)]), &nobody(), NOW, WITHIN).await.unwrap();
    assert_eq!(version(&redis), "1");
    redis.ask_bytes::<()>(&[b"FUNCTION", b"LOAD", b"REPLACE", LIBRARY.replace("VERSION = '1'", "VERSION = '0'").as_bytes()]);
    assert_eq!(version(&redis), "0");
    store.fold(&part(0, 1, &[payment("t-2", 1, NOW)]), &nobody(), NOW, WITHIN).await.unwrap();
    assert_eq!(version(&redis), "1");
    redis.ask::<()>("WAIT 1 5000");
    assert_eq!(version(&replica), "1");
    assert_eq!(replica.ask::<Vec<String>>("HGETALL fp:vector"), ["c/fraud.events.raw/0", "2"]);
}

/// A call as another builder, or a late one, would make it.
fn call(redis: &Redis, guard: [&str; 7], key: &[u8], read_bytes: u32, head: &[u8]) -> Vec<String> {
    let packed = [read_bytes.to_be_bytes(), 90_000_u32.to_be_bytes()].concat();
    let guard = guard.map(str::as_bytes);
    redis.ask_bytes(&[&[b"FCALL".as_slice(), b"fp_fold", b"1", key], guard.as_slice(), &[&packed, head]].concat())
}

#[tokio::test]
async fn a_call_that_comes_too_late_changes_nothing_and_is_told_why() {
    let (redis, store) = one_shard().await;
    let event = payment("t-1", 1, NOW);
    store.fold(&part(0, 0, std::slice::from_ref(&event)), &nobody(), NOW, WITHIN).await.unwrap();
    redis.ask::<()>("SET fp:epoch 7");
    let key = key_of(&event, EntityKind::Ip);
    let refused = |guard| call(&redis, guard, &key, 32, b"other");
    let log = "c/fraud.events.raw/0";
    assert_eq!(refused(["1", "6", "1", "1", log, "1", "2"]), ["superseded", "7"]);
    assert_eq!(refused(["1", "7", "1", "1", log, "0", "2"]), ["moved", "1"]);
    // Somebody else has folded, even if only from other partitions.
    assert_eq!(refused(["1", "7", "0", "1", log, "1", "2"]), ["moved", "1"]);
    assert_eq!(refused(["1", "7", "1", "1", "c/fraud.events.raw/9", "5", "6"]), ["moved", ""]);
    assert_eq!(refused(["9", "7", "1", "1", log, "1", "2"]), ["version", "1"]);
    assert_eq!(redis.ask_bytes::<Vec<u8>>(&[b"GET", &key]).len(), 32);
    assert_eq!(refused(["1", "7", "1", "1", log, "1", "2"]), ["folded"]);
    assert_eq!(redis.ask_bytes::<Vec<u8>>(&[b"GET", &key]), b"other");
    assert_eq!(redis.ask::<Vec<String>>("HGETALL fp:vector"), [log, "2"]);
}

#[tokio::test]
async fn a_key_that_expires_between_reading_and_writing_keeps_what_came_after() {
    let (redis, store) = one_shard().await;
    let (read, after) = (payment("t-1", 1, NOW), payment("t-2", 1, NOW + 1));
    store.fold(&part(0, 0, &[read.clone(), payment("t-0", 1, NOW)]), &nobody(), NOW, WITHIN).await.unwrap();
    let key = key_of(&read, EntityKind::Ip);
    let value = redis.ask_bytes::<Vec<u8>>(&[b"GET", &key]);
    redis.ask_bytes::<()>(&[b"DEL", &key]);
    store.record_and_read(&after, in_time()).await;
    call(&redis, ["1", "1", "1", "1", "c/fraud.events.raw/0", "2", "3"], &key, 64, &value);
    assert_eq!(records(&store.record_and_read(&after, in_time()).await, EntityKind::Ip), 3);
}

#[test]
fn the_function_puts_heads_as_the_definition_says() {
    let redis = Redis::start();
    redis.ask_bytes::<()>(&[b"FUNCTION", b"LOAD", LIBRARY.as_bytes()]);
    let key = [b"{c", [0; 16].as_slice(), b"}"].concat();
    let bytes = |max| prop::collection::vec(any::<u8>(), 0..max);
    let mut runner = TestRunner::new(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() });
    let outcome = runner.run(&(bytes(100), 0_u32..120, bytes(60)), |(current, read_bytes, head)| {
        redis.ask_bytes::<()>(&[b"SET", &key, &current]);
        redis.ask::<()>("DEL fp:folds");
        prop_assert_eq!(call_without_logs(&redis, &key, read_bytes, &head), ["folded"]);
        let expected = splice(&current, usize::try_from(read_bytes).unwrap(), &head);
        prop_assert_eq!(redis.ask_bytes::<Vec<u8>>(&[b"GET", &key]), if expected.is_empty() { current } else { expected });
        Ok(())
    });
    outcome.unwrap();
}

fn call_without_logs(redis: &Redis, key: &[u8], read_bytes: u32, head: &[u8]) -> Vec<String> {
    let packed = [read_bytes.to_be_bytes(), 90_000_u32.to_be_bytes()].concat();
    redis.ask_bytes(&[b"FCALL", b"fp_fold", b"1", key, b"1", b"1", b"0", b"0", &packed, head])
}

#[tokio::test]
async fn the_second_fold_of_one_process_waits_for_the_first() {
    let (_redis, store) = one_shard().await;
    let event = |n: i64| payment(&format!("t-{n}"), 1, NOW + n);
    let batches: Vec<_> = (0..8).map(|n| part(i32::try_from(n).unwrap(), 0, &[event(n)])).collect();
    let nobody = nobody();
    let folds = futures::future::join_all(batches.iter().map(|batch| store.fold(batch, &nobody, NOW, WITHIN))).await;
    assert!(folds.iter().all(Result::is_ok), "{folds:?}");
    let read = store.record_and_read(&event(100), in_time()).await;
    assert_eq!(records(&read, EntityKind::Card), 9);
    assert_eq!(store.positions(WITHIN).await.unwrap().len(), 8);
}

/// What each role needs; what `fp_fold` does is checked against the rights of whoever calls it.
const DECISION: &str = "~{* %R~fp:* +ping +append +getex +get (~fp:hot +set)";
const BUILDER: &str = "~{* ~fp:* +ping +get +mget +set +getrange +hget +hmget +hgetall +hset +fcall +fcall_ro +function|load";

#[tokio::test]
async fn each_role_does_its_work_with_the_rights_of_its_role() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, "s3cret").unwrap();
    let as_user = |user: &str, rules: &str| {
        let words: Vec<&str> = ["ACL", "SETUSER", user, "reset", "on", ">s3cret"].into_iter().chain(split_rules(rules)).collect();
        redis.ask_bytes::<()>(&words.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        let redis_config = RedisConfig { user: Some(user.into()), password_file: Some(password_file.clone()), ..config().redis };
        measured_store_of(StoreConfig { redis: redis_config, ..config() }, &plan(1, RegionRole::Active, &[redis.address()])).0
    };
    let (decision, builder) = (as_user("decision", DECISION), as_user("builder", BUILDER));
    connected(&decision).await;
    connected(&builder).await;
    for n in 0..5 {
        decision.record_and_read(&payment(&format!("t-{n}"), 1, NOW + n), in_time()).await;
    }
    decision.write_hot_list_once().await;
    decision.read_hot_list(WITHIN).await;
    assert_eq!(redis.ask::<u64>("STRLEN fp:hot"), 16);
    builder.fold(&part(0, 0, &[payment("t-0", 1, NOW)]), &nobody(), NOW, WITHIN).await.unwrap();
    assert_eq!(builder.positions(WITHIN).await.unwrap(), position(0, 1));
    let read = decision.record_and_read(&payment("t-5", 1, NOW + 5), in_time()).await;
    assert_eq!((read.state(), records(&read, EntityKind::Card)), (FeatureState::Whole, 6));
}

/// A selector in parentheses is one word.
fn split_rules(rules: &str) -> Vec<&str> {
    let (plain, selector) = rules.split_at(rules.find('(').unwrap_or(rules.len()));
    plain.split_ascii_whitespace().chain([selector].into_iter().filter(|selector| !selector.is_empty())).collect()
}

#[tokio::test]
async fn an_empty_batch_is_folded_by_doing_nothing() {
    let (redis, store) = one_shard().await;
    store.fold(&part(0, 0, &[]), &nobody(), NOW, WITHIN).await.unwrap();
    store.fold(&LogParts::new(), &nobody(), NOW, WITHIN).await.unwrap();
    assert_eq!(store.positions(WITHIN).await.unwrap(), position(0, 0));
    assert_eq!(redis.ask::<u64>("GET fp:folds"), 1);
}
