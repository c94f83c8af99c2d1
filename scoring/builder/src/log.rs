//! Reading the logs: which partitions there are, where to begin, the records, and where the logs end.
//!
//! Partitions are assigned by hand: where to begin is known by the shards and not by Kafka. A thread of its own reads and
//! decodes, and hands batches over through a channel with room for one: while the shards are slow it waits there, the client's
//! own bounded queues fill up, and it fetches no more.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kafka::{
    ConfigError, Consumer, ConsumerOptions, Fetch, KafkaMetrics,
    rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError},
};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    batch::{Batch, PartitionHere},
    clock::now_ms,
    config::{Config, Limits, Log},
    decode::Decoder,
    probe::Probe,
    start::{Bounds, Gap, Start},
};

/// How long one look for records takes at most.
const POLL: Duration = Duration::from_millis(100);
/// How long heartbeats wait for company: nobody's decision depends on them.
const QUIET_WAIT: Duration = Duration::from_millis(100);
/// Batches that wait to be folded, beside the one that is being decoded.
const BATCHES_QUEUED: usize = 1;

#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("Kafka did not answer: {0}")]
    Unreachable(#[from] KafkaError),
    #[error("Kafka has none of the topics {0}: the operator creates them, is the topic prefix right?")]
    NoTopics(String),
    #[error(
        "{topic}/{partition} {gap}. Restore the shards from the snapshot, or accept the loss with: HDEL fp:vector {entry} (on every shard)"
    )]
    Gap { topic: String, partition: i32, gap: Gap, entry: String },
    #[error("the thread that reads the logs ended")]
    Ended,
    #[error("interrupted: the process is shutting down")]
    Interrupted,
}

/// Partitions that are read, with where they are begun.
pub(crate) struct Opened {
    pub(crate) starts: BTreeMap<PartitionHere, Start>,
    pub(crate) ends: Ends,
    pub(crate) batches: mpsc::Receiver<Result<Batch, LogError>>,
}

/// Where to begin.
pub(crate) enum From {
    /// Where the shards stand, or from the oldest record that is needed at this time.
    Folded { oldest_needed_ms: i64 },
    /// At the end.
    End,
}

/// Finds the partitions, decides where to begin, and begins.
pub(crate) async fn open(config: &Config, decoder: Decoder, kafka_metrics: &KafkaMetrics, from: From) -> Result<Opened, LogError> {
    let client_id = format!("scoring-builder-{}", config.pipeline);
    let mut options = ConsumerOptions::new(&client_id, &client_id);
    options.queued_kib_max = config.limits.queued_kib_max;
    options.fetch = Fetch::Batched;
    let consumer = Handle(Some(Arc::new(options.consumer(&config.kafka, kafka_metrics)?)));
    let timeout = config.limits.kafka_timeout;
    let (kafka, metrics) = (config.kafka.clone(), kafka_metrics.clone());
    let question = move |consumer: &Consumer| {
        let mut decoder = decoder;
        let present = partitions(consumer, decoder.logs(), timeout)?;
        let starts = match from {
            From::End => present.into_iter().map(|partition| at_end(consumer, partition, timeout)).collect::<Result<_, _>>()?,
            From::Folded { oldest_needed_ms } => {
                let probe = Probe::new(&kafka, &metrics, timeout)?;
                Starts { consumer, probe, decoder: &mut decoder, timeout }.find(present, oldest_needed_ms)?
            }
        };
        Ok((decoder, starts))
    };
    let (decoder, starts): (Decoder, BTreeMap<PartitionHere, Start>) = consumer.ask(question).await?;
    let mut assignment = TopicPartitionList::with_capacity(starts.len());
    for ((topic, partition), start) in &starts {
        assignment.add_partition_offset(topic, *partition, Offset::Offset(start.offset))?;
        tracing::info!(topic, partition, offset = start.offset, expired = start.expired, "reading from");
    }
    consumer.get()?.assign(&assignment)?;
    let (sender, batches) = mpsc::channel(BATCHES_QUEUED);
    let reader = Reader { consumer: consumer.clone(), decoder, limits: config.limits.clone(), sender };
    std::thread::Builder::new().name("log-reader".into()).spawn(|| reader.run()).map_err(|_| LogError::Ended)?;
    Ok(Opened { ends: Ends { consumer, read: starts.keys().cloned().collect(), timeout }, starts, batches })
}

/// The thread that reads.
struct Reader {
    consumer: Handle,
    decoder: Decoder,
    limits: Limits,
    sender: mpsc::Sender<Result<Batch, LogError>>,
}

impl Reader {
    fn run(mut self) {
        if let Err(error) = self.read() {
            // Nobody listens any more: then nobody needs to know.
            let _ = self.sender.blocking_send(Err(error));
        }
    }

