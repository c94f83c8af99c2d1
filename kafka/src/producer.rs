//! A producer whose every record is acknowledged by all in-sync replicas, or reported as failed. Bounded: a full queue is
//! an error at once, never a wait.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message, Statistics,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::OwnedHeaders,
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};
use tokio::sync::oneshot;

use crate::{
    client::{Context, Health, KafkaMetrics},
    config::{ConfigError, KafkaConfig},
    headers::RecordHeaders,
};

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    pub partition: i32,
    pub offset: i64,
}

/// Why a record is not, or not known to be, in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// Nothing was queued: the caller still has the record and may try again.
    #[error("queue of records that wait for acknowledgement is full")]
    QueueFull,
    #[error("record is larger than the broker or the client allows")]
    TooLarge,
    /// It may or may not have been written.
    #[error("not acknowledged within the delivery timeout")]
    TimedOut,
    #[error("refused by Kafka: {0}")]
    Refused(String),
    #[error("producer was closed before the record was acknowledged")]
    Closed,
}

impl ProduceError {
    fn reason(&self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timed_out",
            Self::Refused(_) => "refused",
            Self::Closed => "closed",
        }
    }
}

impl From<&KafkaError> for ProduceError {
    fn from(error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Self::QueueFull,
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => Self::TooLarge,
            Some(RDKafkaErrorCode::MessageTimedOut) => Self::TimedOut,
            Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => Self::Closed,
            _ => Self::Refused(error.to_string()),
        }
    }
}

/// Resolves when the record is acknowledged or has failed. Dropping it does not take the record back.
#[derive(Debug)]
pub struct Ack(oneshot::Receiver<Result<Delivered, ProduceError>>);

impl Future for Ack {
    type Output = Result<Delivered, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(ProduceError::Closed)))
    }
}

type Native = ThreadedProducer<AckContext>;

/// Idempotent, `acks=all`, lz4, keys partitioned as the Java client does. Cheap to share behind an `Arc`.
pub struct AckProducer {
    config: KafkaConfig,
    client_id: String,
    metrics: KafkaMetrics,
    /// Replaced when the client has failed for good (an idempotent producer may). None only while it is being dropped.
    current: RwLock<Option<Arc<Native>>>,
}

