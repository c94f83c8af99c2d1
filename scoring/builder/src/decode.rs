//! From records to batches: events, profile values, heartbeats, and what cannot be read. No IO.
//!
//! Every record is named by where it was first written: a mirrored one by its header `fp-src`. So this builder and those of
//! other regions count alike, and a record that comes by two ways is folded once.

use kafka::{
    headers,
    rdkafka::message::{BorrowedMessage, Message, OwnedMessage},
};
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::{
    event::{EntityId, EntityKind, Event, SCHEMA_VERSION},
    profile::ProfileRecord,
    record::RecordId,
};
use scoring_features::{LogPart, LogPartition, Positions};

use crate::{
    batch::{Batch, DeadLetter, Heard, Progress},
    config::{Holds, Log},
    heartbeat,
};

#[cfg(test)]
mod tests;

/// An event this far ahead of our clock is damage: it would stay with its entities as the newest for ever.
const AHEAD_MS_MAX: i64 = 3_600_000;

/// A record as it is read: borrowed from the client where it comes from a log, so that only what is kept is copied.
pub(crate) trait Readable: Message {
    fn owned(&self) -> OwnedMessage;
}

impl Readable for BorrowedMessage<'_> {
    fn owned(&self) -> OwnedMessage {
        self.detach()
    }
}

/// Reads records into batches.
pub(crate) struct Decoder {
    cluster_id: String,
    logs: Vec<Log>,
    /// Up to where all shards have folded.
    folded: Positions,
    /// Whether events are folded; a region that does not fold looks for heartbeats only.
    folds: bool,
    lanes: Vec<Lane>,
    origins: Vec<Origin>,
    batch: Batch,
}

/// A partition of a topic here.
struct Lane {
    topic: String,
    partition: i32,
    log: usize,
    /// Index of the origin of its last record: mostly that of the next one too.
    origin: Option<usize>,
    progress: Option<Progress>,
}

/// A log partition where it is first written.
struct Origin {
    partition: LogPartition,
    /// Everything before this has been folded by all shards, or was read. `None` before the first record.
    next: Option<i64>,
    part: Option<LogPart>,
}

/// Lives for one call: boxing the common and larger one would only cost.
#[allow(clippy::large_enum_variant)]
enum Found {
    Event(Event),
    Profile(ProfileRecord),
}

impl Decoder {
    /// `folded`: the positions that all shards agree on.
    pub(crate) fn new(cluster_id: String, logs: Vec<Log>, folded: Positions) -> Self {
        Self { cluster_id, logs, folded, folds: true, lanes: Vec::new(), origins: Vec::new(), batch: Batch::default() }
    }

    /// One that passes over everything but heartbeats.
    pub(crate) fn following(cluster_id: String, logs: Vec<Log>) -> Self {
        Self { folds: false, ..Self::new(cluster_id, logs, Positions::new()) }
    }

    pub(crate) fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// Reading of a partition begins behind a stretch that the shards have not folded and that nobody needs: they are not
    /// expected to have it.
    pub(crate) fn skips(&mut self, partition: &LogPartition) {
        self.folded.remove(partition);
        self.origins.iter_mut().filter(|origin| origin.partition == *partition).for_each(|origin| origin.next = None);
    }

    /// Up to where the shards have folded a partition of a topic that this region writes itself.
    pub(crate) fn own_position(&self, topic: &str, partition: i32) -> (LogPartition, Option<i64>) {
        let partition = LogPartition { cluster_id: self.cluster_id.clone(), topic: topic.to_owned(), partition };
        let folded = self.folded.get(&partition).copied();
        (partition, folded)
    }

    /// Where a record was first written, and up to where the shards have folded that partition.
    pub(crate) fn position_of(&mut self, record: &impl Readable) -> Result<(LogPartition, i64, Option<i64>), String> {
        let lane = self.lane(record.topic(), record.partition()).ok_or("its topic is none of the logs")?;
        let (origin, offset) = self.origin(lane, record)?;
        let partition = self.origins[origin].partition.clone();
        let folded = self.folded.get(&partition).copied();
        Ok((partition, offset, folded))
    }

    pub(crate) fn records(&self) -> usize {
        self.batch.records
    }

    pub(crate) fn is_urgent(&self) -> bool {
        self.batch.is_urgent()
    }

    /// Adds a record to the batch.
    pub(crate) fn take(&mut self, record: &impl Readable, now_ms: i64) {
        let Some(lane) = self.lane(record.topic(), record.partition()) else { return };
        self.batch.records += 1;
        let log = &self.logs[self.lanes[lane].log];
        let is_heartbeat = log.holds == Holds::Events && headers::is_heartbeat(record.headers());
        let written_ms = match is_heartbeat {
            true => self.hear(lane, record),
            false if self.folds => self.read(lane, record, now_ms),
            false => None,
        };
        let next = record.offset().saturating_add(1);
        let progress = self.lanes[lane].progress.get_or_insert(Progress { next, written_ms: None });
        *progress = Progress { next, written_ms: written_ms.or(progress.written_ms) };
    }

    /// What was read since the last call.
    pub(crate) fn batch(&mut self) -> Batch {
        let mut batch = std::mem::take(&mut self.batch);
        for lane in &mut self.lanes {
            batch.progress.extend(lane.progress.take().map(|progress| ((lane.topic.clone(), lane.partition), progress)));
        }
        for origin in &mut self.origins {
            batch.parts.extend(origin.part.take().map(|part| (origin.partition.clone(), part)));
        }
        batch
    }

