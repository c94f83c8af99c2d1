use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    codes::Country,
    event::{EntityId, EntityKind, EventKind},
    profile::ProfileRecord,
    record::RecordId,
    state::{Additions, fold},
    testing::{BEGIN_MS, distinct_records, few_records, record, small_config, small_windows},
    windows::Window,
};

fn windows(lengths_ms: &[i64], skew_ms: i64) -> Windows {
    let length = |ms: &i64| Window::new(Duration::from_millis(ms.unsigned_abs())).unwrap();
    Windows::new(lengths_ms.iter().map(length).collect(), Duration::from_millis(skew_ms.unsigned_abs()), 512).unwrap()
}

/// As the decision path leaves it.
fn appended(records: &[Record]) -> EntityState {
    EntityState::parse(records.iter().map(Record::slot).collect::<Vec<_>>().as_flattened(), 999)
}

fn value_of(state: &EntityState, current: &Record, length_ms: i64, skew_ms: i64) -> WindowValues {
    evaluate(state, current, &windows(&[length_ms], skew_ms)).windows()[0]
}

/// The definition of a window, written as a sentence: each identity once, current event included, no cleverness.
fn oracle(records: &[Record], current: &Record, length_ms: i64, skew_ms: i64) -> WindowValues {
    let inside: Vec<&Record> = records
        .iter()
        .filter(|r| r.id != current.id)
        .filter(|r| r.time_ms > current.time_ms - length_ms && r.time_ms <= current.time_ms + skew_ms)
        .chain([current])
        .filter(|r| r.kind == EventKind::PaymentAttempt)
        .collect();
    let amounts: Vec<i64> = inside.iter().filter_map(|r| r.amount_base_minor).collect();
    let len = |n: usize| u32::try_from(n).unwrap();
    WindowValues {
        count: len(inside.len()),
        amounts: len(amounts.len()),
        sum_minor: amounts.iter().map(|a| a.unsigned_abs()).sum(),
        max_minor: amounts.iter().copied().max().unwrap_or(0),
        distinct_merchants: len(inside.iter().filter_map(|r| r.merchant).collect::<BTreeSet<_>>().len()),
        distinct_countries: len(inside.iter().filter_map(|r| r.country).collect::<BTreeSet<_>>().len()),
        distinct_devices: len(inside.iter().filter_map(|r| r.device).collect::<BTreeSet<_>>().len()),
        distinct_cards: len(inside.iter().filter_map(|r| r.card).collect::<BTreeSet<_>>().len()),
        approximate: false,
    }
}

#[test]
fn five_payments_inside_any_minute_are_seen_at_every_phase_offset_appended_or_folded() {
    let config = small_config(512);
    for phase_ms in (0..60_000).step_by(997) {
        let times = [0, 14_000, 30_000, 45_000, 59_999].map(|t| BEGIN_MS + phase_ms + t);
        let records: Vec<Record> = times.iter().zip(0..).map(|(t, n)| record(n, *t)).collect();
        let folded = fold(EntityKind::Card, Vec::new(), Additions { records: &records[..4], values: &[] }, times[4], &config).value;
        for state in [appended(&records[..4]), EntityState::parse(&folded, 512)] {
            assert_eq!(value_of(&state, &records[4], 60_000, 500).count, 5, "phase {phase_ms}");
        }
    }
}

#[test]
fn a_burst_of_a_busy_entity_is_seen_at_every_phase_offset_although_the_rest_is_in_panes() {
    let config = small_config(512);
    for phase_ms in (0..5_000).step_by(97) {
        let begin_ms = BEGIN_MS + phase_ms;
        let before: Vec<Record> = (0..60).map(|n| record(n, begin_ms - 90_000 + i64::from(n) * 1_000)).collect();
        let burst: Vec<Record> = (100..105).map(|n| record(n, begin_ms + i64::from(n - 100) * 4_000)).collect();
        let all = [before, burst.clone()].concat();
        let value = fold(EntityKind::Card, Vec::new(), Additions { records: &all, values: &[] }, burst[4].time_ms, &config).value;
        let state = EntityState::parse(&value, 512);
        assert!(!state.panes().as_slice().is_empty());
        let values = value_of(&state, &burst[4], 20_000, 500);
        assert_eq!((values.count, values.approximate), (5, false), "phase {phase_ms}");
    }
}

