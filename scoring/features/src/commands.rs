//! Keys and commands of the store, and what the answers mean. No IO.

use domain::slot_of;
use redis::{Cmd, RedisResult, Value, cmd};
use scoring_core::{
    encoding::Record,
    event::{EntityId, EntityKind},
    set::EventSet,
    windows::Windows,
};

/// The epoch in which the operator made this shard a primary.
pub(crate) const EPOCH_KEY: &str = "fp:epoch";
/// Up to where each log has been folded into this shard.
pub(crate) const VECTOR_KEY: &str = "fp:vector";
/// How much longer than its events a key lives, so that a late reader still finds them.
const TTL_MARGIN_MS: i64 = 600_000;

/// Whose set it is.
pub(crate) type EntityKey = (EntityKind, EntityId);

/// The key of an entity's event set: `e:{card:00ff…}`. The hash tag keeps all keys of an entity in one slot.
pub(crate) fn event_set_key(kind: EntityKind, id: EntityId) -> String {
    format!("e:{{{}:{}}}", kind.name(), hex::encode(id.0))
}

pub(crate) fn slot_of_entity(kind: EntityKind, id: EntityId) -> u16 {
    slot_of(event_set_key(kind, id).as_bytes())
}

/// Adds records. `LT`: of one member, the earliest time stays, whoever wrote it last.
pub(crate) fn add(key: &str, records: &[Record]) -> Cmd {
    let mut add = cmd("ZADD");
    add.arg(key).arg("LT");
    for record in records {
        add.arg(record.time_ms).arg(record.encode());
    }
    add
}

pub(crate) fn keep_alive(key: &str, windows: &Windows) -> Cmd {
    let ttl_ms = windows.longest().length_ms().saturating_add(windows.skew_ms()).saturating_add(TTL_MARGIN_MS);
    let mut expire = cmd("PEXPIRE");
    expire.arg(key).arg(ttl_ms);
    expire
}

/// The events after `after_ms` up to and including `through_ms`, newest first, one more than count: if that one comes, the
/// set is saturated.
pub(crate) fn read(key: &str, (after_ms, through_ms): (i64, i64), windows: &Windows) -> Cmd {
    let mut range = cmd("ZRANGE");
    range.arg(key).arg(through_ms).arg(format!("({after_ms}")).arg("BYSCORE").arg("REV");
    range.arg("LIMIT").arg(0).arg(windows.events_max().saturating_add(1)).arg("WITHSCORES");
    range
}

/// Forgets events up to and including `through_ms`, and all but the newest that count and the one that tells of more.
pub(crate) fn trim(key: &str, through_ms: i64, windows: &Windows) -> [Cmd; 2] {
    let kept = i64::try_from(windows.events_max()).unwrap_or(i64::MAX).saturating_add(1);
    let (mut by_time, mut by_count) = (cmd("ZREMRANGEBYSCORE"), cmd("ZREMRANGEBYRANK"));
    by_time.arg(key).arg("-inf").arg(through_ms);
    by_count.arg(key).arg(0).arg(kept.saturating_add(1).saturating_neg());
    [by_time, by_count]
}

/// A set as read, and how many of its members this version cannot decode: they are left out and counted, because a member
/// written by a newer version must not take the others with it.
pub(crate) fn set_of(answer: Value, windows: &Windows) -> RedisResult<(EventSet, u64)> {
    let members: Vec<(Vec<u8>, f64)> = redis::from_redis_value(answer)?;
    let decoded = members.iter().map(|(member, score)| Record::decode(member, time_ms(*score)));
    let records: Vec<Record> = decoded.filter_map(Result::ok).collect();
    let unreadable = u64::try_from(members.len().saturating_sub(records.len())).unwrap_or(u64::MAX);
    Ok((EventSet::from_records(records, windows.events_max()), unreadable))
}

/// Scores are whole milliseconds: exact in a double up to the year 287,000.
#[allow(clippy::cast_possible_truncation)]
fn time_ms(score: f64) -> i64 {
    score as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_set_is_a_contract_with_other_versions_and_tools() {
        let key = event_set_key(EntityKind::Card, EntityId([0xab; 16]));
        assert_eq!(key, "e:{card:abababababababababababababababab}");
        assert_eq!(slot_of_entity(EntityKind::Card, EntityId([0xab; 16])), slot_of(b"card:abababababababababababababababab"));
    }

    #[test]
    fn a_member_of_a_newer_version_is_counted_and_does_not_take_the_others_with_it() {
        let answer = Value::Array(vec![Value::Array(vec![Value::BulkString(vec![9, 9, 9]), Value::Double(5.0)])]);
        let (set, unreadable) = set_of(answer, &Windows::default()).unwrap();
        assert_eq!((set.records().len(), unreadable), (0, 1));
        assert!(set_of(Value::Okay, &Windows::default()).is_err());
    }
}
