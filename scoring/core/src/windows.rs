//! Windows over event sets: exact at every phase offset, because they are computed from the events themselves. Pure.
//!
//! The window of length w at event time t is (t - w, t + skew]: events stamped by a pod whose clock is ahead count. The
//! current event always counts, whether or not it has been recorded. Only payment attempts count; outcomes, refunds and
//! the like are kept in the sets and are no payments.

use std::{fmt, str::FromStr, time::Duration};

use domain::duration::{self, InvalidDuration};
use serde::{Deserialize, Serialize};

use crate::{
    encoding::Record,
    set::{EVENTS_PER_ENTITY_MAX, EventSet},
};

const WINDOWS_MAX: usize = 8;
const HOUR_MS: i64 = 3_600_000;
const LENGTH_MS_MAX: i64 = 7 * 24 * HOUR_MS;
const SKEW_MS_MAX: i64 = 60_000;
const EVENTS_MAX: usize = 65_536;

/// The length of a window, such as `1m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    length_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWindows {
    #[error(transparent)]
    Unreadable(#[from] InvalidDuration),
    #[error("window {0}: a window is 1ms to 168h long")]
    Length(String),
    #[error("windows: give 1 to {WINDOWS_MAX} windows, each longer than the one before it, such as [5s, 1m, 1h, 24h]")]
    Order,
    #[error("clock skew {0}: at most 60s can be allowed for")]
    Skew(String),
    #[error("events per entity: {0} is not within 1 to {EVENTS_MAX}")]
    EventsMax(usize),
}

impl Window {
    /// # Errors
    /// When the length is 0 or more than seven days.
    pub fn new(length: Duration) -> Result<Self, InvalidWindows> {
        let length_ms = i64::try_from(length.as_millis()).ok().filter(|ms| (1..=LENGTH_MS_MAX).contains(ms));
        length_ms.map(|length_ms| Self { length_ms }).ok_or_else(|| InvalidWindows::Length(duration::format(length)))
    }

    pub fn length_ms(self) -> i64 {
        self.length_ms
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A day is "24h" in manifests, in the names of features and here.
        match (self.length_ms % HOUR_MS, self.length_ms / HOUR_MS) {
            (0, hours) => write!(f, "{hours}h"),
            _ => f.write_str(&duration::format(Duration::from_millis(self.length_ms.unsigned_abs()))),
        }
    }
}

impl FromStr for Window {
    type Err = InvalidWindows;
    fn from_str(text: &str) -> Result<Self, InvalidWindows> {
        Self::new(duration::parse(text)?)
    }
}

impl TryFrom<String> for Window {
    type Error = InvalidWindows;
    fn try_from(text: String) -> Result<Self, InvalidWindows> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

/// Everything that fixes what a window feature is: part of the fingerprint of the feature schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    lengths: Vec<Window>,
    skew_ms: i64,
    events_max: usize,
}

impl Default for Windows {
    /// 5s, 1m, 1h and 24h, half a second of clock skew, 512 events an entity.
    fn default() -> Self {
        let lengths = [5_000, 60_000, 3_600_000, 86_400_000].map(|length_ms| Window { length_ms }).to_vec();
        Self { lengths, skew_ms: 500, events_max: EVENTS_PER_ENTITY_MAX }
    }
}

impl Windows {
    /// # Errors
    /// When there are none or too many, when they do not rise, or when skew or cap are out of bounds.
    pub fn new(lengths: Vec<Window>, skew: Duration, events_max: usize) -> Result<Self, InvalidWindows> {
        let rising = lengths.windows(2).all(|pair| pair[0] < pair[1]);
        if lengths.is_empty() || lengths.len() > WINDOWS_MAX || !rising {
            return Err(InvalidWindows::Order);
        }
        let skew_ms = i64::try_from(skew.as_millis()).ok().filter(|ms| *ms <= SKEW_MS_MAX);
        let skew_ms = skew_ms.ok_or_else(|| InvalidWindows::Skew(duration::format(skew)))?;
        if !(1..=EVENTS_MAX).contains(&events_max) {
            return Err(InvalidWindows::EventsMax(events_max));
        }
        Ok(Self { lengths, skew_ms, events_max })
    }

