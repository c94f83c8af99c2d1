use proptest::prelude::*;

use super::{fast::mark_in_place, fold::fold_whole, *};
use crate::{
    codes::Country,
    event::{EntityId, EventKind},
    profile::ProfileRecord,
    record::RecordId,
    slot::{EventSlot, SLOT_BYTES},
    testing::{BEGIN_MS, any_record, distinct_records, few_records, record, small_config},
};

/// All of [`distinct_records`] are over, none is expired.
const NOW: i64 = BEGIN_MS + 100_000;
const USER: EntityKind = EntityKind::User;

fn fold_in(value: &[u8], records: &[Record], now_ms: i64) -> Vec<u8> {
    fold(USER, value.to_vec(), Additions { records, values: &[] }, now_ms, &small_config(512)).value
}

fn appended(value: &[u8], records: &[Record]) -> Vec<u8> {
    [value, records.iter().map(Record::slot).collect::<Vec<_>>().as_flattened()].concat()
}

fn records_of(value: &[u8]) -> Vec<Record> {
    state(value).records().collect()
}

fn state(value: &[u8]) -> EntityState {
    EntityState::parse(value, 512)
}

/// Attempts in all panes and records: everything that is counted.
fn attempts(value: &[u8]) -> usize {
    let state = state(value);
    let in_panes: u32 = state.panes().as_slice().iter().map(crate::panes::Pane::attempts).sum();
    usize::try_from(in_panes).unwrap() + state.records().filter(Record::is_attempt).count()
}

#[test]
fn a_retry_with_other_content_counts_once_and_all_readers_keep_the_same_one() {
    let first = record(1, NOW);
    let differing = Record { amount_base_minor: Some(7), ..first };
    let (forth, back) = (appended(&[], &[first, differing]), appended(&[], &[differing, first]));
    assert_eq!(state(&forth), state(&back));
    assert_eq!(state(&forth).records().len(), 1);
    assert_eq!(fold_in(&forth, &[first], NOW), fold_in(&back, &[differing], NOW));
}

#[test]
fn a_differing_retry_that_wins_over_a_folded_event_is_still_folded() {
    let records: Vec<Record> = (0..9).map(|n| record(n, NOW - 60_000 + i64::from(n))).collect();
    let retry = Record { amount_base_minor: Some(7), ..records[0] };
    let value = appended(&fold_in(&[], &records, NOW - 60_000), &[retry]);
    let state = state(&fold_in(&value, &[], NOW));
    let pane = state.panes().as_slice()[0];
    assert_eq!((pane.attempts(), pane.sum_minor()), (5, 407));
}

#[test]
fn an_event_that_the_decision_path_has_appended_is_only_marked() {
    let records: Vec<Record> = (0..20).map(|n| record(n, NOW + i64::from(n))).collect();
    let mut value = appended(&fold_in(&[], &records[..19], NOW), &records[19..]);
    let before = value.clone();
    let config = small_config(512);
    let log = Additions { records: &records[19..], values: &[] };
    let marked = mark_in_place(&mut value, log, NOW, &config).unwrap();
    assert_eq!((marked.changed, marked.duplicates, value.iter().zip(&before).filter(|(a, b)| a != b).count()), (true, 0, 1));
    let again = mark_in_place(&mut value, log, NOW, &config).unwrap();
    assert_eq!((again.changed, again.duplicates), (false, 1));
    // Trimming is due: no shortcut.
    assert_eq!(mark_in_place(&mut value, log, NOW + 60_000, &config), None);
}

#[test]
fn a_dense_entity_keeps_its_horizon_exact_and_panes_beyond() {
    let records: Vec<Record> = (0..100).map(|n| record(n, NOW - 99_000 + i64::from(n) * 1_000)).collect();
    let state = state(&fold_in(&[], &records, NOW));
    // Twenty seconds, and one for decisions whose time is behind the builder's clock.
    assert_eq!((state.records().len(), state.records().next().unwrap().time_ms), (21, NOW - 20_000));
    assert_eq!(state.panes().as_slice().iter().map(|pane| pane.attempts()).sum::<u32>(), 79);
    assert_eq!(state.panes().as_slice().len(), 16);
}

