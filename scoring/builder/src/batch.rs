//! From records to what is to be folded: events, positions, and what cannot be read. No IO.

use std::collections::{BTreeMap, BTreeSet};

use domain::headers::Source;
use kafka::{
    headers,
    rdkafka::message::{Message, OwnedMessage},
};
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::event::{EntityId, EntityKind, Event};
use scoring_features::{LogPartition, Positions};

use crate::config::Log;

/// An event this far ahead of our clock is damage: it would stay in the sets of its entities as the newest for ever.
const AHEAD_MS_MAX: i64 = 3_600_000;

/// A partition by the name of its topic here.
pub(crate) type PartitionHere = (String, i32);

/// A record that is no event, and why.
pub(crate) struct DeadLetter {
    pub(crate) record: OwnedMessage,
    pub(crate) reason: String,
}

/// How far a batch brings a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) next: i64,
    /// Of the last readable event.
    pub(crate) event_time_ms: Option<i64>,
}

/// What is folded together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Event>,
    pub(crate) dead: Vec<DeadLetter>,
    pub(crate) positions: Positions,
    pub(crate) progress: BTreeMap<PartitionHere, Progress>,
    /// Mirrored records that their own region's builder had folded before this region took over.
    pub(crate) already_folded: u64,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.progress.is_empty()
    }

    /// Whose features change: of each event its card, or its user when it has no card.
    pub(crate) fn published_entities(&self) -> BTreeSet<(EntityKind, EntityId)> {
        self.events.iter().filter_map(published_entity).collect()
    }
}

/// The entity whose features are published for an event.
pub(crate) fn published_entity(event: &Event) -> Option<(EntityKind, EntityId)> {
    [EntityKind::Card, EntityKind::User].into_iter().find_map(|kind| event.entities.get(kind).map(|id| (kind, id)))
}

/// Reads records into batches. Knows what the shards have folded.
#[derive(Clone)]
pub(crate) struct Reader {
    cluster_id: String,
    logs: BTreeMap<String, Log>,
    folded: Positions,
}

impl Reader {
    /// `folded`: the positions that all shards agree on.
    pub(crate) fn new(cluster_id: String, logs: &[Log], folded: Positions) -> Self {
        Self { cluster_id, logs: logs.iter().map(|log| (log.topic.clone(), log.clone())).collect(), folded }
    }

    /// The position of a partition of this region's Kafka.
    pub(crate) fn position_of(&self, topic: &str, partition: i32) -> Option<i64> {
        self.folded.get(&self.here(topic, partition)).copied()
    }

    /// The coordinates of a record in the log from which it was read.
    pub(crate) fn coordinates(&self, record: &OwnedMessage) -> Source {
        Source {
            cluster_id: self.cluster_id.clone(),
            topic_id: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
        }
    }

    /// Adds a record to a batch.
    pub(crate) fn take(&self, record: OwnedMessage, now_ms: i64, batch: &mut Batch) {
        let next = record.offset().saturating_add(1);
        let here = (record.topic().to_owned(), record.partition());
        batch.positions.insert(self.here(record.topic(), record.partition()), next);
        let progress = batch.progress.entry(here).or_insert(Progress { next, event_time_ms: None });
        progress.next = next;
        match self.read(&record, now_ms, &mut batch.positions) {
            Ok(Some(event)) => {
                progress.event_time_ms = Some(event.event_time_ms);
                batch.events.push(event);
            }
            Ok(None) => batch.already_folded = batch.already_folded.saturating_add(1),
            Err(reason) => batch.dead.push(DeadLetter { record, reason }),
        }
    }

    /// The positions of a batch are in all shards.
    pub(crate) fn folded(&mut self, batch: &Batch) {
        self.folded.extend(batch.positions.clone());
    }

    /// `None` when the shards have folded the record where it was first written.
    fn read(&self, record: &OwnedMessage, now_ms: i64, positions: &mut Positions) -> Result<Option<Event>, String> {
        if self.folded_at_origin(record, positions)? {
            return Ok(None);
        }
        let wire = v1::Event::decode(record.payload().unwrap_or_default()).map_err(|error| format!("value is not an Event: {error}"))?;
        let event = Event::from_wire(&wire).map_err(|error| error.to_string())?;
        if event.event_time_ms > now_ms.saturating_add(AHEAD_MS_MAX) {
            return Err(format!("event field event_time_ms: {} is more than an hour ahead of this process's clock", event.event_time_ms));
        }
        Ok(Some(event))
    }

    /// A mirrored record is named by where it was first written, so that this builder and that region's own count alike.
    fn folded_at_origin(&self, record: &OwnedMessage, positions: &mut Positions) -> Result<bool, String> {
        let Some(log) = self.logs.get(record.topic()).filter(|log| log.mirrored) else { return Ok(false) };
        let seen = headers::read(record.headers()).map_err(|error| error.to_string())?;
        let Some(source) = seen.source else { return Ok(false) };
        let origin = LogPartition { cluster_id: source.cluster_id, topic: log.topic_at_origin.clone(), partition: source.partition };
        let folded = self.folded.get(&origin).is_some_and(|next| source.offset < *next);
        if !folded {
            let next = positions.entry(origin).or_insert(0);
            *next = source.offset.saturating_add(1).max(*next);
        }
        Ok(folded)
    }

