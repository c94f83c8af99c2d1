//! Writing to the target: records and positions in one transaction. Blocking: to be used on a thread of its own.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use domain::headers::Source as RecordSource;
use kafka::{
    Context, KafkaMetrics, headers,
    rdkafka::{
        ClientContext, Message, Statistics,
        config::RDKafkaLogLevel,
        error::KafkaError,
        message::BorrowedMessage,
        producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
        types::RDKafkaErrorCode,
    },
};
use replicator_core::{Position, PositionKey, Side, Trouble};

use crate::{config::Config, trouble};

/// Above every limit that a topic is likely to have: the topic's own limit decides.
const RECORD_BYTES_MAX: u32 = 64 << 20;

/// How often the end of acknowledgements is looked for. (Committing at once would wait 100 ms inside librdkafka.)
const DRAIN_POLL: Duration = Duration::from_micros(200);

pub(crate) struct Sink {
    producer: ThreadedProducer<SinkContext>,
    positions_topic: String,
    positions_partition: i32,
    commit_timeout: Duration,
}

/// Why a record is not part of the transaction.
pub(crate) enum WriteError {
    /// The client itself will not send it; the transaction is not affected.
    Refused(String),
    /// The transaction is lost.
    Trouble(Trouble),
}

impl Sink {
    /// Ends what an earlier mirror with the same transactional id left open, and keeps it from ever writing again.
    pub(crate) fn connect(config: &Config, metrics: &KafkaMetrics) -> Result<Self, Trouble> {
        let name = format!("fraudpipeline-mirror-{}", config.origin);
        let timeout = config.limits.commit_timeout;
        let mut client = config.target.client_config(&name).map_err(|error| trouble::of_config(Side::Target, &error))?;
        client
            .set("transactional.id", config.transactional_id())
            // An open transaction of a dead mirror holds back readers of committed records: not longer than needed.
            .set("transaction.timeout.ms", (timeout * 2).as_millis().to_string())
            .set("delivery.timeout.ms", timeout.as_millis().to_string())
            .set("compression.type", "lz4")
            .set("linger.ms", config.target.client.linger.as_millis().to_string())
            .set("message.max.bytes", RECORD_BYTES_MAX.to_string())
            .set("queue.buffering.max.messages", config.target.client.queued_records_max.to_string())
            .set("queue.buffering.max.kbytes", config.target.client.queued_kib_max.to_string());
        let context = SinkContext { inner: Context::new(&name, metrics), failed: Arc::default() };
        let producer: ThreadedProducer<SinkContext> =
            client.create_with_context(context).map_err(|error| trouble::of_kafka(Side::Target, error))?;
        producer.init_transactions(timeout).map_err(|error| trouble::of_kafka(Side::Target, error))?;
        Ok(Self {
            producer,
            positions_topic: config.positions_topic(),
            positions_partition: i32::try_from(config.positions_partition).unwrap_or(0),
            commit_timeout: timeout,
        })
    }

    pub(crate) fn begin(&self) -> Result<(), Trouble> {
        self.producer.begin_transaction().map_err(|error| self.trouble(error))
    }

    /// The same record under another topic: partition, key, value, headers and timestamp stay.
    pub(crate) fn write(&self, record: &BorrowedMessage<'_>, topic: &str, source: &RecordSource) -> Result<(), WriteError> {
        let make = || {
            let mut copy: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(record.partition());
            copy = copy.headers(headers::with_source(record.headers(), source));
            if let Some(key) = record.key() {
                copy = copy.key(key);
            }
            if let Some(payload) = record.payload() {
                copy = copy.payload(payload);
            }
            match record.timestamp().to_millis() {
                Some(timestamp) => copy.timestamp(timestamp),
                None => copy,
            }
        };
        self.send(make)
    }

    fn send<'a>(&self, make: impl Fn() -> BaseRecord<'a, [u8], [u8]>) -> Result<(), WriteError> {
        let limit = Instant::now() + self.commit_timeout;
        loop {
            let Err((error, _)) = self.producer.send(make()) else { return Ok(()) };
            match error.rdkafka_error_code() {
                // Backpressure: meanwhile nothing is polled, and the source's queue fills up to its own bound.
                Some(RDKafkaErrorCode::QueueFull) if Instant::now() < limit => thread::sleep(Duration::from_millis(1)),
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => return Err(WriteError::Refused(error.to_string())),
                _ => return Err(WriteError::Trouble(self.trouble(error))),
            }
        }
    }

    /// Writes the positions, waits until everything is acknowledged, and commits. After an error it is not known whether
    /// the transaction was committed: the positions tell, once they are read anew.
    pub(crate) fn commit(&self, positions: &[(PositionKey, Position)]) -> Result<(), Trouble> {
        for (key, position) in positions {
            let (key, value) = (key.to_string(), position.to_json());
            let make =
                || BaseRecord::to(&self.positions_topic).partition(self.positions_partition).key(key.as_bytes()).payload(value.as_bytes());
            self.send(make).map_err(|error| match error {
                WriteError::Refused(why) => Trouble::Refused { side: Side::Target, why },
                WriteError::Trouble(trouble) => trouble,
            })?;
        }
        self.drain()?;
        self.producer.commit_transaction(self.commit_timeout).map_err(|error| self.trouble(error))
    }

    fn drain(&self) -> Result<(), Trouble> {
        let limit = Instant::now() + self.commit_timeout;
        while self.producer.in_flight_count() > 0 {
            if let Some(error) = self.producer.context().first_failure() {
                return Err(self.trouble(error));
            }
            if Instant::now() >= limit {
                let why = format!("a transaction was not acknowledged within {} ms", self.commit_timeout.as_millis());
                return Err(Trouble::Unreachable { side: Side::Target, why });
            }
            thread::sleep(DRAIN_POLL);
        }
        match self.producer.context().first_failure() {
            Some(error) => Err(self.trouble(error)),
            None => Ok(()),
        }
    }

    /// A client that failed for good answers every call with "fatal error": what happened is asked for apart.
    fn trouble(&self, error: KafkaError) -> Trouble {
        let fatal = self.producer.client().fatal_error().and_then(|(code, why)| trouble::of_code(Side::Target, code, why));
        fatal.unwrap_or_else(|| trouble::of_kafka(Side::Target, error))
    }
}

struct SinkContext {
    inner: Context,
    failed: Arc<Mutex<Option<KafkaError>>>,
}

impl SinkContext {
    fn first_failure(&self) -> Option<KafkaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for SinkContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.inner.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.inner.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.inner.error(error, reason);
    }
}

impl ProducerContext for SinkContext {
    type DeliveryOpaque = ();

    fn delivery(&self, report: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = report {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}
