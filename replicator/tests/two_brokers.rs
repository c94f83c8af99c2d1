//! A mirror between two real brokers (feature `broker-tests`; see `kafka::testing` for what it needs).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::headers::Source;
use kafka::{
    KafkaConfig, KafkaMetrics,
    rdkafka::{Offset, TopicPartitionList, admin::AdminOptions},
    testing::Broker,
};
use support::{Dice, MIRRORED, Replicator, Seen, TOPIC, admin, make_topic, produce, producer, read};

/// Lost, doubled or reordered: none.
fn assert_same(origin: &BTreeMap<i32, Vec<Seen>>, mirrored: &BTreeMap<i32, Vec<Seen>>) {
    assert_eq!(origin.keys().collect::<Vec<_>>(), mirrored.keys().collect::<Vec<_>>());
    for (partition, written) in origin {
        let copied = &mirrored[partition];
        let offsets = |records: &[Seen]| records.iter().map(|record| record.offset).collect::<Vec<_>>();
        let sources: Vec<i64> = copied.iter().map(|record| record.source.as_ref().unwrap().offset).collect();
        assert_eq!(offsets(written), sources, "partition {partition}: offsets at the origin and in fp-src");
        for (written, copied) in written.iter().zip(copied) {
            assert_eq!(written.content(), copied.content(), "partition {partition}, offset {}", written.offset);
        }
    }
}

async fn ends(config: &KafkaConfig) -> BTreeMap<i32, i64> {
    let ends = kafka::end_offsets(config, &[TOPIC.to_owned()], Duration::from_secs(10)).await.unwrap();
    ends.into_iter().map(|((_, partition), end)| (partition, end)).collect()
}

