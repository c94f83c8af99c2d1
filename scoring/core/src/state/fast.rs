//! The usual case of folding: the decision path has appended the records of the log already, and nothing is due to be
//! trimmed. Then the only change is a bit. Pure.

use super::{Additions, Folded, StateConfig, unique::Places};
use crate::{
    panes::Pane,
    slot::{EventSlot, SLOT_BYTES, SlotBytes, bytes_at, id_of, is_event, mark_folded, tag, time_ms_of, time_of},
};

/// With more records a value is rather taken apart.
const RECORDS_MAX: usize = 8;
const SLOTS_MAX: usize = 2_048;

/// Marks the records in the value, and says what a whole folding would have; `None`, with nothing done, when more than marks
/// would change or that cannot be told at a glance.
pub(super) fn mark_in_place(value: &mut [u8], additions: Additions<'_>, now_ms: i64, config: &StateConfig) -> Option<Folded> {
    let (slots, torn) = value.as_chunks_mut::<SLOT_BYTES>();
    let few = slots.len() <= SLOTS_MAX && (1..=RECORDS_MAX).contains(&additions.records.len());
    if !torn.is_empty() || !few || !additions.values.is_empty() {
        return None;
    }
    let head = slots.iter().position(|slot| slot[0] == tag::EVENT)?;
    let (head, events) = slots.split_at_mut(head);
    if !head_stays(head, now_ms, config) || !events_stay(events, now_ms, config) {
        return None;
    }
    let expired = |time_ms: i64| time_ms <= config.expired_at(now_ms);
    let mut wanted = [0; RECORDS_MAX];
    for (place, record) in wanted.iter_mut().zip(additions.records) {
        let slot = EventSlot::new(record, false);
        *place = events.iter().position(|event| id_of(event) == record.id)?;
        let same = EventSlot::read(&events[*place]).is_some_and(|event| event.unmarked() == slot);
        if !same || expired(record.time_ms) {
            return None;
        }
    }
    let mut folded = Folded::default();
    for place in &wanted[..additions.records.len()] {
        let event = &mut events[*place];
        let before = *event;
        mark_folded(event);
        let changed = *event != before;
        folded.duplicates += u32::from(!changed);
        folded.changed |= changed;
    }
    Some(folded)
}

/// Whether the slots before the events would be written as they are.
fn head_stays(head: &[SlotBytes], now_ms: i64, config: &StateConfig) -> bool {
    head.iter().all(|slot| match slot[0] {
        tag::PROFILE | tag::DEVICES | tag::COUNTRIES | tag::BATCH_VALUE | tag::PANE_SKETCH => true,
        tag::PANE => !Pane::slot_ends_by(slot, config.panes_expired_at(now_ms)),
        tag::SATURATED => time_of(bytes_at(slot, 1)) > config.expired_at(now_ms),
        _ => false,
    })
}

/// Whether these are records only, one of each identity and in order, with none to leave.
fn events_stay(events: &[SlotBytes], now_ms: i64, config: &StateConfig) -> bool {
    let oldest_ms = events.first().map_or(i64::MIN, time_ms_of);
    let young = oldest_ms > config.horizon_at(now_ms) || events.len() <= config.exact_events();
    if !young || oldest_ms <= config.expired_at(now_ms) || events.len() > config.events_max() {
        return false;
    }
    let mut places = Places::with_room_for(events.len());
    let mut before_ms = i64::MIN;
    events.iter().enumerate().all(|(place, event)| {
        let (time_ms, id) = (time_ms_of(event), id_of(event));
        let rising = before_ms < time_ms || (before_ms == time_ms && place > 0 && id_of(&events[place - 1]) < id);
        before_ms = time_ms;
        rising && is_event(event) && places.find_or_set(id, place, |place| id_of(&events[place])).is_none()
    })
}
