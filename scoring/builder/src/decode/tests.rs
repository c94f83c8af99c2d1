//! Records of all sorts, as they come from the logs.

use domain::{Epoch, RegionName, headers::Source};
use kafka::{
    headers::{RecordHeaders, with_source},
    rdkafka::{
        Timestamp,
        message::{Header, OwnedHeaders},
    },
};
use scoring_core::heartbeat::Heartbeat;

use super::*;

const NOW: i64 = 1_700_000_000_000;
const RAW: &str = "fraud.events.raw";
const MIRROR: &str = "eu-west.fraud.events.raw";
const PROFILES: &str = "fraud.profiles";

impl Readable for OwnedMessage {
    fn owned(&self) -> OwnedMessage {
        self.clone()
    }
}

fn region(name: &str) -> RegionName {
    RegionName::new(name).unwrap()
}

fn user() -> v1::Entity {
    v1::Entity { kind: v1::EntityKind::User.into(), id: vec![1; 16] }
}

fn event(time_ms: i64) -> Vec<u8> {
    v1::Event {
        schema_version: 1,
        transaction_id: "t".into(),
        tenant: "default".into(),
        event_time_ms: time_ms,
        origin_region: "eu-west".into(),
        kind: v1::EventKind::Refund.into(),
        decision: v1::DecisionState::NotNeeded.into(),
        entities: vec![user()],
        ..Default::default()
    }
    .encode_to_vec()
}

fn ours() -> OwnedHeaders {
    RecordHeaders { epoch: Epoch(1), origin: region("eu-west") }.to_kafka()
}

fn from_source(headers: &OwnedHeaders, cluster_id: &str, offset: i64) -> OwnedHeaders {
    with_source(Some(headers), &Source { cluster_id: cluster_id.into(), topic_id: "x".into(), partition: 0, offset })
}

fn message(topic: &str, offset: i64, payload: Vec<u8>, headers: OwnedHeaders) -> OwnedMessage {
    OwnedMessage::new(Some(payload), None, topic.into(), Timestamp::NotAvailable, 0, offset, Some(headers))
}

fn own(offset: i64, payload: Vec<u8>) -> OwnedMessage {
    message(RAW, offset, payload, ours())
}

fn mirrored(offset: i64, source: i64) -> OwnedMessage {
    message(MIRROR, offset, event(NOW), from_source(&ours(), "eu", source))
}

fn positions(entries: &[(&str, i64)]) -> Positions {
    entries.iter().map(|(partition, next)| (partition.parse().unwrap(), *next)).collect()
}

fn logs() -> Vec<Log> {
    let log = |topic: &str, origin: &str, holds| Log {
        topic: topic.into(),
        topic_at_origin: if holds == Holds::Events { RAW.into() } else { PROFILES.into() },
        origin: region(origin),
        mirrored: origin != "us-east",
        holds,
    };
    vec![log(RAW, "us-east", Holds::Events), log(MIRROR, "eu-west", Holds::Events), log(PROFILES, "us-east", Holds::Profiles)]
}

fn decoder(folded: &[(&str, i64)]) -> Decoder {
    Decoder::new("us".into(), logs(), positions(folded))
}

fn batch_of(decoder: &mut Decoder, records: &[OwnedMessage]) -> Batch {
    records.iter().for_each(|record| decoder.take(record, NOW));
    decoder.batch()
}

/// Name, from, next, offsets of events.
fn parts(batch: &Batch) -> Vec<(String, Option<i64>, i64, Vec<i64>)> {
    let of = |(partition, part): (&LogPartition, &LogPart)| {
        (partition.to_string(), part.from, part.next, part.events.iter().map(|(offset, _)| *offset).collect())
    };
    batch.parts.iter().map(of).collect()
}

#[test]
fn an_event_moves_its_partition_and_is_folded() {
    let batch = batch_of(&mut decoder(&[]), &[own(7, event(NOW))]);
    assert_eq!(parts(&batch), [("us/fraud.events.raw/0".into(), None, 8, vec![7])]);
    assert_eq!(batch.progress[&(RAW.to_owned(), 0)], Progress { next: 8, written_ms: Some(NOW) });
    assert_eq!(batch.published_entities().into_iter().collect::<Vec<_>>(), [(EntityKind::User, EntityId([1; 16]))]);
}

#[test]
fn a_batch_begins_where_the_one_before_it_ended_and_the_first_where_the_shards_stand() {
    let mut decoder = decoder(&[("us/fraud.events.raw/0", 7)]);
    let first = batch_of(&mut decoder, &[own(7, event(NOW)), own(8, event(NOW))]);
    let second = batch_of(&mut decoder, &[own(9, event(NOW))]);
    assert_eq!(parts(&first), [("us/fraud.events.raw/0".into(), Some(7), 9, vec![7, 8])]);
    assert_eq!(parts(&second), [("us/fraud.events.raw/0".into(), Some(9), 10, vec![9])]);
}

#[test]
fn a_mirrored_record_stands_under_its_origin_and_is_passed_over_where_the_shards_have_it() {
    let mut decoder = decoder(&[("eu/fraud.events.raw/0", 41)]);
    let batch = batch_of(&mut decoder, &[mirrored(100, 40), mirrored(102, 41)]);
    assert_eq!(parts(&batch), [("eu/fraud.events.raw/0".into(), Some(41), 42, vec![41])]);
    assert_eq!((batch.already_folded, batch.records), (1, 2));
    assert_eq!(batch.progress[&(MIRROR.to_owned(), 0)].next, 103);
    // The same record by another way.
    assert_eq!(batch_of(&mut decoder, &[mirrored(103, 41)]).already_folded, 1);
    // The origin got another Kafka: its offsets begin anew.
    let renewed = message(MIRROR, 104, event(NOW), from_source(&ours(), "eu2", 0));
    assert_eq!(parts(&batch_of(&mut decoder, &[renewed])), [("eu2/fraud.events.raw/0".into(), None, 1, vec![0])]);
}