#[test]
fn a_sparse_entity_is_exact_over_the_longest_window_even_when_its_events_come_late() {
    let records: Vec<Record> = (0..4).map(|n| record(n, NOW - 90_000 + i64::from(n) * 1_000)).collect();
    let folded = fold(USER, Vec::new(), Additions { records: &records, values: &[] }, NOW, &small_config(512));
    assert_eq!((folded.late, folded.expired), (4, 0));
    assert_eq!(records_of(&folded.value), records);
}

#[test]
fn an_event_late_for_a_dense_entity_goes_to_its_pane() {
    let records: Vec<Record> = (0..30).map(|n| record(n, NOW - i64::from(n) * 500)).collect();
    let value = fold_in(&[], &records, NOW);
    let late = record(99, NOW - 50_000);
    let folded = fold(USER, value, Additions { records: &[late], values: &[] }, NOW, &small_config(512));
    assert_eq!(folded.late, 1);
    let pane = state(&folded.value).panes().as_slice()[0];
    assert_eq!((pane.attempts(), pane.last_ms()), (1, NOW - 50_000));
}

#[test]
fn what_is_older_than_the_longest_window_is_counted_and_only_makes_known() {
    let late = |kind| fold(kind, Vec::new(), Additions { records: &[record(1, NOW - 101_000)], values: &[] }, NOW, &small_config(512));
    let ip = late(EntityKind::Ip);
    assert_eq!((ip.expired, ip.changed, ip.value.len()), (1, false, 0));
    let user = late(USER);
    let after = state(&user.value);
    assert_eq!((user.expired, after.records().len(), after.panes().as_slice().len()), (1, 0, 0));
    assert_eq!(after.profile().first_seen_ms(), Some(NOW - 101_000));
    // As if it had come in time and had grown old.
    let in_time = fold_in(&fold_in(&[], &[record(1, NOW - 101_000)], NOW - 100_000), &[], NOW);
    assert_eq!(user.value, in_time);
}

#[test]
fn what_only_the_decision_path_wrote_is_dropped_at_the_horizon_and_comes_with_the_log() {
    let records: Vec<Record> = (0..9).map(|n| record(n, NOW - 60_000 + i64::from(n))).collect();
    let value = appended(&fold_in(&[], &records[1..], NOW - 50_000), &records[..1]);
    let without = fold_in(&value, &[], NOW);
    assert_eq!(attempts(&without), 8);
    assert_eq!(fold_in(&without, &records[..1], NOW), fold_in(&[], &records, NOW));
}

#[test]
fn a_value_beyond_its_cap_keeps_the_newest_and_says_so_until_the_window_has_passed() {
    let records: Vec<Record> = (0..9).map(|n| record(n, NOW + i64::from(n))).collect();
    let read = EntityState::parse(&appended(&[], &records), 6);
    assert_eq!((read.records().collect(), read.saturated_through_ms()), (records[3..].to_vec(), Some(NOW + 2)));
    assert!(!EntityState::parse(&appended(&[], &records[..6]), 6).saturated());
    assert!(!EntityState::parse(&appended(&[], &[records[0]; 9]), 6).saturated());

    let config = small_config(6);
    let folded = fold(USER, Vec::new(), Additions { records: &records, values: &[] }, NOW, &config);
    let after = EntityState::parse(&folded.value, 6);
    assert_eq!((folded.dropped, after.saturated_through_ms()), (3, read.saturated_through_ms()));
    assert!(after.records().eq(read.records()));
    let later = |now_ms| fold(USER, folded.value.clone(), Additions::default(), now_ms, &config).value;
    assert!(EntityState::parse(&later(NOW + 101_001), 6).saturated());
    assert!(!EntityState::parse(&later(NOW + 101_002), 6).saturated());
}

#[test]
fn panes_are_forgotten_one_pane_after_the_longest_window() {
    let records: Vec<Record> = (0..30).map(|n| record(n, NOW - i64::from(n) * 500)).collect();
    let value = fold_in(&[], &records, NOW + 30_000);
    let panes_at = |now_ms| state(&fold_in(&value, &[], now_ms)).panes().as_slice().to_vec();
    let first_end_ms = panes_at(NOW + 30_000)[0].end_ms();
    assert_eq!(panes_at(first_end_ms + 105_999)[0].end_ms(), first_end_ms);
    assert!(panes_at(first_end_ms + 106_000).iter().all(|pane| pane.end_ms() > first_end_ms));
    // Nor does a payment that only has to be marked keep them: the shortcut is not taken.
    let (mut sparse, config) = (fold_in(&value, &[], NOW + 60_000), small_config(512));
    let log = Additions { records: &records[..1], values: &[] };
    let marks = |value: &mut Vec<u8>, now_ms| mark_in_place(value, log, now_ms, &config).is_some();
    let last_ms = state(&sparse).panes().as_slice()[0].end_ms() + 105_999;
    assert!(last_ms < NOW + 100_000 && marks(&mut sparse, last_ms) && !marks(&mut sparse, last_ms + 1));
}

