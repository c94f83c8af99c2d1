//! Shards that went back, logs that do not reach back, heartbeats that stop (feature `broker-tests`; see `kafka::testing`).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use domain::RegionRole;
use kafka::{
    Context, KafkaMetrics,
    headers::{is_heartbeat, with_source},
    rdkafka::{
        Message as _, Offset, TopicPartitionList,
        admin::{AdminClient, AdminOptions},
    },
};
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::freshness::OriginData;
use support::*;

/// A copy of all that a shard has, bookkeeping included.
fn copy_of(region: &Region, shard: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let keys: Vec<Vec<u8>> = region.ask(shard, &[b"KEYS", b"*"]);
    keys.into_iter().map(|key| (key.clone(), region.ask(shard, &[b"DUMP", &key]))).collect()
}

/// The shard is as it was: what a promoted replica that had less looks like.
fn go_back(region: &Region, shard: usize, copy: &[(Vec<u8>, Vec<u8>)]) {
    region.ask::<()>(shard, &[b"FLUSHALL"]);
    for (key, value) in copy {
        region.ask::<()>(shard, &[b"RESTORE", key, b"0", value]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_went_back_is_folded_again_from_where_it_stands_and_the_other_takes_nothing_twice() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Active);
    let builder = region.builder();
    let customers = || 0..40_u8;
    let produce = async |name: &str| {
        for who in customers() {
            // Old enough to be summed up at once where there are many: twice would be seen.
            region.produce_event(&payment(&format!("{name}-{who}"), who, now_ms() - 7_200_000), i32::from(who % 2)).await;
        }
    };
    produce("a").await;
    region.until("the first", |region| customers().all(|who| region.folded(who) == 1)).await;
    let copy = copy_of(&region, 1);
    produce("b").await;
    region.until("the second", |region| customers().all(|who| region.folded(who) == 2)).await;
    go_back(&region, 1, &copy);
    assert!(customers().any(|who| region.folded(who) == 1));
    produce("c").await;
    region.until("all three", |region| customers().all(|who| region.folded(who) == 3)).await;
    assert!(region.metric("builder_shards_moved_total").is_some_and(|moved| moved >= 1.0));
    region.until("equal vectors", |region| region.vectors()[0] == region.vectors()[1]).await;
    region.until("ready", Region::is_ready).await;
    builder.stop().await;
}

async fn delete_before(region: &Region, topic: &str, offset: i64) {
    let admin: AdminClient<Context> =
        region.broker.config().client_config("test").unwrap().create_with_context(Context::new("test", &KafkaMetrics::default())).unwrap();
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    admin.delete_records(&partitions, &AdminOptions::new().operation_timeout(Some(LIMIT))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_log_does_not_reach_back_folding_stands_still_until_somebody_accepts_the_loss() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Active);
    for n in 0..10 {
        region.produce_event(&payment(&format!("t-{n}"), 1, now_ms()), 0).await;
    }
    let builder = region.builder();
    region.until("all", |region| region.folded(1) == 10).await;
    builder.stop().await;
    for n in 10..20 {
        region.produce_event(&payment(&format!("t-{n}"), 1, now_ms()), 0).await;
    }
    let stands_at = *region.vectors()[0].iter().find(|(entry, _)| entry.ends_with("/fraud.events.raw/0")).unwrap().1;
    delete_before(&region, RAW, stands_at + 5).await;

    let builder = region.builder();
    region.until("a sentence", |region| region.get("/readyz").contains("accept the loss with: HDEL fp:vector")).await;
    assert!(region.get("/readyz").contains(&format!("begins at offset {}", stands_at + 5)), "{}", region.get("/readyz"));
    assert_eq!((region.folded(1), region.metric("builder_needs_somebody")), (10, Some(1.0)));
    let sentence = region.get("/readyz");
    let entry = sentence.split("fp:vector ").nth(1).unwrap().split(' ').next().unwrap();
    region.on_all(&format!("HDEL fp:vector {entry}"));
    region.until("what is left", |region| region.folded(1) == 15).await;
    region.until("ready", |region| region.is_ready() && region.metric("builder_needs_somebody") == Some(0.0)).await;
    builder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_and_older_than_the_longest_window_is_passed_over_and_counted() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Active);
    let two_days_ago = now_ms() - 2 * 86_400_000;
    for n in 0..10 {
        let old = payment(&format!("old-{n}"), 1, two_days_ago).to_wire().encode_to_vec();
        region.produce_at(RAW, 0, &old, ours(), two_days_ago).await;
    }
    region.produce_event(&payment("young", 1, now_ms()), 0).await;
    let cluster_id = kafka::Admin::new(&region.broker.config(), "test", &KafkaMetrics::default()).unwrap().cluster_id().await.unwrap();
    region.on_all(&format!("HSET fp:vector {cluster_id}/{RAW}/0 2"));
    delete_before(&region, RAW, 6).await;
    let builder = region.builder();
    region.until("the young one", |region| region.folded(1) == 1).await;
    assert_eq!(region.metric("builder_offsets_passed_over_total"), Some(4.0));
    region.until("ready", Region::is_ready).await;
    builder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_shards_are_folded_anew_from_the_log_and_from_as_long_ago_as_somebody_asked() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Active);
    let three_days_ago = now_ms() - 3 * 86_400_000;
    let old = payment("old", 1, three_days_ago).to_wire().encode_to_vec();
    region.produce_at(RAW, 0, &old, ours(), three_days_ago).await;
    for n in 0..5 {
        region.produce_event(&payment(&format!("t-{n}"), 1, now_ms()), 0).await;
    }
    let first_seen = |region: &Region| region.state(card_of(1)).profile().first_seen_ms();
    let builder = region.builder();
    region.until("what a window needs", |region| region.folded(1) == 5).await;
    assert_eq!(first_seen(&region), None, "nobody asked for more");

    // As `fraud-features rebuild --read-from` leaves them.
    for shard in &region.shards {
        shard.ask::<()>("FLUSHALL SYNC");
        shard.ask::<()>(&format!("SET fp:read_from {}", three_days_ago - 1));
    }
    region.produce_event(&payment("t-last", 1, now_ms()), 0).await;
    region.until("all anew", |region| region.folded(1) == 6).await;
    assert_eq!(first_seen(&region), Some(three_days_ago));
    region.until("equal vectors", |region| region.vectors()[0] == region.vectors()[1]).await;
    region.until("ready", Region::is_ready).await;
    builder.stop().await;
}

