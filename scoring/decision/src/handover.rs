//! Where event and decision are made durable before the answer is sent.
//!
//! Both go to Kafka with acknowledgement by all in-sync replicas. What is not acknowledged inside the time that the
//! request has left is answered as `DURABILITY_NONE`; the producer goes on trying until its own delivery timeout. There
//! is no log on the pod's volume yet (issue 5), so a crash of the pod loses what Kafka had not taken.

use std::time::Duration;

use domain::{Epoch, RegionName, topics::Topic};
use kafka::{Ack, AckProducer, headers::RecordHeaders};
use prost::Message;
use proto::fraud::v1::{DecisionRecord, Event};
use scoring_core::decide::Durability;

pub enum Handover {
    Kafka(Box<KafkaLog>),
    /// Stand-alone: nothing is kept.
    Nowhere,
}

pub struct KafkaLog {
    producer: AckProducer,
    events: String,
    decisions: String,
    region: RegionName,
}

impl KafkaLog {
    pub fn new(producer: AckProducer, topic_prefix: &str, region: RegionName) -> Self {
        Self { producer, events: Topic::EventsRaw.local(topic_prefix), decisions: Topic::Decisions.local(topic_prefix), region }
    }

    fn produce(&self, topic: &str, key: &[u8], message: &impl Message, epoch: Epoch) -> Option<Ack> {
        let headers = RecordHeaders { epoch, origin: self.region.clone() };
        // The producer counts what it could not take.
        self.producer.produce(topic, key, &message.encode_to_vec(), &headers).ok()
    }
}

/// An event on its way.
pub struct Sent(Option<Ack>);

impl Handover {
    /// Sends the event; never waits. Scoring goes on meanwhile.
    pub fn send_event(&self, key: &[u8], event: &Event) -> Sent {
        match self {
            Self::Kafka(log) => Sent(log.produce(&log.events, key, event, Epoch(event.epoch))),
            Self::Nowhere => Sent(None),
        }
    }

    /// Sends the decision and waits for both acknowledgements, at most `limit`.
    pub async fn finish(&self, event: Sent, key: &[u8], decision: &DecisionRecord, limit: Duration) -> Durability {
        let Self::Kafka(log) = self else { return Durability::None };
        let decision = log.produce(&log.decisions, key, decision, Epoch(decision.epoch));
        let (Some(event), Some(decision)) = (event.0, decision) else { return Durability::None };
        match tokio::time::timeout(limit, async { tokio::try_join!(event, decision) }).await {
            Ok(Ok(_)) => Durability::Kafka,
            Ok(Err(_)) | Err(_) => Durability::None,
        }
    }

    /// Connects to the brokers and learns where the topics are; says whether that worked within the time.
    pub async fn prepare(&self, within: Duration) -> bool {
        match self {
            Self::Kafka(log) => log.producer.prepare(&[&log.events, &log.decisions], within).await.is_ok(),
            Self::Nowhere => true,
        }
    }

    /// Waits for what is still on its way; gives how many records are not acknowledged at the time limit.
    pub async fn flush(&self, within: Duration) -> usize {
        match self {
            Self::Kafka(log) => log.producer.flush(within).await,
            Self::Nowhere => 0,
        }
    }
}