#[test]
fn an_event_enters_the_profile_when_it_leaves_the_records() {
    let events: Vec<Record> = (0..6)
        .map(|n| Record { country: Country::from_letters("US"), device: Some(u32::from(n) + 1), ..record(n, NOW - 60_000 + i64::from(n)) })
        .collect();
    let state_of =
        |kind| EntityState::parse(&fold(kind, Vec::new(), Additions { records: &events, values: &[] }, NOW, &small_config(512)).value, 512);
    let user = state_of(USER);
    assert_eq!(user.profile().devices().iter().map(|(device, _)| device).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(user.profile().first_seen_ms(), Some(NOW - 60_000));
    assert_eq!(*state_of(EntityKind::Ip).profile(), Profile::default());
    // An idle customer: the events are gone, what is known of it stays.
    let idle = fold_in(&fold_in(&[], &events, NOW), &[], NOW + 500_000);
    assert_eq!((state(&idle).records().len(), state(&idle).panes().as_slice().len()), (0, 0));
    assert_eq!(
        state(&idle).profile().countries().iter().map(|(country, _)| country).collect::<Vec<_>>(),
        [Country::from_letters("US").unwrap()]
    );
}

#[test]
fn an_upload_is_folded_and_survives_events() {
    let upload = ProfileRecord::new((USER, EntityId([1; 16])), "mean_amount", 12.5, 100, RecordId([1; 10])).unwrap();
    let folded =
        fold(USER, appended(&[], &[record(1, NOW)]), Additions { records: &[], values: &[upload.stored()] }, NOW, &small_config(512));
    let value = fold_in(&folded.value, &[record(1, NOW), record(2, NOW)], NOW);
    assert_eq!((state(&value).profile().batch_value("mean_amount"), state(&value).records().len()), (Some((12.5, 100)), 2));
}

#[test]
fn slots_of_a_newer_version_are_counted_and_kept_and_damage_is_counted_and_dropped() {
    let newer = [0x02; SLOT_BYTES];
    let mut damaged = record(3, NOW).slot();
    damaged[20] = 0x70;
    let value = [newer.as_slice(), &record(1, NOW).slot(), &damaged, &record(2, NOW).slot(), &[1, 2, 3]].concat();
    let read = state(&value);
    assert_eq!((read.records().len(), read.unreadable()), (2, 3));
    let folded = fold(USER, value, Additions::default(), NOW, &small_config(512));
    assert_eq!((folded.unreadable, folded.changed, folded.value.len()), (3, true, 3 * SLOT_BYTES));
    assert_eq!(&folded.value[..SLOT_BYTES], newer);
}

#[test]
fn a_value_that_was_made_anew_after_the_key_expired_keeps_all_that_was_appended() {
    assert_eq!(splice(b"abcdef", 4, b"XY"), b"XYef");
    assert_eq!(splice(b"", 4, b"XY"), b"XY");
    assert_eq!(splice(b"ab", 4, b"XY"), b"XYab");
}

/// All that there are, and one that there is not.
const TAGS: &[u8] = &[0x01, 0x01, 0x11, 0x12, 0x21, 0x22, 0x23, 0x24, 0x31, 0xff];

/// What may happen to a store while its builder folds a log.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The decision path appends the record of this place.
    Append(usize),
    /// The builder reads the value and computes the next one from the log, up to so many records.
    Read(usize),
    /// It writes it, with its position.
    Write,
    /// It dies in between, and starts again from the stored position.
    Crash,
    /// A replica takes over that has value and position as they were some writes ago.
    Rollback(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<prop::sample::Index>().prop_map(|at| Step::Append(at.index(40))),
        3 => (1_usize..8).prop_map(Step::Read),
        3 => Just(Step::Write),
        1 => Just(Step::Crash),
        1 => (0_usize..4).prop_map(Step::Rollback),
    ]
}

