//! The log of events: writes to it, and knows which offsets they got.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use domain::{Epoch, RegionName};
use kafka::headers::RecordHeaders;
use kafka::rdkafka::error::{KafkaError, RDKafkaErrorCode};
use kafka::rdkafka::message::OwnedHeaders;
use kafka::rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use kafka::rdkafka::{ClientContext, Message};
use kafka::{KafkaConfig, TopicOutcome, TopicSpec, end_offsets, ensure_topics};
use prost::Message as _;
use scoring_core::event::Event;

pub const EVENTS: &str = "fraud.events.raw";
pub const PARTITIONS: i32 = 4;
const TOPICS: &[(&str, u32)] = &[(EVENTS, 4), ("fraud.profiles", 1), ("fraud.features", 4), ("fraud.events.dead-letter", 1)];
const FLUSHED_WITHIN: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_millis(1);

/// By partition: the offset behind the last event.
pub type Ends = BTreeMap<i32, i64>;

pub struct EventLog {
    kafka: KafkaConfig,
    producer: ThreadedProducer<Noting>,
    delivered: Arc<Mutex<Delivered>>,
    headers: OwnedHeaders,
}

/// What the broker has acknowledged.
#[derive(Default)]
struct Delivered {
    ends: Ends,
    /// By partition: events whose folding is watched, with when each was handed over.
    watched: Option<BTreeMap<i32, VecDeque<(i64, Instant)>>>,
    failure: Option<String>,
}

struct Noting(Arc<Mutex<Delivered>>);

impl ClientContext for Noting {}

impl ProducerContext for Noting {
    type DeliveryOpaque = Box<Instant>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Self::DeliveryOpaque) {
        let mut delivered = lock(&self.0);
        match result {
            Ok(record) => delivered.note(record.partition(), record.offset(), *sent),
            Err((error, _)) => delivered.failure = Some(error.to_string()),
        }
    }
}

impl Delivered {
    fn note(&mut self, partition: i32, offset: i64, sent: Instant) {
        let end = self.ends.entry(partition).or_default();
        *end = (*end).max(offset + 1);
        if let Some(watched) = &mut self.watched {
            watched.entry(partition).or_default().push_back((offset, sent));
        }
    }

    /// How long ago the oldest event was written that is not folded.
    fn oldest_unfolded(&mut self, folded: &Ends) -> Option<Duration> {
        let watched = self.watched.as_mut()?;
        for (partition, events) in watched.iter_mut() {
            let next = folded.get(partition).copied().unwrap_or_default();
            while events.front().is_some_and(|(offset, _)| *offset < next) {
                events.pop_front();
            }
        }
        watched.values().filter_map(|events| events.front()).map(|(_, sent)| sent.elapsed()).max()
    }
}

fn lock(delivered: &Mutex<Delivered>) -> MutexGuard<'_, Delivered> {
    delivered.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EventLog {
    /// Creates the topics of a region.
    ///
    /// # Errors
    /// When the broker refuses one.
    pub async fn create(kafka: &KafkaConfig, region: &RegionName) -> Result<Self> {
        let spec = |(name, partitions): &(&str, u32)| TopicSpec {
            name: (*name).to_string(),
            partitions: *partitions,
            replication: None,
            config: BTreeMap::new(),
        };
        for report in ensure_topics(kafka, &TOPICS.iter().map(spec).collect::<Vec<_>>()).await? {
            if let TopicOutcome::Failed { why } = report.outcome {
                bail!("topic {}: {why}", report.name);
            }
        }
        let delivered = Arc::new(Mutex::new(Delivered::default()));
        let mut client = kafka.client_config("bench")?;
        client.set("linger.ms", "5").set("statistics.interval.ms", "0");
        let producer = client.create_with_context(Noting(delivered.clone())).context("cannot make a producer")?;
        Ok(Self {
            kafka: kafka.clone(),
            producer,
            delivered,
            headers: RecordHeaders { epoch: Epoch(1), origin: region.clone() }.to_kafka(),
        })
    }

    /// Hands an event over. Waits, on this thread, while the client's queue is full.
    ///
    /// # Errors
    /// When the client takes no more events.
    pub fn write(&self, event: &Event, partition: i32) -> Result<()> {
        let payload = event.to_wire().encode_to_vec();
        let mut record = BaseRecord::with_opaque_to(EVENTS, Box::new(Instant::now()))
            .partition(partition)
            .key(event.transaction_id.as_bytes())
            .payload(&payload)
            .headers(self.headers.clone());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => record = again,
                Err((error, _)) => return Err(error).context("cannot write to the log"),
            }
            std::thread::sleep(PATIENCE);
        }
    }

    /// Waits for all acknowledgements, and gives the ends of the log.
    ///
    /// # Errors
    /// When an event was not acknowledged.
    pub fn flush(&self) -> Result<Ends> {
        self.producer.flush(FLUSHED_WITHIN).context("the broker did not acknowledge all events in time")?;
        let delivered = lock(&self.delivered);
        if let Some(failure) = &delivered.failure {
            bail!("an event was not acknowledged: {failure}");
        }
        ensure!(delivered.ends.len() == usize::try_from(PARTITIONS)?, "a partition has no event");
        Ok(delivered.ends.clone())
    }

    /// Where the log ends, whoever wrote into it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn ends(&self) -> Result<Ends> {
        let ends = end_offsets(&self.kafka, &[EVENTS.to_string()], FLUSHED_WITHIN).await?;
        Ok(ends.into_iter().map(|((_, partition), end)| (partition, end)).collect())
    }

    /// From now on [`EventLog::oldest_unfolded`] tells something.
    pub fn watch(&self, watches: bool) {
        lock(&self.delivered).watched = watches.then(BTreeMap::new);
    }

    /// The age of the oldest watched event that is not folded; `None` when all are.
    pub fn oldest_unfolded(&self, folded: &Ends) -> Option<Duration> {
        lock(&self.delivered).oldest_unfolded(folded)
    }
}

/// All events of a customer stand in one partition, as those of a card do.
pub fn partition_of(customer: u64) -> i32 {
    i32::try_from(customer % PARTITIONS.unsigned_abs() as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_event_that_is_not_folded_is_found_over_all_partitions() {
        let mut delivered = Delivered { watched: Some(BTreeMap::new()), ..Delivered::default() };
        let long_ago = Instant::now().checked_sub(Duration::from_secs(10)).unwrap();
        delivered.note(0, 4, long_ago);
        delivered.note(0, 5, Instant::now());
        delivered.note(1, 0, Instant::now());
        assert_eq!(delivered.ends, Ends::from([(0, 6), (1, 1)]));
        assert!(delivered.oldest_unfolded(&Ends::new()).unwrap() >= Duration::from_secs(10));
        assert!(delivered.oldest_unfolded(&Ends::from([(0, 5)])).unwrap() < Duration::from_secs(9));
        assert_eq!(delivered.oldest_unfolded(&Ends::from([(0, 6), (1, 1)])), None);
    }
}