    /// Shortest first.
    pub fn lengths(&self) -> &[Window] {
        &self.lengths
    }

    pub fn longest(&self) -> Window {
        self.lengths.last().copied().unwrap_or(Window { length_ms: LENGTH_MS_MAX })
    }

    pub fn skew_ms(&self) -> i64 {
        self.skew_ms
    }

    /// How many events a set keeps.
    pub fn events_max(&self) -> usize {
        self.events_max
    }

    /// The events that any window at `time_ms` may need: after the first, up to and including the second.
    pub fn reach(&self, time_ms: i64) -> (i64, i64) {
        (time_ms.saturating_sub(self.longest().length_ms), time_ms.saturating_add(self.skew_ms))
    }

    /// An empty set with this configuration's bound.
    pub fn empty_set(&self) -> EventSet {
        EventSet::new(self.events_max)
    }
}

/// What one window holds. Amounts are minor units of the base currency, over the attempts whose rate was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WindowValues {
    pub count: u32,
    /// How many of `count` have a known amount. With none, sum, mean and maximum are not known.
    pub amounts: u32,
    pub sum_minor: i128,
    pub max_minor: i64,
    pub distinct_merchants: u32,
    pub distinct_countries: u32,
    pub distinct_devices: u32,
    pub distinct_cards: u32,
}

impl WindowValues {
    /// `None` when no amount is known.
    pub fn sum(&self) -> Option<f64> {
        (self.amounts > 0).then_some(self.sum_minor as f64)
    }

    /// `None` when no amount is known.
    pub fn mean(&self) -> Option<f64> {
        self.sum().map(|sum| sum / f64::from(self.amounts))
    }

    /// `None` when no amount is known.
    pub fn max(&self) -> Option<f64> {
        (self.amounts > 0).then_some(self.max_minor as f64)
    }
}

/// The values of one window: those of `set` inside it, and the current event.
pub fn evaluate(set: &EventSet, current: &Record, window: Window, skew_ms: i64) -> WindowValues {
    let (after_ms, through_ms) = (current.time_ms.saturating_sub(window.length_ms), current.time_ms.saturating_add(skew_ms));
    let mut values = WindowValues::default();
    let mut distinct = [const { Vec::new() }; 4];
    // The current event is taken from the caller even if the set has it: a differing retry must not move it elsewhere.
    let others = set.between(after_ms, through_ms).iter().filter(|record| record.identity != current.identity);
    for record in others.chain([current]).filter(|record| record.is_attempt()) {
        values.count = values.count.saturating_add(1);
        if let Some(amount) = record.amount_base_minor {
            values.amounts = values.amounts.saturating_add(1);
            values.sum_minor = values.sum_minor.saturating_add(i128::from(amount));
            values.max_minor = values.max_minor.max(amount);
        }
        let country = record.country.map(|country| u32::from(u16::from_be_bytes(country.letters())));
        for (seen, value) in distinct.iter_mut().zip([record.merchant, country, record.device, record.card]) {
            seen.extend(value);
        }
    }
    let [merchants, countries, devices, cards] = distinct.map(count_distinct);
    WindowValues {
        distinct_merchants: merchants,
        distinct_countries: countries,
        distinct_devices: devices,
        distinct_cards: cards,
        ..values
    }
}

fn count_distinct(mut seen: Vec<u32>) -> u32 {
    seen.sort_unstable();
    seen.dedup();
    u32::try_from(seen.len()).unwrap_or(u32::MAX)
}

/// How the current event compares with what its entity did before, inside the longest window. This is the profile of the
/// first schema: derived from the event set, so it merges and replicates as the set does, and forgets when the set does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Attempts other than the current one.
    pub others: u32,
    /// `None` without another attempt. 0 when the other one is stamped later, by a clock that is ahead.
    pub since_last_ms: Option<i64>,
    /// Since the last attempt in another country than the current one's: the raw material of impossible travel.
    pub since_other_country_ms: Option<i64>,
    /// Whether an earlier attempt used the same device; `None` when there is nothing to compare with.
    pub device_seen: Option<bool>,
    pub country_seen: Option<bool>,
    pub merchant_seen: Option<bool>,
    /// Over the other attempts with a known amount.
    pub others_amounts: u32,
    pub others_sum_minor: i128,
}