/// Writes to all partitions until told to stop.
fn write_on(config: &KafkaConfig, partitions: i32) -> (Arc<AtomicBool>, tokio::task::JoinHandle<u64>) {
    let (stop, config) = (Arc::new(AtomicBool::new(false)), config.clone());
    let stopped = stop.clone();
    let writing = tokio::spawn(async move {
        let producer = producer(&config);
        let mut count = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            let partition = i32::try_from(count % u64::try_from(partitions).unwrap()).unwrap();
            produce(&producer, partition, &count.to_string(), None).await;
            count += 1;
        }
        count
    });
    (stop, writing)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_keep_everything_and_topics_follow_the_origin() {
    let (source, target) = (Broker::start().unwrap(), Broker::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    make_topic(&source.config(), TOPIC, 2, &[("retention.ms", "7200000"), ("min.insync.replicas", "1")]).await;
    let writer = producer(&source.config());
    for n in 0..50 {
        produce(&writer, n % 2, &format!("before {n}"), None).await;
    }
    let mut replicator = Replicator::start(folder.path(), &source, &target);
    replicator.wait_for(&ends(&source.config()).await).await;
    replicator.wait_for_state("Mirroring").await;
    assert!(
        replicator.get("/metrics").unwrap().contains("mirror_lag_records{origin=\"us-east\",topic=\"fraud.events.raw\",partition=\"0\"} 0")
    );

    let mirrored = read(&target.config(), MIRRORED).await;
    assert_same(&read(&source.config(), TOPIC).await, &mirrored);
    let cluster = admin(&source.config()).cluster_id().await.unwrap();
    let first = Source { cluster_id: cluster.clone(), topic_id: TOPIC.into(), partition: 1, offset: 0 };
    assert_eq!(mirrored[&1][0].source, Some(first));
    let info = admin(&target.config()).describe(&[MIRRORED.into()]).await.unwrap();
    assert_eq!(info[MIRRORED].config["retention.ms"], "7200000");

    // Partitions are added at the origin, a record that the target wrote first arrives there, and one with no value.
    make_topic(&source.config(), TOPIC, 3, &[("retention.ms", "3600000")]).await;
    let own = Source { cluster_id: admin(&target.config()).cluster_id().await.unwrap(), topic_id: "t".into(), partition: 0, offset: 9 };
    let writer = producer(&source.config());
    produce(&writer, 0, "this came from here", Some(&own)).await;
    produce(&writer, 2, "new partition", None).await;
    replicator.wait_for(&ends(&source.config()).await).await;
    let mirrored = read(&target.config(), MIRRORED).await;
    assert_eq!(mirrored[&2].len(), 1);
    assert_eq!(mirrored[&0].len(), 25);
    let info = admin(&target.config()).describe(&[MIRRORED.into()]).await.unwrap();
    assert_eq!((info[MIRRORED].partitions, info[MIRRORED].config["retention.ms"].as_str()), (3, "3600000"));
    replicator.wait("the record that came home to be counted", |it| it.positions()["came_home_records"] == 1).await;
    assert_eq!(replicator.terminate(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_the_last_one_ended() {
    let (source, target) = (Broker::start().unwrap(), Broker::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    make_topic(&source.config(), TOPIC, 1, &[]).await;
    let writer = producer(&source.config());
    for round in 0..3 {
        for n in 0..100 {
            produce(&writer, 0, &format!("{round}/{n}"), None).await;
        }
        let mut replicator = Replicator::start(folder.path(), &source, &target);
        replicator.wait_for(&ends(&source.config()).await).await;
        assert_eq!(replicator.terminate(), Some(0));
    }
    assert_same(&read(&source.config(), TOPIC).await, &read(&target.config(), MIRRORED).await);

    // A plan that others have moved past must not write.
    Replicator::start_at(folder.path(), &source, &target, 5).wait_for_state("Mirroring").await;
    produce(&writer, 0, "under epoch 5", None).await;
    let newer = Replicator::start_at(folder.path(), &source, &target, 5);
    newer.wait_for(&ends(&source.config()).await).await;
    drop(newer);
    let older = Replicator::start_at(folder.path(), &source, &target, 4);
    older.wait_for_state("OlderPlan").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicators_killed_at_random_moments_lose_and_double_nothing() {
    let (source, target) = (Broker::start().unwrap(), Broker::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    make_topic(&source.config(), TOPIC, 4, &[]).await;
    let (stop, writing) = write_on(&source.config(), 4);
    let mut dice = Dice::new(u64::from(std::process::id()));
    for _ in 0..10 {
        let mut replicator = Replicator::start(folder.path(), &source, &target);
        // Connecting takes about a second: some kills fall into it, most into the mirroring after it.
        tokio::time::sleep(dice.up_to_ms(3_000)).await;
        replicator.kill();
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.unwrap();
    let replicator = Replicator::start(folder.path(), &source, &target);
    replicator.wait_for(&ends(&source.config()).await).await;
    let origin = read(&source.config(), TOPIC).await;
    assert_eq!(origin.values().map(|records| records.len() as u64).sum::<u64>(), written);
    assert_same(&origin, &read(&target.config(), MIRRORED).await);
    println!("{written} records");
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_away_are_told_apart_and_nothing_is_lost_or_doubled() {
    let (mut source, mut target) = (Broker::start().unwrap(), Broker::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    make_topic(&source.config(), TOPIC, 2, &[]).await;
    let (stop, writing) = write_on(&source.config(), 2);
    let replicator = Replicator::start(folder.path(), &source, &target);
    replicator.wait_for_state("Mirroring").await;

    target.kill();
    replicator.wait_for_state("TargetUnreachable").await;
    assert!(replicator.get("/readyz").unwrap().contains("this region's Kafka is unreachable"));
    target.restart().unwrap();
    replicator.wait_for_state("Mirroring").await;

    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    source.kill();
    replicator.wait_for_state("SourceUnreachable").await;
    assert_eq!(replicator.get("/readyz").unwrap(), "ok\n");
    // A lag that is not measured has no figure.
    replicator.wait("no figure", |replicator| !replicator.get("/metrics").unwrap_or_default().contains("mirror_lag_ms{")).await;
    source.restart().unwrap();
    replicator.wait_for_state("Mirroring").await;
    replicator.wait_for(&ends(&source.config()).await).await;
    assert_same(&read(&source.config(), TOPIC).await, &read(&target.config(), MIRRORED).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_replicator_fences_the_first_and_nothing_is_doubled() {
    let (source, target) = (Broker::start().unwrap(), Broker::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    make_topic(&source.config(), TOPIC, 2, &[]).await;
    let (stop, writing) = write_on(&source.config(), 2);
    let first = Replicator::start(folder.path(), &source, &target);
    first.wait_for_state("Mirroring").await;
    let second = Replicator::start(folder.path(), &source, &target);
    second.wait_for_state("Mirroring").await;
    first.wait_for_state("Fenced").await;
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    second.wait_for(&ends(&source.config()).await).await;
    assert_same(&read(&source.config(), TOPIC).await, &read(&target.config(), MIRRORED).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_retention_overtook_stops_and_the_others_go_on() {
    let (source, target) = (Broker::start().unwrap(), Broker::start().unwrap());
    let folder = tempfile::tempdir().unwrap();
    make_topic(&source.config(), TOPIC, 2, &[]).await;
    let writer = producer(&source.config());
    for n in 0..20 {
        produce(&writer, n % 2, &n.to_string(), None).await;
    }
    let mut replicator = Replicator::start(folder.path(), &source, &target);
    replicator.wait_for(&ends(&source.config()).await).await;
    assert_eq!(replicator.terminate(), Some(0));

    for n in 20..60 {
        produce(&writer, n % 2, &n.to_string(), None).await;
    }
    delete_below(&source.config(), 0, 15).await;
    let replicator = Replicator::start(folder.path(), &source, &target);
    replicator.wait_for_state("PartitionStopped").await;
    let why = replicator.positions()["why"].to_string();
    assert!(why.contains("records 10 to 15 are gone at the origin"), "{why}");
    replicator.wait_for(&BTreeMap::from([(1, 30)])).await;
    let mirrored = read(&target.config(), MIRRORED).await;
    assert_eq!((mirrored[&0].len(), mirrored[&1].len()), (10, 30));
}

async fn delete_below(config: &KafkaConfig, partition: i32, offset: i64) {
    let client: kafka::rdkafka::admin::AdminClient<kafka::Context> =
        config.client_config("test").unwrap().create_with_context(kafka::Context::new("test", &KafkaMetrics::default())).unwrap();
    let mut below = TopicPartitionList::new();
    below.add_partition_offset(TOPIC, partition, Offset::Offset(offset)).unwrap();
    client.delete_records(&below, &AdminOptions::new()).await.unwrap();
}