#[test]
fn the_window_opens_after_its_length_and_closes_after_the_skew() {
    let now = 100_000;
    let count = |t| value_of(&appended(&[record(1, t)]), &record(2, now), 60_000, 500).count;
    assert_eq!([count(40_000), count(40_001), count(100_500), count(100_501)], [1, 2, 2, 1]);
}

#[test]
fn a_failed_write_still_counts_the_current_event_and_a_good_one_counts_it_once() {
    let current = record(1, 5_000);
    let windows = Windows::default();
    let empty = evaluate(&EntityState::default(), &current, &windows);
    assert_eq!(empty, evaluate(&appended(&[current]), &current, &windows));
    assert!(empty.windows().iter().all(|values| values.count == 1));
}

#[test]
fn an_amount_without_a_rate_is_counted_and_not_summed_as_zero() {
    let current = Record { amount_base_minor: None, ..record(1, 5_000) };
    let alone = value_of(&EntityState::default(), &current, 1_000, 0);
    assert_eq!((alone.count, alone.sum(), alone.mean(), alone.max()), (1, None, None, None));
    let with_one = appended(&[Record { amount_base_minor: Some(300), ..record(2, 4_999) }]);
    let both = value_of(&with_one, &current, 1_000, 0);
    assert_eq!((both.count, both.mean()), (2, Some(300.0)));
}

#[test]
fn a_customer_in_another_country_an_hour_ago_is_told_from_one_at_home() {
    let country = |code| Country::from_letters(code);
    let home = Record { country: country("US"), device: Some(1), ..record(1, 1_000_000) };
    let abroad = Record { country: country("BR"), device: Some(2), ..record(2, 4_600_000) };
    let history = |records: &[Record], current: &Record| evaluate(&appended(records), current, &Windows::default()).history;
    let travelled = history(&[home], &abroad);
    assert_eq!(
        (travelled.since_other_country_ms, travelled.country_seen, travelled.device_seen),
        (Some(3_600_000), Some(false), Some(false))
    );
    assert_eq!((travelled.home_country, travelled.last_country, travelled.since_first_seen_ms), (country("US"), country("US"), 3_600_000));
    let stayed = history(&[home], &Record { country: country("US"), device: Some(1), ..abroad });
    assert_eq!((stayed.since_other_country_ms, stayed.country_seen, stayed.device_seen), (None, Some(true), Some(true)));
    assert_eq!(history(&[], &abroad), History::default());
    // Neither is it compared with itself once it has been recorded.
    assert_eq!(history(&[abroad], &abroad), History::default());
}

#[test]
fn a_customer_is_remembered_after_the_events_are_gone() {
    let config = small_config(512);
    let us = Record { country: Country::from_letters("US"), device: Some(7), ..record(1, BEGIN_MS) };
    let value = fold(EntityKind::User, Vec::new(), Additions { records: &[us], values: &[] }, BEGIN_MS, &config).value;
    let idle_ms = 86_400_000;
    let value = fold(EntityKind::User, value, Additions::default(), BEGIN_MS + idle_ms, &config).value;
    let state = EntityState::parse(&value, 512);
    assert_eq!(state.records().len(), 0);
    let now = Record { country: Country::from_letters("BR"), device: Some(7), ..record(2, BEGIN_MS + idle_ms) };
    let history = evaluate(&state, &now, &small_windows(512)).history;
    assert_eq!((history.device_seen, history.country_seen, history.since_last_ms), (Some(true), Some(false), None));
    assert_eq!((history.since_first_seen_ms, history.since_other_country_ms), (idle_ms, Some(idle_ms)));
    // A payment in flight, not folded yet, counts as well.
    let in_flight = Record { device: Some(8), ..record(3, now.time_ms - 5) };
    let with = EntityState::parse(&[value.as_slice(), &in_flight.slot()].concat(), 512);
    let history = evaluate(&with, &Record { device: Some(8), ..now }, &small_windows(512)).history;
    assert_eq!((history.device_seen, history.since_last_ms), (Some(true), Some(5)));
}

#[test]
fn home_is_what_a_batch_job_says_else_the_country_seen_first() {
    let config = small_config(512);
    let at = |id, code| Record { country: Country::from_letters(code), ..record(id, BEGIN_MS + i64::from(id)) };
    let records = [at(1, "US"), at(2, "BR"), at(3, "BR")];
    let home = |values: &[_]| {
        let value = fold(EntityKind::User, Vec::new(), Additions { records: &records, values }, BEGIN_MS, &config).value;
        evaluate(&EntityState::parse(&value, 512), &at(4, "BR"), &small_windows(512)).history.home_country
    };
    assert_eq!(home(&[]), Country::from_letters("US"));
    let said =
        ProfileRecord::home_country((EntityKind::User, EntityId([1; 16])), Country::from_letters("FR").unwrap(), 5, RecordId([1; 10]));
    assert_eq!(home(&[said.unwrap().stored()]), Country::from_letters("FR"));
}