impl History {
    /// The mean amount of the others; `None` when none is known.
    pub fn others_mean(&self) -> Option<f64> {
        (self.others_amounts > 0).then(|| self.others_sum_minor as f64 / f64::from(self.others_amounts))
    }
}

/// Compares the current event with the other attempts of `set` inside the longest window.
pub fn history(set: &EventSet, current: &Record, windows: &Windows) -> History {
    let (after_ms, through_ms) = windows.reach(current.time_ms);
    let mut history = History::default();
    let others = set.between(after_ms, through_ms).iter().filter(|record| record.is_attempt() && record.identity != current.identity);
    // In the order of time, so that what is written last is the latest.
    for other in others {
        let since_ms = Some(current.time_ms.saturating_sub(other.time_ms).max(0));
        history.others = history.others.saturating_add(1);
        history.since_last_ms = since_ms;
        if differ(other.country, current.country) == Some(true) {
            history.since_other_country_ms = since_ms;
        }
        note_seen(&mut history.device_seen, differ(other.device, current.device));
        note_seen(&mut history.country_seen, differ(other.country, current.country));
        note_seen(&mut history.merchant_seen, differ(other.merchant, current.merchant));
        if let Some(amount) = other.amount_base_minor {
            history.others_amounts = history.others_amounts.saturating_add(1);
            history.others_sum_minor = history.others_sum_minor.saturating_add(i128::from(amount));
        }
    }
    history
}

/// `None` when either is not known.
fn differ<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<bool> {
    Some(a? != b?)
}

