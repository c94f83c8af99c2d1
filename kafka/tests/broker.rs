//! The clients against a real broker (feature `broker-tests`; see `kafka::testing` for what it needs).
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, time::Duration};

use domain::{Epoch, RegionName};
use kafka::{
    AckProducer, Admin, ConsumerOptions, KafkaMetrics, ProduceError, TopicOutcome, TopicSpec, end_offsets,
    headers::{self, RecordHeaders},
    rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer as _},
    testing::Broker,
};

fn spec(name: &str, partitions: u32, config: &[(&str, &str)]) -> TopicSpec {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    TopicSpec { name: name.into(), partitions, replication: None, config }
}

fn ours() -> RecordHeaders {
    RecordHeaders { epoch: Epoch(3), origin: RegionName::new("us-east").unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_grown_and_configured_and_foreign_settings_stay() {
    let broker = Broker::start().unwrap();
    let admin = Admin::new(&broker.config(), "test", &KafkaMetrics::default()).unwrap();
    assert_eq!(admin.cluster_id().await.unwrap().len(), 22);

    let outcome = async |spec: TopicSpec| admin.ensure_topics(&[spec]).await.unwrap().remove(0).outcome;
    assert_eq!(outcome(spec("t", 2, &[("retention.ms", "60000")])).await, TopicOutcome::Created);
    assert_eq!(outcome(spec("t", 2, &[("retention.ms", "60000")])).await, TopicOutcome::Unchanged);
    let changed = TopicOutcome::Changed { partitions_added: 2, settings: vec!["max.message.bytes".into()] };
    assert_eq!(outcome(spec("t", 4, &[("max.message.bytes", "2000000")])).await, changed);
    assert_eq!(outcome(spec("t", 1, &[])).await, TopicOutcome::Unchanged);
    let refused = outcome(spec("bad", 1, &[("retention.ms", "soon")])).await;
    assert!(matches!(refused, TopicOutcome::Failed { .. }), "{refused:?}");

    let info = admin.describe(&["t".into(), "absent".into()]).await.unwrap();
    assert_eq!(info.len(), 1);
    assert_eq!(info["t"].partitions, 4);
    let expected = [("max.message.bytes", "2000000"), ("retention.ms", "60000")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(info["t"].config, BTreeMap::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_record_is_in_the_log_with_its_headers() {
    let broker = Broker::start().unwrap();
    let config = broker.config();
    kafka::ensure_topics(&config, &[spec("t", 1, &[])]).await.unwrap();
    let producer = AckProducer::new(&config, "test", &KafkaMetrics::default()).unwrap();
    for n in 0..3_u8 {
        let delivered = producer.produce("t", b"key", &[n], &ours()).unwrap().await.unwrap();
        assert_eq!((delivered.partition, delivered.offset), (0, i64::from(n)));
    }
    let ends = end_offsets(&config, &["t".into()], Duration::from_secs(5)).await.unwrap();
    assert_eq!(ends, BTreeMap::from([(("t".to_owned(), 0), 3)]));

    let consumer = ConsumerOptions::new("test", "test").consumer(&config, &KafkaMetrics::default()).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset("t", 0, Offset::Offset(2)).unwrap();
    consumer.assign(&from).unwrap();
    let seen = tokio::task::spawn_blocking(move || {
        let record = consumer.poll(Duration::from_secs(10)).expect("a record").unwrap();
        (record.payload().unwrap().to_vec(), headers::read(record.headers()).unwrap())
    });
    let (payload, seen) = seen.await.unwrap();
    assert_eq!(payload, [2]);
    assert_eq!((seen.epoch, seen.origin), (Some(Epoch(3)), Some(ours().origin)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_fills_the_queue_then_fails_records_and_comes_back() {
    let mut broker = Broker::start().unwrap();
    let mut config = broker.config();
    config.client.queued_records_max = 10;
    config.client.delivery_timeout = Duration::from_secs(2);
    kafka::ensure_topics(&config, &[spec("t", 1, &[])]).await.unwrap();
    let producer = AckProducer::new(&config, "test", &KafkaMetrics::default()).unwrap();
    producer.produce("t", b"k", b"before", &ours()).unwrap().await.unwrap();

    broker.kill();
    let waiting: Vec<_> = (0..10).map(|_| producer.produce("t", b"k", b"during", &ours()).unwrap()).collect();
    assert_eq!(producer.produce("t", b"k", b"one too many", &ours()).unwrap_err(), ProduceError::QueueFull);
    for ack in waiting {
        assert_eq!(ack.await.unwrap_err(), ProduceError::TimedOut);
    }

    broker.restart().unwrap();
    let ack = producer.produce("t", b"k", b"after", &ours()).unwrap();
    assert_eq!(producer.flush(Duration::from_secs(20)).await, 0);
    // The first attempts may fall into the restart; the producer as such must work again.
    if ack.await.is_err() {
        producer.produce("t", b"k", b"after", &ours()).unwrap().await.unwrap();
    }
}
