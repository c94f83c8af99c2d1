//! Reading the logs: which partitions there are, where to begin, the records, and where the logs end.
//!
//! Partitions are assigned by hand: where to begin is known by the shards and not by Kafka.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kafka::{
    ConfigError, ConsumerOptions, Fetch, KafkaMetrics, StreamConsumer,
    rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError, message::OwnedMessage},
};
use tokio::time::Instant;

use crate::{
    batch::{PartitionHere, Reader},
    config::{Config, Log},
    metrics::Metrics,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("Kafka did not answer: {0}")]
    Unreachable(#[from] KafkaError),
    #[error("Kafka has none of the topics {0}: the operator creates them, is the topic prefix right?")]
    NoTopics(String),
    #[error("interrupted: the process is shutting down")]
    Interrupted,
}

/// A consumer of all partitions of all logs that exist.
pub(crate) struct Logs {
    consumer: Option<Arc<StreamConsumer>>,
    /// Where each partition was begun.
    pub(crate) starts: BTreeMap<PartitionHere, i64>,
    timeout: Duration,
}

/// Where reading of a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Start {
    offset: i64,
    /// The position that the shards hold is outside of the log: retention overtook it, or the topic was made anew.
    lost: bool,
}

/// Without a usable position, from the oldest record that a window can still need: folding it anew restores the sets.
fn start(position: Option<i64>, (low, high): (i64, i64), oldest_needed: Option<i64>) -> Start {
    let anew = oldest_needed.unwrap_or(high).clamp(low, high.max(low));
    match position {
        Some(position) if (low..=high).contains(&position) => Start { offset: position, lost: false },
        Some(_) => Start { offset: anew, lost: true },
        None => Start { offset: anew, lost: false },
    }
}

impl Logs {
    /// Finds the partitions, decides where to begin, and begins.
    pub(crate) async fn open(
        config: &Config,
        reader: &Reader,
        kafka_metrics: &KafkaMetrics,
        metrics: &Metrics,
        oldest_needed_ms: i64,
    ) -> Result<Self, LogError> {
        let client_id = format!("scoring-builder-{}", config.pipeline);
        let mut options = ConsumerOptions::new(&client_id, &client_id);
        options.queued_kib_max = config.limits.queued_kib_max;
        options.fetch = Fetch::Batched;
        let consumer = Arc::new(options.stream(&config.kafka, kafka_metrics)?);
        let mut logs = Self { consumer: Some(consumer), starts: BTreeMap::new(), timeout: config.limits.kafka_timeout };
        let (names, timeout, reader) = (config.logs(), logs.timeout, reader.clone());
        let starts = logs.blocking(move |consumer| starts(consumer, &names, &reader, oldest_needed_ms, timeout)).await?;
        let mut assignment = TopicPartitionList::with_capacity(starts.len());
        for ((topic, partition), start) in &starts {
            assignment.add_partition_offset(topic, *partition, Offset::Offset(start.offset))?;
            tracing::info!(topic, partition, offset = start.offset, position_lost = start.lost, "folding from");
            if start.lost {
                metrics.position_lost();
            }
        }
        logs.consumer()?.assign(&assignment)?;
        logs.starts = starts.into_iter().map(|(partition, start)| (partition, start.offset)).collect();
        Ok(logs)
    }

    /// The next records: at most `records_max` of them, until `wait` after the first one, or none after `idle`.
    pub(crate) async fn next(&self, records_max: usize, wait: Duration, idle: Duration) -> Result<Vec<OwnedMessage>, LogError> {
        let consumer = self.consumer()?;
        let mut records = Vec::new();
        let mut until = Instant::now() + idle;
        while records.len() < records_max {
            match tokio::time::timeout_at(until, consumer.recv()).await {
                Ok(record) => records.push(record?.detach()),
                Err(_) => break,
            }
            if records.len() == 1 {
                until = Instant::now() + wait;
            }
        }
        Ok(records)
    }

    /// A handle with which the ends of the logs can be measured beside reading.
    pub(crate) fn ends(&self) -> Result<Ends, LogError> {
        Ok(Ends { logs: Self { consumer: Some(self.consumer()?.clone()), starts: self.starts.clone(), timeout: self.timeout } })
    }

