//! Reading the origin: committed records only, from positions that were chosen, and an error instead of a skip when an
//! offset is gone. Bounded: librdkafka stops fetching a partition whose queue is full.

use std::time::Duration;

use kafka::{
    Consumer, ConsumerOptions, Fetch, KafkaMetrics,
    rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError, message::BorrowedMessage},
};
use replicator_core::{Side, Trouble};

use crate::{config::Config, trouble};

const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Source {
    consumer: Consumer,
}

impl Source {
    pub(crate) fn connect(config: &Config, metrics: &KafkaMetrics) -> Result<Self, Trouble> {
        let name = format!("fraudpipeline-mirror-{}-to-{}", config.origin, config.region);
        let options =
            ConsumerOptions { queued_kib_max: config.limits.queued_kib_max, fetch: Fetch::Batched, ..ConsumerOptions::new(&name, &name) };
        let consumer = options.consumer(&config.source, metrics).map_err(|error| trouble::of_config(Side::Source, &error))?;
        Ok(Self { consumer })
    }

    pub(crate) fn poll(&self, timeout: Duration) -> Option<Result<BorrowedMessage<'_>, KafkaError>> {
        self.consumer.poll(timeout)
    }

    pub(crate) fn read(&self, topic: &str, partition: i32, from: i64) -> Result<(), Trouble> {
        let mut added = TopicPartitionList::new();
        let assigned = added.add_partition_offset(topic, partition, Offset::Offset(from));
        // A partition that is read already (its start had moved) is read from the new place.
        let known = self.consumer.assignment().is_ok_and(|all| all.find_partition(topic, partition).is_some());
        let assigned = assigned.and_then(|()| if known { self.consumer.incremental_unassign(&added) } else { Ok(()) });
        assigned.and_then(|()| self.consumer.incremental_assign(&added)).map_err(|error| trouble::of_kafka(Side::Source, error))
    }

    pub(crate) fn stop_reading(&self, topic: &str, partition: i32) -> Result<(), Trouble> {
        let mut stopped = TopicPartitionList::new();
        stopped.add_partition(topic, partition);
        self.consumer.incremental_unassign(&stopped).map_err(|error| trouble::of_kafka(Side::Source, error))
    }

    /// First offset and committed end of a partition.
    pub(crate) fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), Trouble> {
        self.consumer.fetch_watermarks(topic, partition, TIMEOUT).map_err(|error| trouble::of_kafka(Side::Source, error))
    }

    /// The partitions that are being read.
    pub(crate) fn reading(&self) -> Vec<(String, i32)> {
        let assignment = self.consumer.assignment().unwrap_or_default();
        assignment.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect()
    }
}
