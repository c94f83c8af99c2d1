//! What the other events of an entity say about the current one. Pure.

use crate::{
    codes::Country,
    panes::Pane,
    profile::{Place, Profile},
    record::Record,
};

/// How the current event compares with the entity's others: the stored profile united with the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Attempts in the longest window, other than the current one.
    pub others: u32,
    /// `None` without another attempt in the longest window. 0 when the other one is stamped later, by a clock that is ahead.
    pub since_last_ms: Option<i64>,
    /// Since the last attempt in another country than the current one's, however long ago: what impossible travel is told by.
    pub since_other_country_ms: Option<i64>,
    /// Since the entity was first seen; 0 when the current event is the first.
    pub since_first_seen_ms: i64,
    /// Whether another attempt used the same device; `None` when there is nothing to compare with.
    pub device_seen: Option<bool>,
    pub country_seen: Option<bool>,
    /// In the longest window; where a pane takes part, another merchant may be taken for this one.
    pub merchant_seen: Option<bool>,
    /// Where the entity was at its latest other attempt that tells.
    pub last_country: Option<Country>,
    /// As a batch job says, else the known country that was seen first.
    pub home_country: Option<Country>,
    /// Over the other attempts in the longest window with a known amount.
    pub others_amounts: u32,
    pub others_sum_minor: i128,
}

impl History {
    /// The mean amount of the others; `None` when none is known.
    pub fn others_mean(&self) -> Option<f64> {
        (self.others_amounts > 0).then(|| self.others_sum_minor as f64 / f64::from(self.others_amounts))
    }
}

/// Collects from the newest record to the oldest, on top of what is stored.
pub(super) struct Past<'a> {
    current: &'a Record,
    history: History,
    last_place: Option<Place>,
    /// The country that was seen first, and when.
    first_country: Option<(i64, Country)>,
}

impl<'a> Past<'a> {
    pub(super) fn new(profile: &Profile, current: &'a Record) -> Self {
        let mut past = Self { current, history: History::default(), last_place: profile.last_place(), first_country: None };
        if let Some(first_ms) = profile.first_seen_ms() {
            past.note_first_seen(first_ms);
        }
        for (country, seen) in profile.countries().iter() {
            past.note_country(country, seen.first_ms, seen.last_ms);
        }
        if !profile.devices().is_empty() {
            past.history.device_seen = current.device.map(|device| profile.devices().get(device).is_some());
        }
        past
    }

    /// `inside`: whether the record is in the longest window.
    pub(super) fn note(&mut self, other: &Record, inside: bool) {
        self.note_first_seen(other.time_ms);
        if !other.is_attempt() {
            return;
        }
        note_seen(&mut self.history.device_seen, differ(other.device, self.current.device));
        if let Some(place) = Place::of(other) {
            self.note_country(place.country, place.time_ms, place.time_ms);
            self.last_place = Some(self.last_place.map_or(place, |known| known.later(place)));
        }
        if inside {
            self.note_inside(other);
        }
    }

    fn note_inside(&mut self, other: &Record) {
        // The first that comes is the latest.
        self.history.since_last_ms = self.history.since_last_ms.or(Some(self.since(other.time_ms)));
        self.history.others = self.history.others.saturating_add(1);
        note_seen(&mut self.history.merchant_seen, differ(other.merchant, self.current.merchant));
        if let Some(amount) = other.amount_base_minor {
            self.history.others_amounts = self.history.others_amounts.saturating_add(1);
            self.history.others_sum_minor = self.history.others_sum_minor.saturating_add(i128::from(amount));
        }
    }

    /// A pane of the longest window.
    pub(super) fn note_pane(&mut self, pane: &Pane) {
        let since_ms = self.since(pane.last_ms());
        self.history.since_last_ms = Some(self.history.since_last_ms.map_or(since_ms, |known| known.min(since_ms)));
        self.history.others = self.history.others.saturating_add(pane.attempts());
        self.history.others_amounts = self.history.others_amounts.saturating_add(pane.amounts());
        self.history.others_sum_minor = self.history.others_sum_minor.saturating_add(i128::from(pane.sum_minor()));
        note_seen(&mut self.history.merchant_seen, self.current.merchant.map(|merchant| !pane.sketch.may_have_merchant(merchant)));
    }

    pub(super) fn history(self, profile: &Profile) -> History {
        History {
            last_country: self.last_place.map(|place| place.country),
            home_country: profile.loaded_home_country().or(self.first_country.map(|(_, country)| country)),
            ..self.history
        }
    }

    fn note_first_seen(&mut self, time_ms: i64) {
        self.history.since_first_seen_ms = self.history.since_first_seen_ms.max(self.since(time_ms));
    }

    fn note_country(&mut self, country: Country, first_ms: i64, last_ms: i64) {
        let first = (first_ms, country);
        self.first_country = Some(self.first_country.map_or(first, |known| known.min(first)));
        let differs = differ(Some(country), self.current.country);
        note_seen(&mut self.history.country_seen, differs);
        if differs == Some(true) {
            let since_ms = self.since(last_ms);
            self.history.since_other_country_ms = Some(self.history.since_other_country_ms.map_or(since_ms, |known| known.min(since_ms)));
        }
    }

    fn since(&self, time_ms: i64) -> i64 {
        self.current.time_ms.saturating_sub(time_ms).max(0)
    }
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