fn age_of(data: &OriginData) -> Option<u64> {
    match data {
        OriginData::Producing { age_ms } => age_ms.fresh().copied(),
        OriginData::Ended { .. } => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn freshness_is_known_without_traffic_and_unknown_when_heartbeats_stop() {
    let mut region = Region::start(&TOPICS, BEATING).await;
    region.write_plan(1, RegionRole::Active);
    let builder = region.builder();
    let own_age = |region: &Region, shard| region.published(shard).and_then(|said| age_of(&said.origins[&support::region("us-east")]));
    region.until("an age in both shards", |region| (0..2).all(|shard| own_age(region, shard).is_some_and(|age_ms| age_ms < 1_000))).await;
    assert!(region.metric("builder_origin_age_ms{origin=\"us-east\"}").is_some_and(|age_ms| age_ms < 1_000.0));
    assert!(region.metric("builder_origin_age_ms{origin=\"eu-west\"}").is_some_and(f64::is_nan), "eu-west has never been heard");
    assert_eq!((region.metric("builder_dead_letters_total"), region.metric("builder_events_folded_total")), (Some(0.0), Some(0.0)));
    let before = region.published(0).unwrap().published_ms;

    region.broker.kill();
    region.until("unknown", |region| own_age(region, 0).is_none()).await;
    assert!(region.published(0).unwrap().published_ms > before, "it is told that nothing is known");
    region.broker.restart().unwrap();
    region.until("an age again", |region| own_age(region, 0).is_some()).await;
    builder.stop().await;
}

/// eu-west echoes the newest heartbeat of this region.
async fn echo(region: &Region, offset: i64) {
    let heard = region.all_of(RAW).await.into_iter().filter(|record| is_heartbeat(record.headers()));
    let counters = heard.map(|record| v1::Heartbeat::decode(record.payload().unwrap()).unwrap().counter);
    let echoes = [("us-east".to_owned(), counters.max().expect("this region has written heartbeats"))].into();
    let heartbeat = v1::Heartbeat { counter: 1_000 + offset.unsigned_abs(), clock_ms: 0, echoes };
    let headers = with_source(Some(&heartbeat_headers()), &source(offset));
    region.produce(MIRROR, 0, &heartbeat.encode_to_vec(), headers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_takeover_what_the_other_region_had_not_handed_over_is_missing_until_it_comes() {
    let region = Region::start(&TOPICS, BEATING).await;
    region.write_plan(1, RegionRole::Standby);
    // The other region's builder had folded its own log up to offset 1.
    region.on_all("HSET fp:vector eu/fraud.events.raw/0 1");
    let builder = region.builder();
    let written = "kafka_records_acknowledged_total{client=\"scoring-builder-heart\"}";
    region.until("heartbeats", |region| region.metric(written).is_some_and(|beats| beats > 10.0)).await;
    echo(&region, 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    region.write_plan(2, RegionRole::Active);
    let ended = |region: &Region| match region.published(0)?.origins.remove(&support::region("eu-west"))? {
        OriginData::Ended { folded_through_ms, ended_ms } => Some((folded_through_ms.fresh().copied()?, ended_ms)),
        OriginData::Producing { .. } => None,
    };
    region.until("what is missing", |region| ended(region).is_some_and(|(through_ms, ended_ms)| through_ms < ended_ms)).await;
    // It lives after all, and its tail comes.
    echo(&region, 1).await;
    region.until("nothing is missing", |region| ended(region).is_some_and(|(through_ms, ended_ms)| through_ms >= ended_ms)).await;
    let before = ended(&region).unwrap();
    builder.stop().await;

    // A builder that starts anew has heard nothing, and knows what the one before it knew.
    let builder = region.builder();
    let restarted_ms = now_ms();
    region.until("published anew", |region| region.published(0).is_some_and(|said| said.published_ms > restarted_ms)).await;
    let after = ended(&region).expect("still known");
    assert!((after.0 - before.0).abs() < 1_000 && (after.1 - before.1).abs() < 1_000, "{before:?} {after:?}");
    builder.stop().await;
}
