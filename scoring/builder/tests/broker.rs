//! The builder between a real broker and real Redis shards (feature `broker-tests`; see `kafka::testing` for what it needs).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::collections::BTreeMap;

use domain::RegionRole;
use kafka::{
    TopicSpec, ensure_topics,
    rdkafka::{Message, message::Headers as _},
};
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::event::{EntityId, EntityKind, entity_to_wire};
use support::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_log_is_folded_once_and_a_restart_resumes_where_the_shards_stand() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Active);
    let now = now_ms();
    for n in 0..20 {
        region.produce_event(&payment(&format!("t-{n}"), 1, now + n), i32::try_from(n % 2).unwrap()).await;
    }
    // The same transaction again, as a retry of its producer, and twice by the mirror.
    region.produce_event(&payment("t-0", 1, now), 0).await;
    region.produce_mirrored(&payment("t-eu", 1, now), 5).await;
    region.produce_mirrored(&payment("t-eu", 1, now), 5).await;

    let builder = region.builder();
    region.until("21 transactions", |region| region.folded(1) == 21).await;
    region.until("lag 0", |region| region.metric("builder_feature_lag_ms") == Some(0.0)).await;
    assert!(region.is_ready());
    let vectors = region.vectors();
    assert_eq!(vectors[0], vectors[1]);
    assert_eq!(vectors[0]["eu/fraud.events.raw/0"], 6);
    assert_eq!(vectors[0].len(), 3, "one entry for each partition of an origin: {vectors:?}");
    assert_eq!(region.metric("builder_events_folded_total"), Some(22.0));
    builder.stop().await;

    region.produce_event(&payment("t-after", 1, now + 30), 1).await;
    let builder = region.builder();
    region.until("22 transactions", |region| region.folded(1) == 22).await;
    // Only the new record was read again.
    region.until("metrics", |region| region.metric("builder_events_folded_total") == Some(1.0)).await;
    builder.stop().await;

    let updates: Vec<v1::FeatureUpdate> =
        region.all_of("fraud.features").await.iter().map(|record| v1::FeatureUpdate::decode(record.payload().unwrap()).unwrap()).collect();
    let last = updates.iter().find(|update| update.transaction_id == "t-after").unwrap();
    let count = last.values.iter().find(|value| value.name == "card_count_24h").unwrap().value;
    assert_eq!((count, last.epoch), (22.0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_record_goes_to_the_dead_letter_topic_as_it_was_and_the_log_goes_on() {
    // Without the topic the log waits, and says why; with it, it goes on.
    let region = Region::start(&TOPICS[..4], QUIET).await;
    region.write_plan(1, RegionRole::Active);
    let poison = [0xff, 0x00, 0x13];
    let offset = region.produce(RAW, 0, &poison, ours()).await;
    region.produce_event(&payment("t-1", 1, now_ms()), 0).await;
    let builder = region.builder();
    region.until("a reason in readyz", |region| region.get("/readyz").contains(DEAD)).await;
    assert_eq!(region.folded(1), 0);

    let spec = TopicSpec { name: DEAD.into(), partitions: 1, replication: None, config: BTreeMap::new() };
    ensure_topics(&region.broker.config(), &[spec]).await.unwrap();
    region.until("the payment after it", |region| region.folded(1) == 1).await;
    region.until("ready again", |region| region.is_ready()).await;
    builder.stop().await;

    let letters = region.all_of(DEAD).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].payload(), letters[0].key()), (Some(poison.as_slice()), Some(b"card".as_slice())));
    let header = |key: &str| {
        let found = letters[0].headers().unwrap().iter().find(|header| header.key == key).unwrap();
        String::from_utf8(found.value.unwrap().to_vec()).unwrap()
    };
    assert!(header("fp-dead-coordinates").ends_with(&format!("/{RAW}/0/{offset}")));
    assert!(header("fp-dead-reason").contains("not an Event"));
    assert_eq!(header("fp-origin"), "us-east");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_waits_ready_and_after_the_takeover_folds_what_the_other_region_had_not() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Standby);
    let now = now_ms();
    for n in 0..10 {
        region.produce_mirrored(&payment(&format!("t-{n}"), 1, now + n), n).await;
    }
    // What replication had carried over: the old region's builder stood at offset 7.
    for shard in &region.shards {
        shard.ask::<()>("HSET fp:vector eu/fraud.events.raw/0 7");
    }
    let builder = region.builder();
    region.until("ready", |region| region.is_ready()).await;
    assert!(region.metric("builder_feature_lag_ms").is_some_and(f64::is_nan));
    assert_eq!((region.folded(1), region.metric("builder_folding")), (0, Some(0.0)));

    region.write_plan(2, RegionRole::Active);
    region.until("the three that were missing", |region| region.folded(1) == 3).await;
    region.until("lag 0", |region| region.metric("builder_feature_lag_ms") == Some(0.0)).await;
    assert_eq!(region.metric("builder_events_folded_total"), Some(3.0), "reading began behind what was folded");
    assert_eq!(region.vectors()[1]["eu/fraud.events.raw/0"], 10);
    builder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_shard_stops_folding_and_nothing_is_missing_when_it_is_back() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Active);
    let builder = region.builder();
    let now = now_ms();
    region.produce_event(&payment("t-0", 1, now), 0).await;
    region.until("the first", |region| region.folded(1) == 1).await;
    region.shards[1].stop_answering();
    for n in 1..30 {
        region.produce_event(&payment(&format!("t-{n}"), u8::try_from(n).unwrap(), now + n), 0).await;
    }
    region.until("not ready", |region| !region.is_ready()).await;
    region.shards[1].answer_again();
    region.until("all", |region| (1..30).all(|who| region.folded(who) >= 1)).await;
    region.until("ready again", |region| region.is_ready()).await;
    builder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_a_batch_job_computed_reach_the_profile_through_the_log() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Active);
    let customer = (EntityKind::User, EntityId([9; 16]));
    let value = |value, as_of_ms, id| v1::ProfileValue {
        schema_version: 1,
        entity: Some(entity_to_wire(customer.0, customer.1)),
        name: "average_amount".into(),
        value,
        as_of_ms,
        id: vec![id; 10],
    };
    // The newest counts, whatever comes last.
    for (amount, as_of_ms) in [(10.0, 1_000), (30.0, 3_000), (20.0, 2_000)] {
        region.produce(PROFILES, 0, &value(amount, as_of_ms, 1).encode_to_vec(), ours()).await;
    }
    region.produce(PROFILES, 0, b"\xff", ours()).await;
    let builder = region.builder();
    region.until("the newest value", |region| region.state(customer).profile().batch_value("average_amount") == Some((30.0, 3_000))).await;
    region.until("a dead letter", |region| region.metric("builder_dead_letters_total") == Some(1.0)).await;
    builder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_shard_pauses_reading_and_the_condition_says_so() {
    let region = Region::start(&TOPICS, QUIET).await;
    region.write_plan(1, RegionRole::Active);
    let builder = region.builder();
    region.until("ready", Region::is_ready).await;
    region.shards[0].ask::<()>("CONFIG SET maxmemory 1");
    for n in 0..50 {
        region.produce_event(&payment(&format!("t-{n}"), u8::try_from(n).unwrap(), now_ms()), 0).await;
    }
    region.until("a reason", |region| region.get("/readyz").contains("memory limit")).await;
    assert_eq!(region.metric("builder_waiting_for_shards"), Some(1.0));
    region.shards[0].ask::<()>("CONFIG SET maxmemory 0");
    region.until("all", |region| (0..50).all(|who| region.folded(who) == 1)).await;
    region.until("ready again", Region::is_ready).await;
    assert_eq!(region.metric("builder_waiting_for_shards"), Some(0.0));
    builder.stop().await;
}