fn note_seen(seen: &mut Option<bool>, differs: Option<bool>) {
    if let Some(differs) = differs {
        *seen = Some(seen.unwrap_or(false) || !differs);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::{
        codes::Country,
        event::EventKind,
        testing::{few_records, record},
    };

    fn window(length_ms: i64) -> Window {
        Window { length_ms }
    }

    /// The definition of a window, written as a sentence: each identity once, current event included, no cleverness.
    fn oracle(records: &[Record], current: &Record, length_ms: i64, skew_ms: i64) -> WindowValues {
        let set = EventSet::from_records(records.iter().copied(), 999);
        let inside: Vec<&Record> = set
            .records()
            .iter()
            .filter(|r| r.identity != current.identity)
            .filter(|r| r.time_ms > current.time_ms - length_ms && r.time_ms <= current.time_ms + skew_ms)
            .chain([current])
            .filter(|r| r.kind == EventKind::PaymentAttempt)
            .collect();
        let amounts: Vec<i64> = inside.iter().filter_map(|r| r.amount_base_minor).collect();
        let len = |n: usize| u32::try_from(n).unwrap();
        WindowValues {
            count: len(inside.len()),
            amounts: len(amounts.len()),
            sum_minor: amounts.iter().map(|a| i128::from(*a)).sum(),
            max_minor: amounts.iter().copied().max().unwrap_or(0),
            distinct_merchants: len(inside.iter().filter_map(|r| r.merchant).collect::<BTreeSet<_>>().len()),
            distinct_countries: len(inside.iter().filter_map(|r| r.country).collect::<BTreeSet<_>>().len()),
            distinct_devices: len(inside.iter().filter_map(|r| r.device).collect::<BTreeSet<_>>().len()),
            distinct_cards: len(inside.iter().filter_map(|r| r.card).collect::<BTreeSet<_>>().len()),
        }
    }

    #[test]
    fn five_payments_inside_any_minute_are_seen_at_every_phase_offset() {
        for phase_ms in (0..60_000).step_by(997) {
            let times = [0, 14_000, 30_000, 45_000, 59_999].map(|t| 1_700_000_000_000 + phase_ms + t);
            let records: Vec<Record> = times.iter().zip(0..).map(|(t, n)| record(n, *t)).collect();
            let set = EventSet::from_records(records[..4].iter().copied(), 512);
            assert_eq!(evaluate(&set, &records[4], window(60_000), 500).count, 5, "phase {phase_ms}");
        }
    }

    #[test]
    fn the_window_opens_after_its_length_and_closes_after_the_skew() {
        let now = 100_000;
        let count = |t| evaluate(&EventSet::from_records([record(1, t)], 9), &record(2, now), window(60_000), 500).count;
        assert_eq!([count(40_000), count(40_001), count(100_500), count(100_501)], [1, 2, 2, 1]);
    }

    #[test]
    fn a_failed_write_still_counts_the_current_event_and_a_good_one_counts_it_once() {
        let current = record(1, 5_000);
        let empty = EventSet::new(9);
        let recorded = EventSet::from_records([current], 9);
        assert_eq!(evaluate(&empty, &current, window(1_000), 0), evaluate(&recorded, &current, window(1_000), 0));
        assert_eq!(evaluate(&empty, &current, window(1_000), 0).count, 1);
    }

    #[test]
    fn an_amount_without_a_rate_is_counted_and_not_summed_as_zero() {
        let current = Record { amount_base_minor: None, ..record(1, 5_000) };
        let alone = evaluate(&EventSet::new(9), &current, window(1_000), 0);
        assert_eq!((alone.count, alone.sum(), alone.mean(), alone.max()), (1, None, None, None));
        let with_one = EventSet::from_records([Record { amount_base_minor: Some(300), ..record(2, 4_999) }], 9);
        let both = evaluate(&with_one, &current, window(1_000), 0);
        assert_eq!((both.count, both.mean()), (2, Some(300.0)));
    }

    #[test]
    fn a_customer_in_another_country_an_hour_ago_is_told_from_one_at_home() {
        let country = |code| Country::from_letters(code);
        let home = Record { country: country("US"), device: Some(1), ..record(1, 1_000_000) };
        let abroad = Record { country: country("BR"), device: Some(2), ..record(2, 4_600_000) };
        let set = EventSet::from_records([home], 9);
        let travelled = history(&set, &abroad, &Windows::default());
        assert_eq!(
            (travelled.since_other_country_ms, travelled.country_seen, travelled.device_seen),
            (Some(3_600_000), Some(false), Some(false))
        );
        let stayed = history(&set, &Record { country: country("US"), device: Some(1), ..abroad }, &Windows::default());
        assert_eq!((stayed.since_other_country_ms, stayed.country_seen, stayed.device_seen), (None, Some(true), Some(true)));
        assert_eq!(history(&EventSet::new(9), &abroad, &Windows::default()), History::default());
    }

    #[test]
    fn windows_are_named_as_manifests_write_them() {
        for text in ["5s", "1m", "1h", "24h", "1500ms"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn windows_that_do_not_rise_are_refused() {
        let parse = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Window>>();
        assert!(Windows::new(parse(&["5s", "1m"]), Duration::ZERO, 512).is_ok());
        assert_eq!(Windows::new(parse(&["1m", "5s"]), Duration::ZERO, 512), Err(InvalidWindows::Order));
        assert_eq!(Windows::new(vec![], Duration::ZERO, 512), Err(InvalidWindows::Order));
        assert!(matches!("8d".parse::<Window>(), Err(InvalidWindows::Length(_))));
        assert!(matches!(Windows::new(parse(&["5s"]), Duration::from_secs(61), 512), Err(InvalidWindows::Skew(_))));
    }

    proptest! {
        #[test]
        fn windows_agree_with_the_definition(
            records in few_records(), pick: prop::sample::Index, length_ms in 1_i64..200, skew_ms in 0_i64..50,
        ) {
            let current = records[pick.index(records.len())];
            let set = EventSet::from_records(records.iter().copied(), 999);
            prop_assert_eq!(evaluate(&set, &current, window(length_ms), skew_ms), oracle(&records, &current, length_ms, skew_ms));
        }

        #[test]
        fn late_duplicate_and_reordered_events_change_nothing(records in few_records(), pick: prop::sample::Index, length_ms in 1_i64..200) {
            let current = records[pick.index(records.len())];
            let mut replayed = EventSet::new(999);
            records.iter().rev().chain(&records).for_each(|r| replayed.insert(*r));
            prop_assert_eq!(evaluate(&replayed, &current, window(length_ms), 10), oracle(&records, &current, length_ms, 10));
        }
    }
}
