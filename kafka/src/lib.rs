//! Kafka clients as every process configures them: connection and security from a file, headers, producing with
//! acknowledgement, consuming committed records only, topics.
//!
//! librdkafka does the work. What it does blocking (metadata, flush, closing) runs here on threads of its own, so that
//! no task of an async runtime ever waits for a broker. Secrets are read from files when a client is made; they are in
//! no `Debug` output, log line or error.
#![forbid(unsafe_code)]

mod admin;
mod client;
mod config;
mod consumer;
pub mod headers;
mod producer;
#[cfg(feature = "testing")]
pub mod testing;

pub use admin::{Admin, AdminError, TopicInfo, TopicOutcome, TopicReport, TopicSpec, ensure_topics};
pub use client::{Context, Health, KafkaMetrics};
pub use config::{ClientTuning, ConfigError, KafkaConfig, SaslConfig, SaslMechanism, TlsConfig};
pub use consumer::{Consumer, ConsumerOptions, Fetch, Isolation, MissingOffset, StreamConsumer, end_offsets};
pub use producer::{Ack, AckProducer, Delivered, ProduceError};
// The types of librdkafka that callers handle, so that they need no dependency on it of their own.
pub use rdkafka;