/// One shard with one entity: a value and, in step with it, the position in the log.
struct Shard {
    value: Vec<u8>,
    position: usize,
    history: Vec<(Vec<u8>, usize)>,
    /// Length and position that the builder has read, and what it will write.
    pending: Option<(usize, usize, Vec<u8>)>,
}

impl Shard {
    fn step(&mut self, step: Step, log: &[Record], now_ms: i64) {
        match step {
            Step::Append(at) => self.value = appended(&self.value, &log[at % log.len()..][..1]),
            Step::Read(count) => {
                let next = (self.position + count).min(log.len());
                self.pending = Some((self.value.len(), next, fold_in(&self.value, &log[self.position..next], now_ms)));
            }
            Step::Write => {
                if let Some((length, next, head)) = self.pending.take() {
                    self.value = splice(&self.value, length, &head);
                    self.position = next;
                    self.history.push((self.value.clone(), self.position));
                }
            }
            Step::Crash => self.pending = None,
            Step::Rollback(writes) => {
                self.pending = None;
                let kept = self.history.len().saturating_sub(writes).max(1);
                self.history.truncate(kept);
                (self.value, self.position) = self.history[kept - 1].clone();
            }
        }
    }
}

proptest! {
    #[test]
    fn reading_is_what_the_definition_says_in_any_order(records in few_records(), at: prop::sample::Index) {
        // Of each identity the smallest by (content, time), by (time, id).
        let slots: Vec<EventSlot> = records.iter().map(|record| EventSlot::new(record, false)).collect();
        let wins = |slot: &EventSlot| !slots.iter().any(|other| other.id() == slot.id() && other.wins_over(slot));
        let mut expected: Vec<Record> = slots.iter().filter(|slot| wins(slot)).map(EventSlot::record).collect();
        expected.sort_by_key(|record| (record.time_ms, record.id));
        expected.dedup();
        let mut rotated = records.clone();
        rotated.rotate_left(at.index(records.len()));
        prop_assert_eq!(records_of(&appended(&[], &rotated)), expected);
    }

    #[test]
    fn the_shortcut_gives_the_same_bytes(
        first in distinct_records(), then in any::<prop::sample::Index>(), log in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..12), 0..4),
        unmarked in 0_usize..6, age_ms in 0_i64..130_000, events_max in 4_usize..45,
    ) {
        let config = small_config(events_max);
        let (folded, rest) = first.split_at(then.index(first.len()));
        let value = fold(USER, Vec::new(), Additions { records: folded, values: &[] }, NOW - 60_000, &config).value;
        let mut value = appended(&value, &rest[..unmarked.min(rest.len())]);
        if unmarked % 2 == 0 {
            value = fold(USER, value, Additions::default(), NOW - 50_000, &config).value;
        }
        // Mostly as it was appended, at times differing.
        let pick = |(at, change): &(prop::sample::Index, u8)| {
            let record = first[at.index(first.len())];
            if *change == 0 { Record { amount_base_minor: Some(99), ..record } } else { record }
        };
        let log: Vec<Record> = log.iter().map(pick).collect();
        let additions = Additions { records: &log, values: &[] };
        let now_ms = NOW - 60_000 + age_ms;
        prop_assert_eq!(fold(USER, value.clone(), additions, now_ms, &config), fold_whole(USER, &value, additions, now_ms, &config));
    }

    #[test]
    fn folding_twice_is_folding_once(records in few_records(), more in few_records()) {
        let (now_ms, value) = (1_000, appended(&[], &more));
        let once = fold_in(&value, &records, now_ms);
        let twice = fold(USER, once.clone(), Additions { records: &records, values: &[] }, now_ms, &small_config(512));
        prop_assert_eq!((&twice.value, twice.changed, twice.late), (&once, false, 0));
    }

    #[test]
    fn batches_may_come_in_any_order_and_at_any_time(
        records in distinct_records(), cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_i64..100_000), 1..5),
    ) {
        // Each batch at its own time, in rising order; then everything is compacted at the same time.
        let story = |records: &[Record]| {
            let mut cuts: Vec<(usize, i64)> = cuts.iter().map(|(at, after_ms)| (at.index(records.len()), BEGIN_MS + after_ms)).collect();
            cuts.sort_unstable();
            let mut now_ms: Vec<i64> = cuts.iter().map(|cut| cut.1).collect();
            now_ms.sort_unstable();
            let (mut value, mut done) = (Vec::new(), 0);
            for ((cut, _), now_ms) in cuts.iter().zip(now_ms) {
                value = fold_in(&value, &records[done..*cut], now_ms);
                done = *cut;
            }
            fold_in(&value, &records[done..], NOW)
        };
        let mut backward = records.clone();
        backward.reverse();
        prop_assert_eq!(story(&records), story(&backward));
        prop_assert_eq!(story(&records), fold_in(&[], &records, NOW));
    }

    #[test]
    fn two_regions_that_both_took_traffic_are_healed_by_folding_both_logs_in_any_order(
        records in distinct_records(), here in any::<u64>(), appended_here in any::<u64>(), appended_there in any::<u64>(),
    ) {
        let chosen = |bits: u64| -> Vec<Record> { records.iter().zip(0..).filter(|(_, n)| bits >> n & 1 == 1).map(|(record, _)| *record).collect() };
        let (log_here, log_there) = (chosen(here), chosen(!here));
        let east = fold_in(&appended(&[], &chosen(appended_here)), &log_here, NOW - 40_000);
        let west = fold_in(&appended(&[], &chosen(appended_there)), &log_there, NOW - 40_000);
        let healed_east = fold_in(&east, &log_there, NOW);
        let healed_west = fold_in(&west, &log_here, NOW);
        prop_assert_eq!(state(&healed_east), state(&healed_west));
        prop_assert_eq!(&healed_east, &healed_west);
        prop_assert_eq!(healed_east, fold_in(&[], &records, NOW));
    }

    #[test]
    fn any_interleaving_of_appends_crashes_and_rollbacks_counts_each_event_once(
        log in distinct_records(), steps in prop::collection::vec(any_step(), 0..60),
    ) {
        let mut shard = Shard { value: Vec::new(), position: 0, history: vec![(Vec::new(), 0)], pending: None };
        for (step, n) in steps.into_iter().zip(0..) {
            shard.step(step, &log, BEGIN_MS + n * 1_000);
        }
        shard.step(Step::Read(usize::MAX / 2), &log, NOW);
        shard.step(Step::Write, &log, NOW);
        prop_assert_eq!(shard.position, log.len());
        prop_assert_eq!(attempts(&shard.value), log.iter().filter(|record| record.is_attempt()).count());
    }

    #[test]
    fn appends_between_reading_and_writing_are_kept(log in distinct_records(), steps in prop::collection::vec(any_step(), 0..60)) {
        // At one time, so that nothing is trimmed before its log record has come: all stores are then equal.
        let mut shard = Shard { value: Vec::new(), position: 0, history: vec![(Vec::new(), 0)], pending: None };
        let mut appended = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Append(at) => drop(appended.insert(log[at % log.len()].id)),
                Step::Rollback(_) => continue,
                _ => {}
            }
            shard.step(step, &log, BEGIN_MS);
            let there = records_of(&shard.value);
            prop_assert!(appended.iter().all(|id| there.iter().any(|record| record.id == *id)));
        }
        shard.step(Step::Read(usize::MAX / 2), &log, NOW);
        shard.step(Step::Write, &log, NOW);
        prop_assert_eq!(shard.value, fold_in(&[], &log, NOW));
    }

    #[test]
    fn any_bytes_can_be_read_and_folded(
        slots in prop::collection::vec((any::<[u8; 32]>(), prop::sample::select(TAGS)), 0..60),
        torn in 0_usize..32, record in any_record(), now_ms: i64,
    ) {
        let mut value: Vec<u8> = Vec::new();
        for (mut slot, tag) in slots {
            slot[0] = tag;
            value.extend(slot);
        }
        value.truncate(value.len().saturating_sub(torn));
        EntityState::parse(&value, 7);
        let config = small_config(20);
        let folded = fold(USER, value, Additions { records: &[record], values: &[] }, now_ms, &config);
        prop_assert!(folded.value.len().is_multiple_of(SLOT_BYTES));
        let again = fold(USER, folded.value, Additions::default(), now_ms, &config);
        prop_assert!(!again.changed);
    }

    #[test]
    fn outcomes_never_count_as_attempts(records in distinct_records()) {
        let outcomes: Vec<Record> = records.iter().map(|record| Record { kind: EventKind::Outcome, ..*record }).collect();
        prop_assert_eq!(attempts(&fold_in(&[], &outcomes, NOW)), 0);
    }
}