    fn hear(&mut self, lane: usize, record: &impl Readable) -> Option<i64> {
        if self.folds
            && let Ok((origin, offset)) = self.origin(lane, record)
        {
            self.origins[origin].part(offset);
        }
        let Ok(heartbeat) = heartbeat::from_bytes(record.payload().unwrap_or_default()) else {
            self.batch.unreadable_heartbeats += 1;
            return None;
        };
        let clock_ms = heartbeat.clock_ms;
        let partition = (record.topic().to_owned(), record.partition());
        let origin = self.logs[self.lanes[lane].log].origin.clone();
        self.batch.heard.push(Heard { partition, offset: record.offset(), origin, heartbeat });
        Some(clock_ms)
    }

    /// Gives the time of an event that is to be folded.
    fn read(&mut self, lane: usize, record: &impl Readable, now_ms: i64) -> Option<i64> {
        let holds = self.logs[self.lanes[lane].log].holds;
        let placed = self.origin(lane, record);
        let part = placed.map(|(origin, offset)| self.origins[origin].part(offset).map(|part| (offset, part)));
        let added = part.and_then(|part| match part {
            Some((offset, part)) => found(holds, record.payload().unwrap_or_default(), now_ms).map(|found| Some(add(part, offset, found))),
            None => Ok(None),
        });
        match added {
            Ok(Some(written_ms)) => written_ms,
            Ok(None) => {
                self.batch.already_folded += 1;
                None
            }
            Err(reason) => {
                self.batch.dead.push(DeadLetter { record: record.owned(), reason });
                None
            }
        }
    }

    fn lane(&mut self, topic: &str, partition: i32) -> Option<usize> {
        let known = self.lanes.iter().position(|lane| lane.partition == partition && lane.topic == topic);
        known.or_else(|| {
            let log = self.logs.iter().position(|log| log.topic == topic)?;
            self.lanes.push(Lane { topic: topic.to_owned(), partition, log, origin: None, progress: None });
            Some(self.lanes.len() - 1)
        })
    }

    /// Where a record was first written: the index of its origin, and its offset there.
    fn origin(&mut self, lane: usize, record: &impl Readable) -> Result<(usize, i64), String> {
        let Lane { topic, partition, log, origin: last, .. } = &self.lanes[lane];
        let log = &self.logs[*log];
        let source = if log.mirrored { headers::source(record.headers()).map_err(|error| error.to_string())? } else { None };
        // The name that the topic has at its origin stands for its id, as in that region's own builder.
        let (cluster_id, topic, partition, offset) = match &source {
            Some(source) => (source.cluster_id.as_str(), log.topic_at_origin.as_str(), source.partition, source.offset),
            None => (self.cluster_id.as_str(), topic.as_str(), *partition, record.offset()),
        };
        let is = |origin: &Origin| {
            let known = &origin.partition;
            known.partition == partition && known.cluster_id == cluster_id && known.topic == topic
        };
        let known = last.filter(|last| is(&self.origins[*last])).or_else(|| self.origins.iter().position(is));
        let index = known.unwrap_or(self.origins.len());
        if known.is_none() {
            let partition = LogPartition { cluster_id: cluster_id.to_owned(), topic: topic.to_owned(), partition };
            let next = self.folded.get(&partition).copied();
            self.origins.push(Origin { partition, next, part: None });
        }
        self.lanes[lane].origin = Some(index);
        Ok((index, offset))
    }
}

impl Origin {
    /// The part of the batch for the record at `offset`, moved on behind it; `None` when that was folded or read before.
    fn part(&mut self, offset: i64) -> Option<&mut LogPart> {
        if self.next.is_some_and(|next| offset < next) {
            return None;
        }
        let next = offset.saturating_add(1);
        let from = self.next.replace(next);
        let part = self.part.get_or_insert_with(|| LogPart { from, ..LogPart::default() });
        part.next = next;
        Some(part)
    }
}

/// Gives the time of an event.
fn add(part: &mut LogPart, offset: i64, found: Found) -> Option<i64> {
    match found {
        Found::Event(event) => {
            let time_ms = event.event_time_ms;
            part.events.push((offset, event));
            Some(time_ms)
        }
        Found::Profile(profile) => {
            part.profiles.push((offset, profile));
            None
        }
    }
}

fn found(holds: Holds, payload: &[u8], now_ms: i64) -> Result<Found, String> {
    if holds == Holds::Profiles {
        return profile(payload).map(Found::Profile);
    }
    let wire = v1::Event::decode(payload).map_err(|error| format!("value is not an Event: {error}"))?;
    let event = Event::from_wire(&wire).map_err(|error| error.to_string())?;
    if event.event_time_ms > now_ms.saturating_add(AHEAD_MS_MAX) {
        return Err(format!("event field event_time_ms: {} is more than an hour ahead of this process's clock", event.event_time_ms));
    }
    Ok(Found::Event(event))
}

fn profile(payload: &[u8]) -> Result<ProfileRecord, String> {
    let wire = v1::ProfileValue::decode(payload).map_err(|error| format!("value is not a ProfileValue: {error}"))?;
    let field = |name: &str, problem: &str| format!("profile record field {name}: {problem}");
    if wire.schema_version != SCHEMA_VERSION {
        return Err(field("schema_version", &format!("{} is not {SCHEMA_VERSION}", wire.schema_version)));
    }
    let entity = wire.entity.unwrap_or_default();
    let kind = EntityKind::from_wire(entity.kind).map_err(|error| field("entity", &error.to_string()))?;
    let kind = kind.ok_or_else(|| field("entity", "is missing"))?;
    let whose = <[u8; 16]>::try_from(entity.id.as_slice()).map_err(|_| field("entity", "its id must have 16 bytes"))?;
    let id = <[u8; 10]>::try_from(wire.id.as_slice()).map_err(|_| field("id", "must have 10 bytes"))?;
    ProfileRecord::new((kind, EntityId(whose)), &wire.name, wire.value, wire.as_of_ms, RecordId(id)).map_err(|error| error.to_string())
}
