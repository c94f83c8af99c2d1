//! Folding of logs into the value of an entity. Pure.

use super::{StateConfig, fast::mark_in_place, parts::Parts, unique::Noted};
use crate::{event::EntityKind, profile::BatchValue, record::Record, slot::EventSlot};

/// What logs say of one entity.
#[derive(Debug, Clone, Copy, Default)]
pub struct Additions<'a> {
    /// In any order, with any repetition.
    pub records: &'a [Record],
    /// From `fraud.profiles`.
    pub values: &'a [BatchValue],
}

/// What folding came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folded {
    /// What to put in the place of the value that was read.
    pub value: Vec<u8>,
    /// Whether that differs from it; if not, there is nothing to write.
    pub changed: bool,
    /// Records that the value did not have and that are older than the exact horizon. They are folded: into the exact part
    /// while the entity has few events, else into their pane.
    pub late: u32,
    /// Records older than the longest window: they are in no count any more, but a user's or card's profile knows them.
    pub expired: u32,
    /// Records that had been folded from a log before, or come twice.
    pub duplicates: u32,
    /// Records that differ from the one of the same identity that the value has. One of the two was kept.
    pub differing: u32,
    /// Records that were left out because there were too many.
    pub dropped: u32,
    /// Slots of the value that could not be read.
    pub unreadable: u32,
}

/// Folds what logs say into the value of an entity, and trims it to what is needed at `now_ms`.
///
/// - A record whose identity the value has: the winner stays and is marked as folded. Any other is added, marked, unless it
///   is older than the longest window: then it only enters the profile of a user or card, as it would have by now if it had
///   come in time. So a log that is folded anew makes known whom it has told of, however long ago.
/// - What is older than the longest window leaves. While there are more than `exact_events` records and the oldest is older
///   than the exact horizon, it leaves: if marked, into its pane; if not, it is dropped, because its log record brings it.
/// - Beyond `events_max` the oldest are dropped and the value says so for as long as a window misses them.
/// - Marked records that leave enter the profile of a user or card.
///
/// With nothing to add, this is the compaction of a value.
pub fn fold(kind: EntityKind, mut value: Vec<u8>, additions: Additions<'_>, now_ms: i64, config: &StateConfig) -> Folded {
    if let Some(marked) = mark_in_place(&mut value, additions, now_ms, config) {
        return Folded { value, ..marked };
    }
    fold_whole(kind, &value, additions, now_ms, config)
}

/// [`fold`] without the shortcut.
pub(super) fn fold_whole(kind: EntityKind, value: &[u8], additions: Additions<'_>, now_ms: i64, config: &StateConfig) -> Folded {
    let mut folded = Folded::default();
    let (mut parts, mut unique) = Parts::read_with_room(value, additions.records.len());
    folded.unreadable = parts.unreadable;
    for record in additions.records {
        if record.time_ms <= config.expired_at(now_ms) {
            folded.expired += 1;
            if kind.has_profile() {
                parts.profile.add(record, config.known_max());
            }
            continue;
        }
        match unique.note(EventSlot::new(record, true)) {
            Noted::New => folded.late += u32::from(record.time_ms <= config.horizon_at(now_ms)),
            Noted::Known { was_folded, same } => {
                folded.duplicates += u32::from(was_folded);
                folded.differing += u32::from(!same);
            }
        }
    }
    parts.take_events(unique);
    additions.values.iter().for_each(|value| parts.profile.load(*value));
    trim(&mut parts, kind, now_ms, config, &mut folded);
    folded.value = parts.encode();
    folded.changed = folded.value != value;
    folded
}

fn trim(parts: &mut Parts, kind: EntityKind, now_ms: i64, config: &StateConfig, folded: &mut Folded) {
    let known_max = if kind.has_profile() { config.known_max() } else { 0 };
    let remember = |parts: &mut Parts, slot: &EventSlot| {
        if known_max > 0 && slot.is_folded() {
            parts.profile.add(&slot.record(), known_max);
        }
    };
    for slot in parts.take_oldest(config.expired_at(now_ms), 0) {
        remember(parts, &slot);
    }
    for slot in parts.take_oldest(config.horizon_at(now_ms), config.exact_events()) {
        remember(parts, &slot);
        if slot.is_folded() {
            parts.panes.add(&slot.record(), config.pane_ms());
        }
    }
    for slot in parts.cap(config.events_max()) {
        remember(parts, &slot);
        folded.dropped += 1;
    }
    parts.panes.forget_ended_by(config.panes_expired_at(now_ms));
    parts.saturated_through_ms = parts.saturated_through_ms.filter(|through_ms| *through_ms > config.expired_at(now_ms));
    if kind.has_profile() {
        parts.profile.cap(config.known_max());
    }
}

/// What the guarded writer makes of a key: the new head in the place of the `expected_length` bytes that were read, and
/// behind it what was appended since.
///
/// A value that is shorter than that is another one, made after the key had expired: all of it stays, because one of each
/// identity counts whatever is written twice. This is the meaning of the function in Redis, which is tested against it.
pub fn splice(current: &[u8], expected_length: usize, new_head: &[u8]) -> Vec<u8> {
    [new_head, current.get(expected_length..).unwrap_or(current)].concat()
}
