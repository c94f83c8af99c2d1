//! Keys and commands of the store, and what the answers mean. No IO.

use redis::Value;
use scoring_core::{
    event::{EntityId, EntityKind},
    key::{ENTITY_KEY_BYTES, entity_key},
    slot::SlotBytes,
    state::StateConfig,
};

use crate::request::Request;

/// The epoch in which the operator made this shard a primary.
pub(crate) const EPOCH_KEY: &str = "fp:epoch";
/// Up to where each log has been folded into this shard.
pub(crate) const VECTOR_KEY: &str = "fp:vector";
/// How often this shard has been folded into.
pub(crate) const FOLDS_KEY: &str = "fp:folds";
/// The users of this shard who are asked for most: 16 bytes each.
pub(crate) const HOT_KEY: &str = "fp:hot";

/// Whose value it is.
pub(crate) type EntityKey = (EntityKind, EntityId);

/// What is asked of a shard about one entity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) kind: EntityKind,
    pub(crate) id: EntityId,
    key: [u8; ENTITY_KEY_BYTES],
    /// Whether the record is appended before the value is read.
    pub(crate) appends: bool,
}

impl Asked {
    pub(crate) fn new((kind, id): EntityKey, appends: bool) -> Self {
        Self { kind, id, key: entity_key(kind, id), appends }
    }

    fn answers(&self) -> usize {
        1 + usize::from(self.appends)
    }
}

/// Appends where that is asked for, and reads; each use makes a key live longer.
pub(crate) fn record_and_read(asked: &[Asked], slot: &SlotBytes, config: &StateConfig) -> Request {
    let mut request = Request::with_room_for(asked.iter().map(Asked::answers).sum());
    for entity in asked {
        if entity.appends {
            request.command(&[b"APPEND", &entity.key, slot]);
        }
        let ttl = (config.ttl_ms(entity.kind) / 1_000).to_string();
        request.command(&[b"GETEX", &entity.key, b"EX", ttl.as_bytes()]);
    }
    request
}

/// Reads and changes nothing: what a replica, and a shard at its memory limit, answer too. Asks for the epoch first: a
/// process without one has never been a primary or the copy of one, and knows nobody.
pub(crate) fn read(asked: &[Asked]) -> Request {
    let mut request = Request::with_room_for(1 + asked.len());
    request.command(&[b"GET", EPOCH_KEY.as_bytes()]);
    asked.iter().for_each(|entity| request.command(&[b"GET", &entity.key]));
    request
}

/// What a shard answered about one entity.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Whether the record was appended; an error says why not.
    pub(crate) appended: Result<bool, Value>,
    /// The value; empty for an absent key.
    pub(crate) value: Result<Vec<u8>, Value>,
}

/// The answers to [`record_and_read`].
pub(crate) fn answered_both(asked: &[Asked], answers: Vec<Value>) -> Vec<Answered> {
    let mut answers = answers.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    let one = |entity: &Asked| {
        let appended = if entity.appends { appended(next()) } else { Ok(false) };
        Answered { appended, value: value(next()) }
    };
    asked.iter().map(one).collect()
}

/// The answers to [`read`]; `None` from a process that restarted empty: that it knows no events tells nothing of an entity.
pub(crate) fn answered_reads(answers: Vec<Value>) -> Option<Vec<Answered>> {
    let mut answers = answers.into_iter();
    let epoch = answers.next().unwrap_or_default();
    (epoch != Value::Nil).then(|| answers.map(|answer| Answered { appended: Ok(false), value: value(answer) }).collect())
}

fn appended(answer: Value) -> Result<bool, Value> {
    match answer {
        Value::Int(_) => Ok(true),
        other => Err(other),
    }
}

fn value(answer: Value) -> Result<Vec<u8>, Value> {
    match answer {
        Value::BulkString(bytes) => Ok(bytes),
        Value::Nil => Ok(Vec::new()),
        other => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use scoring_core::{state::Retention, windows::Windows};

    use super::*;

    #[test]
    fn a_record_is_appended_and_read_in_one_go_and_its_key_lives_on() {
        let config = StateConfig::new(&Windows::default(), Retention::default()).unwrap();
        let asked = [Asked::new((EntityKind::Ip, EntityId([7; 16])), true), Asked::new((EntityKind::Card, EntityId([8; 16])), false)];
        let request = record_and_read(&asked, &[1; 32], &config);
        let words: Vec<Vec<u8>> = request.pipeline().cmd_iter().map(redis::Cmd::get_packed_command).collect();
        let packed = |words: &[&[u8]]| redis::pack_command(&words.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
        let (ip, card) = (entity_key(EntityKind::Ip, EntityId([7; 16])), entity_key(EntityKind::Card, EntityId([8; 16])));
        assert_eq!(
            words,
            [packed(&[b"APPEND", &ip, &[1; 32]]), packed(&[b"GETEX", &ip, b"EX", b"87000"]), packed(&[b"GETEX", &card, b"EX", b"2592000"])]
        );
        assert_eq!(request.answers(), 3);
    }

    #[test]
    fn answers_belong_to_their_entities_and_an_absent_key_is_an_empty_value() {
        let asked = [Asked::new((EntityKind::Ip, EntityId([7; 16])), true), Asked::new((EntityKind::Card, EntityId([8; 16])), false)];
        let answers = vec![Value::Int(32), Value::BulkString(vec![5]), Value::Nil];
        let [ip, card]: [Answered; 2] = answered_both(&asked, answers).try_into().unwrap();
        assert!(matches!((ip.appended, ip.value), (Ok(true), Ok(value)) if value == [5]));
        assert!(matches!((card.appended, card.value), (Ok(false), Ok(value)) if value.is_empty()));
        let [short, _]: [Answered; 2] = answered_both(&asked, vec![Value::Okay]).try_into().unwrap();
        assert!(short.appended.is_err());
    }

    #[test]
    fn a_process_that_has_no_epoch_knows_nobody_and_is_not_believed() {
        assert!(answered_reads(vec![Value::Nil, Value::Nil]).is_none());
        assert!(answered_reads(Vec::new()).is_none());
        let [known]: [Answered; 1] = answered_reads(vec![Value::BulkString(b"3".to_vec()), Value::Nil]).unwrap().try_into().unwrap();
        assert!(known.value.is_ok_and(|value| value.is_empty()), "this one knows that there is nothing");
    }
}
