//! Reading the stored positions at the start. Blocking.
//!
//! To be called after the transactional producer has started: from then on nobody else moves this mirror's positions, and
//! no transaction of an earlier mirror is open. Another mirror's open transaction in the same partition would hide what
//! lies behind it, so the end is taken without regard to transactions, and read up to it with regard to them.

use std::{
    thread,
    time::{Duration, Instant},
};

use kafka::{
    Consumer, ConsumerOptions, Isolation, KafkaMetrics,
    rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError, message::BorrowedMessage},
};
use replicator_core::{Position, PositionKey, Positions, Side, Trouble};

use crate::{config::Config, trouble};

const TIMEOUT: Duration = Duration::from_secs(10);
/// As long as a dead neighbour's transaction may stay open, and some more.
const STABLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The positions of one source cluster, from all partitions of the positions topic: this mirror may have had another one.
pub(crate) fn read(config: &Config, source_cluster: &str, metrics: &KafkaMetrics) -> Result<Positions, Trouble> {
    let failed = |error| trouble::of_kafka(Side::Target, error);
    let topic = config.positions_topic();
    let open = consumer(config, Isolation::ReadUncommitted, metrics)?;
    let metadata = open.fetch_metadata(Some(&topic), TIMEOUT).map_err(failed)?;
    let partitions: Vec<i32> = metadata.topics().iter().flat_map(|found| found.partitions()).map(|partition| partition.id()).collect();
    let mut positions = Positions::default();
    for partition in partitions {
        let (_, end) = open.fetch_watermarks(&topic, partition, TIMEOUT).map_err(failed)?;
        if end > 0 {
            read_partition(config, &topic, partition, end, source_cluster, &mut positions, metrics)?;
        }
    }
    Ok(positions)
}

fn consumer(config: &Config, isolation: Isolation, metrics: &KafkaMetrics) -> Result<Consumer, Trouble> {
    let name = format!("fraudpipeline-mirror-{}-positions", config.origin);
    let options = ConsumerOptions { isolation, ..ConsumerOptions::new(&name, &name) };
    let mut client = options.client_config(&config.target).map_err(|error| trouble::of_config(Side::Target, &error))?;
    client.set("enable.partition.eof", "true");
    client.create_with_context(kafka::Context::new(&name, metrics)).map_err(|error| trouble::of_kafka(Side::Target, error))
}

fn read_partition(
    config: &Config,
    topic: &str,
    partition: i32,
    end: i64,
    source_cluster: &str,
    positions: &mut Positions,
    metrics: &KafkaMetrics,
) -> Result<(), Trouble> {
    let failed = |error| trouble::of_kafka(Side::Target, error);
    let consumer = consumer(config, Isolation::ReadCommitted, metrics)?;
    wait_until_stable(&consumer, topic, partition, end)?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, partition, Offset::Beginning).map_err(failed)?;
    consumer.assign(&from).map_err(failed)?;
    let mut limit = Instant::now() + TIMEOUT;
    loop {
        match consumer.poll(Duration::from_millis(100)) {
            // The end of what was stable when it was fetched, and everything up to `end` was.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Ok(record)) => {
                take(&record, source_cluster, positions)?;
                limit = Instant::now() + TIMEOUT;
            }
            Some(Err(error)) => tracing::debug!(%error, "reading positions"),
            None => {}
        }
        if Instant::now() >= limit {
            return Err(Trouble::Unreachable { side: Side::Target, why: format!("{topic} could not be read to its end") });
        }
    }
}

fn wait_until_stable(consumer: &Consumer, topic: &str, partition: i32, end: i64) -> Result<(), Trouble> {
    let limit = Instant::now() + STABLE_TIMEOUT;
    loop {
        let (_, stable) = consumer.fetch_watermarks(topic, partition, TIMEOUT).map_err(|error| trouble::of_kafka(Side::Target, error))?;
        if stable >= end {
            return Ok(());
        }
        if Instant::now() >= limit {
            return Err(Trouble::Positions(format!("another mirror's transaction in {topic}, partition {partition}, stays open")));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// A record that cannot be read stops the mirror: passing over it could double what was mirrored.
fn take(record: &BorrowedMessage<'_>, source_cluster: &str, positions: &mut Positions) -> Result<(), Trouble> {
    let place = || format!("{}, partition {}, offset {}", record.topic(), record.partition(), record.offset());
    let unreadable = |error: replicator_core::position::UnreadablePosition| Trouble::Positions(format!("{}: {error}", place()));
    let text = std::str::from_utf8(record.key().unwrap_or_default()).unwrap_or_default();
    let key: PositionKey = text.parse().map_err(unreadable)?;
    if key.cluster_id != source_cluster {
        return Ok(());
    }
    // A value of none would be a deletion, which no mirror writes.
    let position = Position::from_json(record.payload().unwrap_or_default()).map_err(unreadable)?;
    positions.insert(key, position);
    Ok(())
}