    /// Ends when nobody listens any more.
    fn read(&mut self) -> Result<(), LogError> {
        let consumer = self.consumer.get()?.clone();
        while !self.sender.is_closed() {
            let batch = self.next(&consumer)?;
            if batch.records > 0 && self.sender.blocking_send(Ok(batch)).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// The next batch: when it is full, or a short while after the first record that somebody may wait for. Empty after a
    /// while without records.
    fn next(&mut self, consumer: &Consumer) -> Result<Batch, LogError> {
        let mut until = Instant::now() + POLL;
        let (mut begun, mut urgent) = (false, false);
        while self.decoder.records() < self.limits.batch_records_max {
            let left = until.saturating_duration_since(Instant::now());
            let record = consumer.poll(left).transpose()?;
            let Some(record) = record else { break };
            self.decoder.take(&record, now_ms());
            if !begun {
                (begun, until) = (true, Instant::now() + QUIET_WAIT);
            }
            if !urgent && self.decoder.is_urgent() {
                (urgent, until) = (true, Instant::now() + self.limits.batch_wait);
            }
            if Instant::now() >= until {
                break;
            }
        }
        Ok(self.decoder.batch())
    }
}

/// The consumer, which several share. Whoever drops it last closes it, which waits for its threads: not on a thread of the
/// runtime.
#[derive(Clone)]
struct Handle(Option<Arc<Consumer>>);

impl Handle {
    fn get(&self) -> Result<&Arc<Consumer>, LogError> {
        self.0.as_ref().ok_or(LogError::Interrupted)
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Consumer) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let consumer = self.clone();
        tokio::task::spawn_blocking(move || question(consumer.get()?)).await.map_err(|_| LogError::Interrupted)?
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(consumer) = self.0.take().and_then(Arc::into_inner) {
            let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(consumer));
        }
    }
}

/// Measures where the logs end.
pub(crate) struct Ends {
    consumer: Handle,
    read: Vec<PartitionHere>,
    timeout: Duration,
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
        let (read, timeout) = (self.read.clone(), self.timeout);
        let look = move |consumer: &Consumer| {
            let present = partitions(consumer, &logs, timeout)?;
            let new_partitions = present.iter().any(|partition| !read.contains(partition));
            let mut ends = BTreeMap::new();
            for (topic, partition) in read {
                let (_, end) = consumer.fetch_watermarks(&topic, partition, timeout)?;
                ends.insert((topic, partition), end);
            }
            Ok(Seen { ends, new_partitions })
        };
        self.consumer.ask(look).await
    }
}

fn partitions(consumer: &Consumer, logs: &[Log], timeout: Duration) -> Result<Vec<PartitionHere>, LogError> {
    // All topics: asking for one that does not exist is an error to some brokers.
    let metadata = consumer.fetch_metadata(None, timeout)?;
    let ours = metadata.topics().iter().filter(|topic| topic.error().is_none() && logs.iter().any(|log| log.topic == topic.name()));
    let present: Vec<PartitionHere> =
        ours.flat_map(|topic| topic.partitions().iter().map(|partition| (topic.name().to_owned(), partition.id()))).collect();
    if present.is_empty() {
        return Err(LogError::NoTopics(logs.iter().map(|log| log.topic.as_str()).collect::<Vec<_>>().join(", ")));
    }
    Ok(present)
}

fn at_end(consumer: &Consumer, partition: PartitionHere, timeout: Duration) -> Result<(PartitionHere, Start), LogError> {
    let (_, high) = consumer.fetch_watermarks(&partition.0, partition.1, timeout)?;
    Ok((partition, Start { offset: high, expired: 0 }))
}

/// Decides where to begin.
struct Starts<'a> {
    consumer: &'a Consumer,
    probe: Probe,
    decoder: &'a mut Decoder,
    timeout: Duration,
}

impl Starts<'_> {
    fn find(mut self, present: Vec<PartitionHere>, oldest_needed_ms: i64) -> Result<BTreeMap<PartitionHere, Start>, LogError> {
        // Before it is asked which records are young enough: a partition that has none then has none before this end. The other
        // way round, records that were written in between would be passed over.
        let mut watermarks = Vec::with_capacity(present.len());
        for (topic, partition) in &present {
            watermarks.push(self.consumer.fetch_watermarks(topic, *partition, self.timeout)?);
        }
        let mut by_time = TopicPartitionList::with_capacity(present.len());
        for (topic, partition) in &present {
            by_time.add_partition_offset(topic, *partition, Offset::Offset(oldest_needed_ms))?;
        }
        let by_time = self.consumer.offsets_for_times(by_time, self.timeout)?;
        let mut starts = BTreeMap::new();
        for (here, (low, high)) in present.into_iter().zip(watermarks) {
            let needed = match by_time.find_partition(&here.0, here.1).map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => Some(offset),
                // No record is as young as that.
                _ => None,
            };
            let start = self.start(&here, Bounds { low, high, needed })?;
            starts.insert(here, start);
        }
        Ok(starts)
    }

    fn start(&mut self, here: &PartitionHere, bounds: Bounds) -> Result<Start, LogError> {
        let Some(log) = self.decoder.logs().iter().find(|log| log.topic == here.0).cloned() else { return Err(LogError::Ended) };
        let gap = |gap, entry: &scoring_features::LogPartition| LogError::Gap {
            topic: here.0.clone(),
            partition: here.1,
            gap,
            entry: entry.to_string(),
        };
        if !log.mirrored {
            let (partition, position) = self.decoder.own_position(&here.0, here.1);
            let start = bounds.start(position, log.holds).map_err(|found| gap(found, &partition))?;
            if start.expired > 0 {
                self.decoder.skips(&partition);
            }
            return Ok(start);
        }
        if let Some(offset) = self.probe.behind_folded(here, (bounds.low, bounds.high), self.decoder)? {
            return Ok(Start { offset, expired: 0 });
        }
        // Nothing in it is folded.
        let Some((partition, written, position)) = self.probe.first(here, bounds.low, self.decoder)? else {
            return Ok(Start { offset: bounds.low, expired: 0 });
        };
        let start = bounds.start_of_copy((written, position), log.holds).map_err(|found| gap(found, &partition))?;
        if start.expired > 0 {
            self.decoder.skips(&partition);
        }
        Ok(start)
    }
}
