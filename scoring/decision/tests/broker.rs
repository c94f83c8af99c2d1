//! The hand-over to a real broker (feature `broker-tests`; see `kafka::testing` for what it needs).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{sync::Arc, time::Duration};

use domain::Epoch;
use kafka::{
    AckProducer, ConsumerOptions, KafkaConfig, KafkaMetrics, TopicSpec, headers,
    rdkafka::{Message as _, Offset, TopicPartitionList, consumer::Consumer as _},
    testing::Broker,
};
use prost::Message as _;
use proto::fraud::v1::{DecisionRecord, Durability, Event, EventKind};
use scoring_core::event;
use scoring_decision::{
    handover::{Handover, KafkaLog},
    pipeline::{Parts, Pipeline},
};

use support::{
    decide,
    inference::{Behaviour, StandIn},
    parts, payment, service, settings,
};

/// The only record of a topic: key, payload, headers.
async fn only_record(config: KafkaConfig, topic: &'static str) -> (Vec<u8>, Vec<u8>, headers::SeenHeaders) {
    let consumer = ConsumerOptions::new("test", "test").consumer(&config, &KafkaMetrics::default()).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let record = consumer.poll(Duration::from_secs(10)).expect("a record").unwrap();
        (record.key().unwrap().to_vec(), record.payload().unwrap().to_vec(), headers::read(record.headers()).unwrap())
    });
    read.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_says_kafka_is_in_both_topics_and_one_without_a_broker_does_not_say_so() {
    let mut broker = Broker::start().unwrap();
    let topics = ["fraud.events.raw", "fraud.decisions"];
    let specs = topics.map(|name| TopicSpec { name: name.into(), partitions: 1, replication: None, config: Default::default() });
    kafka::ensure_topics(&broker.config(), &specs).await.unwrap();
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let producer = AckProducer::new(&broker.config(), "test", &KafkaMetrics::default()).unwrap();
    let handover = Handover::Kafka(Box::new(KafkaLog::new(producer, "fraud", settings().region)));
    // The first record waits for metadata and for the disk: the budget of this test is not what is tested.
    let mut patient = settings();
    patient.deadline = Duration::from_secs(10);
    patient.budgets.handover = Duration::from_secs(8);
    let pipeline = Arc::new(Pipeline::new(Parts { handover, settings: patient, ..parts(service(stand_in.address)) }));

    let response = decide(&pipeline, payment("t-1")).await;
    assert_eq!(response.degradation.as_ref().unwrap().durability(), Durability::Kafka);

    let (event_key, payload, seen) = only_record(broker.config(), topics[0]).await;
    assert_eq!((seen.epoch, seen.origin), (Some(Epoch(7)), Some(settings().region)));
    let wire = Event::decode(payload.as_slice()).unwrap();
    assert_eq!((wire.transaction_id.as_str(), wire.kind()), ("t-1", EventKind::PaymentAttempt));
    event::Event::from_wire(&wire).unwrap();
    let (decision_key, decision, _) = only_record(broker.config(), topics[1]).await;
    assert_eq!((event_key.len(), event_key), (16, decision_key), "both are keyed by the card");
    let record = DecisionRecord::decode(decision.as_slice()).unwrap();
    assert_eq!((record.verdict, record.score, record.features.len()), (response.verdict, response.score, 4 * support::names().len()));
    for raw in ["4111111111111111", "customer-1", "192.0.2.7", "A Person", "d-1"] {
        for bytes in [&payload, &decision] {
            assert!(!bytes.windows(raw.len()).any(|window| window == raw.as_bytes()), "{raw} is in a topic");
        }
    }

    broker.kill();
    let mut hasty = payment("t-2");
    hasty.client_time_ms = Some(1);
    let response = pipeline.decide(hasty, tokio::time::Instant::now(), Some(Duration::from_millis(200))).await.unwrap();
    assert_eq!(response.degradation.unwrap().durability(), Durability::None);

    broker.restart().unwrap();
    assert_eq!(pipeline.handover().flush(Duration::from_secs(30)).await, 0, "what was late is written after all");
    assert_eq!(decide(&pipeline, payment("t-3")).await.degradation.unwrap().durability(), Durability::Kafka);
}