#[test]
fn a_heartbeat_is_heard_moves_the_position_and_is_neither_event_nor_dead_letter() {
    let heartbeat = Heartbeat { counter: 5, clock_ms: 77, echoes: [(region("us-east"), 3)].into() };
    let headers = ours().insert(Header { key: domain::headers::HEARTBEAT, value: Some("1") });
    let good = message(MIRROR, 10, heartbeat::to_bytes(&heartbeat), from_source(&headers, "eu", 4));
    let damaged = message(RAW, 3, vec![0xff; 9], headers);
    let batch = batch_of(&mut decoder(&[("us/fraud.events.raw/0", 3)]), &[good.clone(), damaged]);
    let heard = Heard { partition: (MIRROR.into(), 0), offset: 10, origin: region("eu-west"), heartbeat };
    assert_eq!((batch.heard.as_slice(), batch.dead.len(), batch.unreadable_heartbeats), ([heard].as_slice(), 0, 1));
    let expected = [("eu/fraud.events.raw/0".into(), None, 5, vec![]), ("us/fraud.events.raw/0".into(), Some(3), 4, vec![])];
    assert_eq!(parts(&batch), expected);
    assert_eq!(batch.progress[&(MIRROR.to_owned(), 0)].written_ms, Some(77));
    assert!(!batch_of(&mut decoder(&[]), &[good]).is_urgent());
}

#[test]
fn a_region_that_does_not_fold_hears_heartbeats_and_passes_over_everything_else() {
    let headers = ours().insert(Header { key: domain::headers::HEARTBEAT, value: Some("1") });
    let heartbeat = heartbeat::to_bytes(&Heartbeat { counter: 5, clock_ms: 1, echoes: [].into() });
    let mut decoder = Decoder::following("us".into(), logs());
    let batch = batch_of(&mut decoder, &[own(7, event(NOW)), own(8, vec![0xff]), message(RAW, 9, heartbeat, headers)]);
    assert_eq!((batch.heard.len(), batch.dead.len(), batch.parts.len(), batch.records), (1, 0, 0, 3));
}

#[test]
fn what_is_no_event_becomes_a_dead_letter_with_a_reason_and_the_log_goes_on() {
    let damaged_source = OwnedHeaders::new().insert(Header { key: "fp-src", value: Some("?") });
    let records = [
        own(0, vec![0xff; 9]),
        own(1, vec![]),
        own(2, event(NOW + 2 * AHEAD_MS_MAX)),
        message(MIRROR, 3, event(NOW), damaged_source),
        message(PROFILES, 4, event(NOW), ours()),
    ];
    let batch = batch_of(&mut decoder(&[]), &records);
    let reasons: Vec<&str> = batch.dead.iter().map(|dead| dead.reason.as_str()).collect();
    assert_eq!((batch.events().count(), reasons.len()), (0, 5));
    for (reason, expected) in reasons.iter().zip(["not an Event", "schema_version", "hour ahead", "fp-src", "ProfileValue"]) {
        assert!(reason.contains(expected), "{reason}");
    }
    assert_eq!(batch.progress[&(RAW.to_owned(), 0)].next, 3);
    assert!(batch.parts.iter().any(|(partition, part)| partition.topic == RAW && part.next == 3), "its position moves on");
}

#[test]
fn a_batch_loaded_value_is_folded_like_an_event_and_a_wrong_one_is_named() {
    let value = v1::ProfileValue {
        schema_version: 1,
        entity: Some(user()),
        name: "average_amount".into(),
        value: 12.5,
        as_of_ms: NOW,
        id: vec![7; 10],
    };
    let with = |change: fn(&mut v1::ProfileValue)| {
        let mut value = value.clone();
        change(&mut value);
        message(PROFILES, 0, value.encode_to_vec(), ours())
    };
    let good = batch_of(&mut decoder(&[]), &[with(|_| {})]);
    let part = &good.parts[&"us/fraud.profiles/0".parse().unwrap()];
    assert_eq!(part.profiles[0].1.entity(), (EntityKind::User, EntityId([1; 16])));
    type Damage = fn(&mut v1::ProfileValue);
    let wrong: [(Damage, &str); 5] = [
        (|value| value.schema_version = 2, "schema_version"),
        (|value| value.entity = None, "entity: is missing"),
        (|value| value.id = vec![1], "id: must have 10 bytes"),
        (|value| value.name = "A b".into(), "name"),
        (|value| value.value = f64::NAN, "value"),
    ];
    for (change, expected) in wrong {
        let reason = &batch_of(&mut decoder(&[]), &[with(change)]).dead[0].reason;
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn the_position_of_a_copied_record_is_that_at_its_origin() {
    let mut decoder = decoder(&[("eu/fraud.events.raw/0", 41)]);
    let (partition, offset, folded) = decoder.position_of(&mirrored(100, 40)).unwrap();
    assert_eq!((partition.to_string(), offset, folded), ("eu/fraud.events.raw/0".into(), 40, Some(41)));
    decoder.skips(&partition);
    assert_eq!(parts(&batch_of(&mut decoder, &[mirrored(101, 50)])), [("eu/fraud.events.raw/0".into(), None, 51, vec![50])]);
}