    fn here(&self, topic: &str, partition: i32) -> LogPartition {
        LogPartition { cluster_id: self.cluster_id.clone(), topic: topic.to_owned(), partition }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Epoch, RegionName};
    use kafka::{
        headers::{RecordHeaders, with_source},
        rdkafka::{Timestamp, message::OwnedHeaders},
    };

    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const MIRROR: &str = "eu-west.fraud.events.raw";

    fn event(time_ms: i64) -> Vec<u8> {
        let entity = v1::Entity { kind: v1::EntityKind::User.into(), id: vec![1; 16] };
        v1::Event {
            schema_version: 1,
            transaction_id: "t".into(),
            tenant: "default".into(),
            event_time_ms: time_ms,
            origin_region: "eu-west".into(),
            kind: v1::EventKind::Refund.into(),
            decision: v1::DecisionState::NotNeeded.into(),
            entities: vec![entity],
            ..Default::default()
        }
        .encode_to_vec()
    }

    fn record(topic: &str, offset: i64, payload: Vec<u8>, source: Option<i64>) -> OwnedMessage {
        let ours = RecordHeaders { epoch: Epoch(1), origin: RegionName::new("eu-west").unwrap() }.to_kafka();
        let source = source.map(|offset| Source { cluster_id: "eu".into(), topic_id: "x".into(), partition: 0, offset });
        let headers: OwnedHeaders = source.map_or(ours.clone(), |source| with_source(Some(&ours), &source));
        OwnedMessage::new(Some(payload), None, topic.into(), Timestamp::NotAvailable, 0, offset, Some(headers))
    }

    fn positions(entries: &[(&str, i64)]) -> Positions {
        entries.iter().map(|(partition, next)| (partition.parse().unwrap(), *next)).collect()
    }

    fn reader(folded: &[(&str, i64)]) -> Reader {
        let log = |topic: &str, mirrored| Log { topic: topic.into(), topic_at_origin: "fraud.events.raw".into(), mirrored };
        Reader::new("us".into(), &[log("fraud.events.raw", false), log(MIRROR, true)], positions(folded))
    }

    #[test]
    fn an_event_moves_its_partition_and_is_folded() {
        let mut batch = Batch::default();
        reader(&[]).take(record("fraud.events.raw", 7, event(NOW), None), NOW, &mut batch);
        assert_eq!((batch.events.len(), batch.dead.len()), (1, 0));
        assert_eq!(batch.positions, positions(&[("us/fraud.events.raw/0", 8)]));
        assert_eq!(batch.published_entities().into_iter().collect::<Vec<_>>(), [(EntityKind::User, EntityId([1; 16]))]);
    }

    #[test]
    fn after_a_takeover_a_mirrored_record_is_folded_only_if_its_own_region_had_not() {
        let mut reader = reader(&[("eu/fraud.events.raw/0", 41)]);
        let mut batch = Batch::default();
        reader.take(record(MIRROR, 100, event(NOW), Some(40)), NOW, &mut batch);
        reader.take(record(MIRROR, 102, event(NOW), Some(41)), NOW, &mut batch);
        assert_eq!((batch.events.len(), batch.already_folded), (1, 1));
        assert_eq!(batch.positions, positions(&[("us/eu-west.fraud.events.raw/0", 103), ("eu/fraud.events.raw/0", 42)]));
        reader.folded(&batch);
        assert_eq!(reader.position_of(MIRROR, 0), Some(103));
        let mut again = Batch::default();
        reader.take(record(MIRROR, 103, event(NOW), Some(41)), NOW, &mut again);
        assert_eq!((again.events.len(), again.already_folded), (0, 1));
    }

    #[test]
    fn a_repeated_mirrored_record_never_moves_a_position_back() {
        let mut batch = Batch::default();
        let reader = reader(&[]);
        reader.take(record(MIRROR, 1, event(NOW), Some(9)), NOW, &mut batch);
        reader.take(record(MIRROR, 2, event(NOW), Some(3)), NOW, &mut batch);
        assert_eq!(batch.positions[&"eu/fraud.events.raw/0".parse().unwrap()], 10);
    }

    #[test]
    fn what_is_no_event_becomes_a_dead_letter_with_a_reason_and_the_log_goes_on() {
        let reader = reader(&[]);
        let mut batch = Batch::default();
        let damaged_header = record(MIRROR, 3, event(NOW), None);
        let damaged_header = OwnedMessage::new(
            damaged_header.payload().map(<[u8]>::to_vec),
            None,
            MIRROR.into(),
            Timestamp::NotAvailable,
            0,
            3,
            Some(OwnedHeaders::new().insert(kafka::rdkafka::message::Header { key: "fp-src", value: Some("?") })),
        );
        for record in [
            record("fraud.events.raw", 0, vec![0xff; 9], None),
            record("fraud.events.raw", 1, vec![], None),
            record("fraud.events.raw", 2, event(NOW + 2 * AHEAD_MS_MAX), None),
            damaged_header,
        ] {
            reader.take(record, NOW, &mut batch);
        }
        let reasons: Vec<&str> = batch.dead.iter().map(|dead| dead.reason.as_str()).collect();
        assert_eq!((batch.events.len(), reasons.len()), (0, 4));
        for (reason, expected) in reasons.iter().zip(["not an Event", "schema_version", "hour ahead", "fp-src"]) {
            assert!(reason.contains(expected), "{reason}");
        }
        assert_eq!(batch.progress[&("fraud.events.raw".to_owned(), 0)].next, 3);
    }
}
