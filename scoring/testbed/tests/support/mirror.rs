//! A mirror of one region's topics into the other's Kafka.

use kafka::{end_offsets, rdkafka::consumer::Consumer as _};
use process::plan::PlanWatch;
use prost::Message as _;
use proto::fraud::v1;
use redis_testbed::free_port;
use replicator_runtime::{config::Config, run};
use scoring_core::event::Event;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{LIMIT, RAW, Region, US};

pub(crate) struct Mirror {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Mirror {
    pub(crate) fn start(origin: &Region, target: &Region) -> Self {
        let text = format!(
            "{{pipeline: payments, region: {}, origin: {}, source: {{bootstrap_servers: ['x:1']}}, target: {{bootstrap_servers: ['x:1']}}, \
             topic_prefix: fraud, positions_partition: {}, admin: '127.0.0.1:{}', \
             limits: {{topic_sync_interval: 1s, lag_interval: 500ms, commit_timeout: 5s}}}}",
            target.name,
            origin.name,
            u8::from(origin.name.as_str() != US),
            free_port().unwrap()
        );
        let config = Config { source: origin.kafka.clone(), target: target.kafka.clone(), ..serde_yaml::from_str(&text).unwrap() };
        let stop = CancellationToken::new();
        let plan = PlanWatch::follow(&target.plan_path(), stop.clone()).unwrap();
        let stopped = stop.clone();
        Self { stop, task: tokio::spawn(async move { run(config, plan, stopped).await.unwrap() }) }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// The events that `target` has of `origin`'s log, read by nothing that the mirror uses.
pub(crate) async fn mirrored_events(origin: &Region, target: &Region) -> Vec<Event> {
    let topic = format!("{}.{RAW}", origin.name);
    let config = target.kafka.clone();
    let ends = end_offsets(&config, std::slice::from_ref(&topic), LIMIT).await.unwrap();
    let read = move || ends.into_iter().flat_map(|((topic, partition), _)| events_of(&config, &topic, partition)).collect();
    tokio::task::spawn_blocking(read).await.unwrap()
}

fn events_of(config: &kafka::KafkaConfig, topic: &str, partition: i32) -> Vec<Event> {
    use kafka::rdkafka::{Message as _, Offset, TopicPartitionList, error::KafkaError};
    let mut client = kafka::ConsumerOptions::new("reader", "reader").client_config(config).unwrap();
    client.set("enable.partition.eof", "true");
    let consumer: kafka::Consumer = client.create_with_context(kafka::Context::new("reader", &kafka::KafkaMetrics::default())).unwrap();
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    consumer.assign(&from).unwrap();
    let mut events = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(20)).expect("a record, or the end") {
            Ok(record) if kafka::headers::is_heartbeat(record.headers()) => {}
            Ok(record) => events.push(Event::from_wire(&v1::Event::decode(record.payload().unwrap()).unwrap()).unwrap()),
            Err(KafkaError::PartitionEOF(_)) => return events,
            Err(error) => panic!("{error}"),
        }
    }
}