impl AckProducer {
    /// Connects in the background: brokers that are away make records wait, and fail after the delivery timeout.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &KafkaConfig, client_id: &str, metrics: &KafkaMetrics) -> Result<Self, ConfigError> {
        let current = RwLock::new(Some(Arc::new(connect(config, client_id, metrics)?)));
        Ok(Self { config: config.clone(), client_id: client_id.to_owned(), metrics: metrics.clone(), current })
    }

    /// Queues a record. Never waits.
    ///
    /// # Errors
    /// When it could not be queued; then it is certain that it was not and will not be written.
    pub fn produce(&self, topic: &str, key: &[u8], payload: &[u8], headers: &RecordHeaders) -> Result<Ack, ProduceError> {
        self.send(|pending| BaseRecord::with_opaque_to(topic, pending).key(key).payload(payload).headers(headers.to_kafka()))
    }

    /// As [`AckProducer::produce`], to one partition, without a key.
    ///
    /// # Errors
    /// As [`AckProducer::produce`].
    pub fn produce_to(&self, topic: &str, partition: i32, payload: &[u8], headers: OwnedHeaders) -> Result<Ack, ProduceError> {
        self.send(|pending| BaseRecord::with_opaque_to(topic, pending).partition(partition).payload(payload).headers(headers))
    }

    fn send<'a>(&self, record: impl FnOnce(Box<Pending>) -> BaseRecord<'a, [u8], [u8], Box<Pending>>) -> Result<Ack, ProduceError> {
        let producer = self.usable().ok_or(ProduceError::Closed)?;
        let (sender, receiver) = oneshot::channel();
        let pending = Box::new(Pending { sender, sent_at: Instant::now() });
        match producer.send(record(pending)) {
            Ok(()) => Ok(Ack(receiver)),
            Err((error, _)) => {
                let refused = ProduceError::from(&error);
                producer.context().0.failure(refused.reason());
                Err(refused)
            }
        }
    }

    /// Connects, and learns the partitions of these topics, so that the first record need not wait for that.
    ///
    /// # Errors
    /// When the brokers do not answer in time. Records can be queued all the same.
    pub async fn prepare(&self, topics: &[&str], within: Duration) -> Result<(), ProduceError> {
        let producer = self.usable().ok_or(ProduceError::Closed)?;
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let deadline = Instant::now() + within;
        let asked = tokio::task::spawn_blocking(move || {
            topics.iter().try_for_each(|topic| {
                let left = deadline.saturating_duration_since(Instant::now());
                producer.client().fetch_metadata(Some(topic), left).map(drop).map_err(|error| ProduceError::from(&error))
            })
        });
        asked.await.unwrap_or(Err(ProduceError::Closed))
    }

    /// Records that wait for acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.current().map_or(0, |producer| in_flight(&producer))
    }

    pub fn health(&self) -> Health {
        self.current().map_or(Health { brokers_up: None, last_error: None }, |producer| producer.context().0.health())
    }

    /// Waits until all queued records are acknowledged or have failed; gives how many are still open at the time limit.
    pub async fn flush(&self, within: Duration) -> usize {
        let Some(producer) = self.current() else { return 0 };
        let open = tokio::task::spawn_blocking(move || match producer.flush(within) {
            Ok(()) => 0,
            Err(_) => in_flight(&producer),
        });
        open.await.unwrap_or(0)
    }

    fn current(&self) -> Option<Arc<Native>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn usable(&self) -> Option<Arc<Native>> {
        let failed = |producer: &Option<Arc<Native>>| producer.as_ref().is_some_and(|producer| producer.context().0.is_fatal());
        let producer = self.current();
        if !failed(&producer) {
            return producer;
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if failed(&current) {
            match connect(&self.config, &self.client_id, &self.metrics) {
                Ok(fresh) => {
                    tracing::warn!(client = self.client_id, "Kafka producer failed for good and was replaced");
                    close_in_background(current.replace(Arc::new(fresh)));
                }
                Err(error) => tracing::error!(client = self.client_id, %error, "Kafka producer failed for good and cannot be replaced"),
            }
        }
        current.clone()
    }
}

impl Drop for AckProducer {
    fn drop(&mut self) {
        close_in_background(self.current.get_mut().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl std::fmt::Debug for AckProducer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AckProducer").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// Closing joins threads of the client, which must not happen on a thread of an async runtime. What is still queued is
/// given up: callers that care call [`AckProducer::flush`] first.
fn close_in_background(producer: Option<Arc<Native>>) {
    // When no thread can be made, the client is closed right here: slower, and still closed.
    let _ = std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(producer));
}

fn in_flight(producer: &Native) -> usize {
    usize::try_from(producer.in_flight_count()).unwrap_or(0)
}

fn connect(config: &KafkaConfig, client_id: &str, metrics: &KafkaMetrics) -> Result<Native, ConfigError> {
    let tuning = &config.client;
    let mut client = config.client_config(client_id)?;
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("partitioner", "murmur2_random")
        .set("linger.ms", tuning.linger.as_millis().to_string())
        .set("delivery.timeout.ms", tuning.delivery_timeout.as_millis().to_string())
        .set("queue.buffering.max.messages", tuning.queued_records_max.to_string())
        .set("queue.buffering.max.kbytes", tuning.queued_kib_max.to_string());
    Ok(client.create_with_context(AckContext(Context::new(client_id, metrics)))?)
}

/// What travels with a record until its delivery report.
struct Pending {
    sender: oneshot::Sender<Result<Delivered, ProduceError>>,
    sent_at: Instant,
}

struct AckContext(Context);

impl ClientContext for AckContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for AckContext {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, report: &DeliveryResult<'_>, pending: Box<Pending>) {
        let context = &self.0;
        let answer = match report {
            Ok(message) => {
                context.metrics.acknowledged.get_or_create(&context.label).inc();
                context.metrics.acknowledged_after.get_or_create(&context.label).observe(pending.sent_at.elapsed().as_secs_f64());
                Ok(Delivered { partition: message.partition(), offset: message.offset() })
            }
            Err((error, _)) => {
                let failed = ProduceError::from(error);
                context.failure(failed.reason());
                Err(failed)
            }
        };
        // The caller may have given up waiting; the record is written all the same.
        let _ = pending.sender.send(answer);
    }
}