    fn consumer(&self) -> Result<&Arc<StreamConsumer>, LogError> {
        self.consumer.as_ref().ok_or(LogError::Interrupted)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        question: impl FnOnce(&StreamConsumer) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let consumer = self.consumer()?.clone();
        tokio::task::spawn_blocking(move || question(&consumer)).await.map_err(|_| LogError::Interrupted)?
    }
}

impl Drop for Logs {
    /// The last handle closes the consumer, which waits for its threads: not on a thread of the runtime.
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(consumer));
        }
    }
}

/// Measures where the logs end.
pub(crate) struct Ends {
    logs: Logs,
}

/// What one look at the logs found.
pub(crate) struct Seen {
    /// The committed end of each partition that is read.
    pub(crate) ends: BTreeMap<PartitionHere, i64>,
    /// There are partitions that are not read: a log was created, or grew.
    pub(crate) new_partitions: bool,
}

impl Ends {
    pub(crate) async fn measure(&self, logs: Vec<Log>) -> Result<Seen, LogError> {
        let (read, timeout) = (self.logs.starts.clone(), self.logs.timeout);
        let look = move |consumer: &StreamConsumer| {
            let present = partitions(consumer, &logs, timeout)?;
            let new_partitions = present.iter().any(|partition| !read.contains_key(partition));
            let mut ends = BTreeMap::new();
            for (topic, partition) in read.into_keys() {
                let (_, end) = consumer.fetch_watermarks(&topic, partition, timeout)?;
                ends.insert((topic, partition), end);
            }
            Ok(Seen { ends, new_partitions })
        };
        self.logs.blocking(look).await
    }
}

fn partitions(consumer: &StreamConsumer, logs: &[Log], timeout: Duration) -> Result<Vec<PartitionHere>, LogError> {
    // All topics: asking for one that does not exist is an error to some brokers.
    let metadata = consumer.fetch_metadata(None, timeout)?;
    let ours = metadata.topics().iter().filter(|topic| topic.error().is_none() && logs.iter().any(|log| log.topic == topic.name()));
    Ok(ours.flat_map(|topic| topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id()))).collect())
}

fn starts(
    consumer: &StreamConsumer,
    logs: &[Log],
    reader: &Reader,
    oldest_needed_ms: i64,
    timeout: Duration,
) -> Result<BTreeMap<PartitionHere, Start>, LogError> {
    let present = partitions(consumer, logs, timeout)?;
    if present.is_empty() {
        return Err(LogError::NoTopics(logs.iter().map(|log| log.topic.as_str()).collect::<Vec<_>>().join(", ")));
    }
    let mut by_time = TopicPartitionList::with_capacity(present.len());
    for (topic, partition) in &present {
        by_time.add_partition_offset(topic, *partition, Offset::Offset(oldest_needed_ms))?;
    }
    let by_time = consumer.offsets_for_times(by_time, timeout)?;
    let mut starts = BTreeMap::new();
    for (topic, partition) in present {
        let watermarks = consumer.fetch_watermarks(&topic, partition, timeout)?;
        let oldest_needed = match by_time.find_partition(&topic, partition).map(|found| found.offset()) {
            Some(Offset::Offset(offset)) => Some(offset),
            // No record is as young as that: begin at the end.
            _ => None,
        };
        let begin = start(reader.position_of(&topic, partition), watermarks, oldest_needed);
        starts.insert((topic, partition), begin);
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_resumed_at_the_position_of_the_shards() {
        assert_eq!(start(Some(50), (10, 100), Some(20)), Start { offset: 50, lost: false });
        assert_eq!(start(Some(100), (10, 100), Some(20)), Start { offset: 100, lost: false });
    }

    #[test]
    fn a_partition_that_no_shard_knows_is_read_from_the_oldest_record_that_a_window_needs() {
        assert_eq!(start(None, (10, 100), Some(20)), Start { offset: 20, lost: false });
        assert_eq!(start(None, (10, 100), None), Start { offset: 100, lost: false });
        assert_eq!(start(None, (10, 100), Some(5)), Start { offset: 10, lost: false });
        assert_eq!(start(None, (0, 0), None), Start { offset: 0, lost: false });
    }

    #[test]
    fn a_position_outside_of_the_log_is_told_and_the_windows_are_folded_anew() {
        assert_eq!(start(Some(5), (10, 100), Some(20)), Start { offset: 20, lost: true });
        assert_eq!(start(Some(500), (0, 3), Some(0)), Start { offset: 0, lost: true });
    }
}
