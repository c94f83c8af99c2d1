//! What all clients share: their log lines go to `tracing`, their statistics to metrics, their errors to [`Health`].

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicI64, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use rdkafka::{
    ClientContext, Statistics, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError, types::RDKafkaErrorCode as Code,
};

/// Which client of this process a figure belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ClientLabel {
    client: String,
}

/// Why a record was not acknowledged, for counting.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct FailureLabel {
    client: String,
    reason: &'static str,
}

/// The figures of all Kafka clients of a process. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct KafkaMetrics {
    pub(crate) acknowledged: Family<ClientLabel, Counter>,
    pub(crate) failed: Family<FailureLabel, Counter>,
    pub(crate) acknowledged_after: Family<ClientLabel, Histogram>,
    queued_records: Family<ClientLabel, Gauge>,
    queued_bytes: Family<ClientLabel, Gauge>,
    brokers_up: Family<ClientLabel, Gauge>,
    bytes_sent: Family<ClientLabel, Gauge>,
    bytes_received: Family<ClientLabel, Gauge>,
    errors: Family<ClientLabel, Counter>,
}

impl Default for KafkaMetrics {
    fn default() -> Self {
        Self {
            acknowledged: Family::default(),
            failed: Family::default(),
            // From half a millisecond to 16 s.
            acknowledged_after: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 16))),
            queued_records: Family::default(),
            queued_bytes: Family::default(),
            brokers_up: Family::default(),
            bytes_sent: Family::default(),
            bytes_received: Family::default(),
            errors: Family::default(),
        }
    }
}

impl KafkaMetrics {
    /// Metrics that `registry` shows, under names that start with `kafka_`.
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self::default();
        let kafka = registry.sub_registry_with_prefix("kafka");
        kafka.register("records_acknowledged", "Records acknowledged by all in-sync replicas", all.acknowledged.clone());
        kafka.register("records_failed", "Records refused or not acknowledged in time", all.failed.clone());
        kafka.register("acknowledgement_seconds", "Time from handing a record over to its acknowledgement", all.acknowledged_after.clone());
        kafka.register("queued_records", "Records that wait for acknowledgement", all.queued_records.clone());
        kafka.register("queued_bytes", "Bytes that wait for acknowledgement", all.queued_bytes.clone());
        kafka.register("brokers_up", "Brokers with a working connection", all.brokers_up.clone());
        kafka.register("sent_bytes", "Bytes sent to brokers since the client started", all.bytes_sent.clone());
        kafka.register("received_bytes", "Bytes received from brokers since the client started", all.bytes_received.clone());
        kafka.register("client_errors", "Errors that the client reported", all.errors.clone());
        all
    }

    fn record(&self, label: &ClientLabel, statistics: &Statistics, brokers_up: i64) {
        let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.queued_records.get_or_create(label).set(signed(statistics.msg_cnt));
        self.queued_bytes.get_or_create(label).set(signed(statistics.msg_size));
        self.brokers_up.get_or_create(label).set(brokers_up);
        self.bytes_sent.get_or_create(label).set(statistics.tx_bytes);
        self.bytes_received.get_or_create(label).set(statistics.rx_bytes);
    }
}

/// How a client's connections are, as far as it has told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Brokers with a working connection; none until the first statistics arrive.
    pub brokers_up: Option<u32>,
    /// The last error that the client reported and no later statistics contradicted.
    pub last_error: Option<String>,
}

/// The callbacks of a client. Clones share state.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) label: ClientLabel,
    pub(crate) metrics: KafkaMetrics,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// -1 until the first statistics.
    brokers_up: AtomicI64,
    last_error: Mutex<Option<String>>,
    fatal: AtomicBool,
}

impl Context {
    pub fn new(client: &str, metrics: &KafkaMetrics) -> Self {
        let shared = Shared { brokers_up: AtomicI64::new(-1), last_error: Mutex::new(None), fatal: AtomicBool::new(false) };
        Self { label: ClientLabel { client: client.to_owned() }, metrics: metrics.clone(), shared: Arc::new(shared) }
    }

    pub fn health(&self) -> Health {
        Health {
            brokers_up: u32::try_from(self.shared.brokers_up.load(Ordering::Relaxed)).ok(),
            last_error: self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Whether this client reported an error after which it must be replaced.
    pub fn is_fatal(&self) -> bool {
        self.shared.fatal.load(Ordering::Relaxed)
    }

    pub(crate) fn failure(&self, reason: &'static str) {
        self.metrics.failed.get_or_create(&FailureLabel { client: self.label.client.clone(), reason }).inc();
    }

    fn set_last_error(&self, error: Option<String>) {
        *self.shared.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let client = self.label.client.as_str();
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(client, facility, "{message}");
            }
            RDKafkaLogLevel::Warning => tracing::warn!(client, facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(client, facility, "{message}"),
            RDKafkaLogLevel::Debug => tracing::debug!(client, facility, "{message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let up = statistics.brokers.values().filter(|broker| broker.nodeid >= 0 && broker.state == "UP").count();
        let up = i64::try_from(up).unwrap_or(i64::MAX);
        self.shared.brokers_up.store(up, Ordering::Relaxed);
        if up > 0 {
            self.set_last_error(None);
        }
        self.metrics.record(&self.label, &statistics, up);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(Code::Fatal)) {
            self.shared.fatal.store(true, Ordering::Relaxed);
        }
        let client = self.label.client.as_str();
        match error.rdkafka_error_code() {
            // Asked for by whoever wants to know where a partition ends.
            Some(Code::PartitionEOF) => return,
            // The client's own log has told it already, and tells it less often.
            Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut) => {
                tracing::debug!(client, %error, reason, "Kafka client reported an error");
            }
            _ => tracing::warn!(client, %error, reason, "Kafka client reported an error"),
        }
        self.metrics.errors.get_or_create(&self.label).inc();
        self.set_last_error(Some(format!("{error}: {reason}")));
    }
}

impl ConsumerContext for Context {}