proptest! {
    #[test]
    fn windows_agree_with_the_definition(
        records in few_records(), pick: prop::sample::Index, lengths_ms in prop::collection::btree_set(1_i64..200, 1..5), skew_ms in 0_i64..50,
    ) {
        let current = records[pick.index(records.len())];
        let state = appended(&records);
        let lengths_ms: Vec<i64> = lengths_ms.into_iter().collect();
        let found = evaluate(&state, &current, &windows(&lengths_ms, skew_ms));
        for (values, length_ms) in found.windows().iter().zip(&lengths_ms) {
            prop_assert_eq!(*values, oracle(&state.records().collect::<Vec<_>>(), &current, *length_ms, skew_ms));
        }
    }

    #[test]
    fn late_duplicate_and_reordered_events_change_nothing(records in few_records(), pick: prop::sample::Index) {
        let current = records[pick.index(records.len())];
        let replayed: Vec<Record> = records.iter().rev().chain(&records).copied().collect();
        let windows = windows(&[20, 60, 150], 10);
        prop_assert_eq!(evaluate(&appended(&replayed), &current, &windows), evaluate(&appended(&records), &current, &windows));
    }

    #[test]
    fn folded_windows_are_exact_up_to_the_horizon_and_beyond_it_off_by_less_than_a_pane(
        records in distinct_records(), folded_ms in 0_i64..100_000, decided_ms in -1_000_i64..30_000, ahead_ms in -500_i64..500,
    ) {
        // Folded at one time; the decision is a little later, or up to the margin earlier, by another clock.
        let (now_ms, windows) = (BEGIN_MS + folded_ms, small_windows(512));
        let current = Record { merchant: Some(3), ..record(200, now_ms + decided_ms.max(ahead_ms - 500)) };
        let seen: Vec<Record> = records.into_iter().filter(|record| record.time_ms <= now_ms).collect();
        let value = fold(EntityKind::User, Vec::new(), Additions { records: &seen, values: &[] }, now_ms, &small_config(512)).value;
        let state = EntityState::parse(&value, 512);
        let found = evaluate(&state, &current, &windows);
        for (values, length) in found.windows().iter().zip(windows.lengths()) {
            let exact = oracle(&seen, &current, length.length_ms(), 500);
            // A pane that counts may have begun before the window, by less than its width.
            let most = oracle(&seen, &current, length.length_ms() + 5_000, 500);
            if !values.approximate {
                prop_assert_eq!(*values, exact);
            }
            prop_assert!(length.length_ms() > 20_000 || !values.approximate);
            prop_assert!((exact.count..=most.count).contains(&values.count));
            prop_assert!((exact.amounts..=most.amounts).contains(&values.amounts));
            prop_assert!((exact.sum_minor..=most.sum_minor).contains(&values.sum_minor));
            prop_assert!((exact.max_minor..=most.max_minor).contains(&values.max_minor));
            // Few values, so sketches hardly err; they never fall below what the records show.
            prop_assert!(values.distinct_countries + 1 >= exact.distinct_countries && values.distinct_merchants <= most.distinct_merchants + 1);
        }
    }

    #[test]
    fn what_is_known_of_a_customer_does_not_depend_on_where_it_is_kept(records in distinct_records(), folded_ms in 0_i64..300_000) {
        let current = Record { device: Some(2), country: Country::from_letters("US"), ..record(200, BEGIN_MS + 301_000) };
        let windows = small_windows(512);
        let kept = |now_ms: i64| {
            let config = small_config(512);
            let value = fold(EntityKind::User, Vec::new(), Additions { records: &records, values: &[] }, BEGIN_MS + 90_000, &config).value;
            let value = fold(EntityKind::User, value, Additions::default(), now_ms, &config).value;
            evaluate(&EntityState::parse(&value, 512), &current, &windows).history
        };
        let (early, late) = (kept(BEGIN_MS + 90_000), kept(BEGIN_MS + 90_000 + folded_ms));
        let known = |h: History| (h.device_seen, h.country_seen, h.since_other_country_ms, h.since_first_seen_ms, h.last_country, h.home_country);
        prop_assert_eq!(known(early), known(late));
    }
}
