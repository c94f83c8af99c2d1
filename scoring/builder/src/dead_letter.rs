//! Records that are no events: to a topic of their own, as they were, with where they came from and what is wrong.

use std::time::Duration;

use domain::headers::Source;
use kafka::{
    ConfigError, KafkaConfig,
    rdkafka::{
        error::KafkaError,
        message::{Header, Headers, Message, OwnedHeaders},
        producer::{FutureProducer, FutureRecord},
    },
};

use crate::batch::DeadLetter;

/// `CLUSTER/TOPIC/PARTITION/OFFSET` of the log from which the record was read.
pub(crate) const COORDINATES: &str = "fp-dead-coordinates";
/// Why it could not be read: names of fields, never their content.
pub(crate) const REASON: &str = "fp-dead-reason";

pub(crate) struct DeadLetters {
    topic: String,
    producer: FutureProducer,
    timeout: Duration,
}

impl DeadLetters {
    pub(crate) fn new(config: &KafkaConfig, client_id: &str, topic: String, timeout: Duration) -> Result<Self, ConfigError> {
        let mut client = config.client_config(client_id)?;
        // Without a context of its own this producer would write its statistics to the log.
        client
            .set("statistics.interval.ms", "0")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", timeout.as_millis().to_string());
        Ok(Self { topic, producer: client.create()?, timeout })
    }

    /// Returns when all in-sync replicas have the record.
    pub(crate) async fn hand_over(&self, dead: &DeadLetter, coordinates: &Source) -> Result<(), KafkaError> {
        let record = &dead.record;
        let mut headers = OwnedHeaders::new();
        for header in record.headers().into_iter().flat_map(Headers::iter) {
            headers = headers.insert(header);
        }
        headers = headers
            .insert(Header { key: COORDINATES, value: Some(&coordinates.to_string()) })
            .insert(Header { key: REASON, value: Some(&dead.reason) });
        let mut letter = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        letter.key = record.key();
        letter.payload = record.payload();
        letter.timestamp = record.timestamp().to_millis();
        self.producer.send(letter, self.timeout).await.map(|_| ()).map_err(|(error, _)| error)
    }
}
