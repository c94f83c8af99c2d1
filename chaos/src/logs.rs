//! Reads the logs of a region from their first to their last committed record, with a plain consumer.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use domain::{RegionName, headers::HEARTBEAT};
use prost::Message as _;
use proto::fraud::v1::{DecisionRecord, Event};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};

const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
/// A log that gives nothing for this long, although its end was not reached, cannot be read.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How often each transaction id stands in a log.
pub type Counts = BTreeMap<String, u32>;

/// A region's Kafka, given as `us-east=198.18.0.1:9092`.
#[derive(Debug, Clone)]
pub struct RegionLogs {
    pub region: RegionName,
    pub bootstrap: String,
}

impl FromStr for RegionLogs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (region, bootstrap) = text.split_once('=').ok_or("write REGION=HOST:PORT, such as us-east=198.18.0.1:9092")?;
        let region = RegionName::new(region).map_err(|error| error.to_string())?;
        Ok(Self { region, bootstrap: bootstrap.to_owned() })
    }
}

impl fmt::Display for RegionLogs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.region, self.bootstrap)
    }
}

/// What the records of a topic are.
#[derive(Debug, Clone, Copy)]
pub enum Records {
    Events,
    Decisions,
}

impl Records {
    /// `None` for a heartbeat in a log of events, which is nobody's transaction.
    fn transaction_id(self, record: &impl Message) -> Result<Option<String>, prost::DecodeError> {
        let payload = record.payload().unwrap_or_default();
        match self {
            Self::Events if is_heartbeat(record) => Ok(None),
            Self::Events => Event::decode(payload).map(|event| Some(event.transaction_id)),
            Self::Decisions => DecisionRecord::decode(payload).map(|decision| Some(decision.transaction_id)),
        }
    }
}

fn is_heartbeat(record: &impl Message) -> bool {
    record.headers().into_iter().flat_map(Headers::iter).any(|header| header.key == HEARTBEAT)
}

/// Reads all of `topic` up to the ends that it has when this is called.
///
/// # Errors
/// When the broker cannot be reached, the topic does not exist, or a record cannot be decoded.
pub fn count(logs: &RegionLogs, topic: &str, records: Records) -> anyhow::Result<Counts> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &logs.bootstrap)
        .set("group.id", "fraud-audit")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .create()?;
    let ends = ends(&consumer, topic).with_context(|| format!("{}: topic {topic}", logs.region))?;
    let mut remaining = TopicPartitionList::new();
    for &partition in ends.keys() {
        remaining.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&remaining)?;
    read_to(&consumer, ends, records).with_context(|| format!("{}: topic {topic}", logs.region))
}

/// Partitions that hold something, with the offset after their last record.
fn ends(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<BTreeMap<i32, i64>> {
    let metadata = consumer.fetch_metadata(Some(topic), METADATA_TIMEOUT).context("the broker does not answer")?;
    let partitions = metadata.topics().first().map(|found| found.partitions()).unwrap_or_default();
    ensure!(!partitions.is_empty(), "the topic does not exist");
    let mut ends = BTreeMap::new();
    for partition in partitions {
        let (first, end) = consumer.fetch_watermarks(topic, partition.id(), METADATA_TIMEOUT)?;
        if first < end {
            ends.insert(partition.id(), end);
        }
    }
    Ok(ends)
}

fn read_to(consumer: &BaseConsumer, mut ends: BTreeMap<i32, i64>, records: Records) -> anyhow::Result<Counts> {
    let mut counts = Counts::new();
    let mut last_record = Instant::now();
    while !ends.is_empty() {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                last_record = Instant::now();
                let id = records
                    .transaction_id(&message)
                    .with_context(|| format!("partition {} offset {} cannot be decoded", message.partition(), message.offset()))?;
                if let Some(id) = id {
                    *counts.entry(id).or_default() += 1;
                }
                if ends.get(&message.partition()).is_some_and(|&end| message.offset() + 1 >= end) {
                    ends.remove(&message.partition());
                }
            }
            // The last offsets of a partition may be transaction markers, which are never delivered: its end is the end.
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => drop(ends.remove(&partition)),
            Some(Err(error)) => bail!("reading stopped: {error}"),
            None => ensure!(last_record.elapsed() < SILENCE_MAX, "no record for {} s before the end was reached", SILENCE_MAX.as_secs()),
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        Timestamp,
        message::{Header, OwnedHeaders, OwnedMessage},
    };

    use super::*;

    #[test]
    fn a_heartbeat_is_no_transaction_and_damage_is_an_error() {
        let record =
            |payload: &[u8], headers| OwnedMessage::new(Some(payload.to_vec()), None, "t".into(), Timestamp::NotAvailable, 0, 0, headers);
        let event = Event { transaction_id: "t-1".into(), ..Event::default() }.encode_to_vec();
        assert_eq!(Records::Events.transaction_id(&record(&event, None)), Ok(Some("t-1".into())));
        let heartbeat = OwnedHeaders::new().insert(Header { key: HEARTBEAT, value: Some("1") });
        assert_eq!(Records::Events.transaction_id(&record(b"\xff", Some(heartbeat))), Ok(None));
        assert!(Records::Events.transaction_id(&record(b"\xff", None)).is_err());
    }

    #[test]
    fn a_region_is_given_with_its_broker() {
        let logs: RegionLogs = "us-east=198.18.0.1:9092".parse().unwrap();
        assert_eq!((logs.region.as_str(), logs.bootstrap.as_str()), ("us-east", "198.18.0.1:9092"));
        assert!("198.18.0.1:9092".parse::<RegionLogs>().unwrap_err().contains("REGION=HOST:PORT"));
    }
}
