//! Single records of a copied log: to find out where, in the copy, the shards stand. They know only where a record was first
//! written, and offsets in a copy are others.

use std::time::{Duration, Instant};

use kafka::{
    ConfigError, Consumer, ConsumerOptions, Context, KafkaConfig, KafkaMetrics,
    rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError, message::Message as _},
};
use scoring_features::LogPartition;

use crate::{
    batch::PartitionHere,
    decode::Decoder,
    log::LogError,
    start::{Probed, behind_folded},
};

const CLIENT_ID: &str = "scoring-builder-probe";

pub(crate) struct Probe {
    consumer: Consumer,
    timeout: Duration,
}

/// A record: its offset here, where it was first written, its offset there, and up to where that has been folded.
struct Found {
    offset: i64,
    partition: LogPartition,
    written: i64,
    folded_to: Option<i64>,
}

impl Probe {
    pub(crate) fn new(config: &KafkaConfig, metrics: &KafkaMetrics, timeout: Duration) -> Result<Self, ConfigError> {
        let mut client = ConsumerOptions::new(CLIENT_ID, CLIENT_ID).client_config(config)?;
        client.set("enable.partition.eof", "true");
        Ok(Self { consumer: client.create_with_context(Context::new(CLIENT_ID, metrics))?, timeout })
    }

    /// The offset behind the last record that all shards have folded; `None` when they have folded none.
    pub(crate) fn behind_folded(
        &self,
        here: &PartitionHere,
        (low, high): (i64, i64),
        decoder: &mut Decoder,
    ) -> Result<Option<i64>, LogError> {
        behind_folded(low, high, |from| {
            let found = self.record(here, from, decoder)?;
            Ok(found.map(|found| Probed { offset: found.offset, folded: found.folded_to.is_some_and(|next| found.written < next) }))
        })
    }

    /// Where the first record from an offset on was first written, and up to where the shards have folded that.
    pub(crate) fn first(
        &self,
        here: &PartitionHere,
        from: i64,
        decoder: &mut Decoder,
    ) -> Result<Option<(LogPartition, i64, Option<i64>)>, LogError> {
        Ok(self.record(here, from, decoder)?.map(|found| (found.partition, found.written, found.folded_to)))
    }

    /// The first record from an offset on that says where it was written. Others are passed over: they will be dead letters.
    fn record(&self, here: &PartitionHere, from: i64, decoder: &mut Decoder) -> Result<Option<Found>, LogError> {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(&here.0, here.1, Offset::Offset(from))?;
        self.consumer.assign(&assignment)?;
        let until = Instant::now() + self.timeout;
        loop {
            match self.consumer.poll(until.saturating_duration_since(Instant::now())) {
                Some(Ok(record)) => {
                    if let Ok((partition, written, folded_to)) = decoder.position_of(&record) {
                        return Ok(Some(Found { offset: record.offset(), partition, written, folded_to }));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    return Err(LogError::Unreachable(KafkaError::MessageConsumption(
                        kafka::rdkafka::types::RDKafkaErrorCode::OperationTimedOut,
                    )));
                }
            }
        }
    }
}
