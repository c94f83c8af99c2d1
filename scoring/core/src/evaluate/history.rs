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
    pub others_sum_minor: u64,
}

impl History {
    /// The mean amount of the others; `None` when none is known.
    pub fn others_mean(&self) -> Option<f64> {
        (self.others_amounts > 0).then(|| self.others_sum_minor as f64 / f64::from(self.others_amounts))
    }
}

/// Whether one of several is the same as the current one's.
#[derive(Debug, Clone, Copy, Default)]
struct Same {
    compared: bool,
    same: bool,
}

impl Same {
    fn note<T: PartialEq>(&mut self, other: Option<T>, current: Option<T>) {
        let comparable = other.is_some() && current.is_some();
        self.compared |= comparable;
        self.same |= comparable && other == current;
    }

    fn seen(self) -> Option<bool> {
        self.compared.then_some(self.same)
    }
}

/// Collects from the newest record to the oldest, on top of what is stored.
pub(super) struct Past<'a> {
    current: &'a Record,
    history: History,
    device: Same,
    country: Same,
    merchant: Same,
    /// The time of the oldest that was noted.
    first_seen_ms: i64,
    last_place: Option<Place>,
    last_elsewhere_ms: Option<i64>,
    /// The country that was seen first, and when.
    first_country: Option<(i64, Country)>,
}

impl<'a> Past<'a> {
    pub(super) fn new(current: &'a Record) -> Self {
        Self {
            current,
            history: History::default(),
            device: Same::default(),
            country: Same::default(),
            merchant: Same::default(),
            first_seen_ms: current.time_ms,
            last_place: None,
            last_elsewhere_ms: None,
            first_country: None,
        }
    }

    /// The next older record. `inside`: whether it is in the longest window.
    pub(super) fn note(&mut self, other: &Record, inside: bool) {
        self.first_seen_ms = self.first_seen_ms.min(other.time_ms);
        if !other.is_attempt() {
            return;
        }
        self.device.note(other.device, self.current.device);
        self.country.note(other.country, self.current.country);
        if let Some(country) = other.country {
            if self.last_place.is_none() {
                self.last_place = Place::of(other);
            }
            self.note_first_country(country, other.time_ms);
            if self.last_elsewhere_ms.is_none() && self.is_elsewhere(country) {
                self.last_elsewhere_ms = Some(other.time_ms);
            }
        }
        if inside {
            self.note_inside(other);
        }
    }

    fn note_inside(&mut self, other: &Record) {
        // The first that comes is the latest.
        self.history.since_last_ms = self.history.since_last_ms.or(Some(self.since(other.time_ms)));
        self.history.others = self.history.others.saturating_add(1);
        self.merchant.note(other.merchant, self.current.merchant);
        if let Some(amount) = other.amount_base_minor {
            self.history.others_amounts = self.history.others_amounts.saturating_add(1);
            self.history.others_sum_minor = self.history.others_sum_minor.saturating_add(amount.unsigned_abs());
        }
    }

    /// A pane of the longest window.
    pub(super) fn note_pane(&mut self, pane: &Pane) {
        let since_ms = self.since(pane.last_ms());
        self.history.since_last_ms = Some(self.history.since_last_ms.map_or(since_ms, |known| known.min(since_ms)));
        self.history.others = self.history.others.saturating_add(pane.attempts());
        self.history.others_amounts = self.history.others_amounts.saturating_add(pane.amounts());
        self.history.others_sum_minor = self.history.others_sum_minor.saturating_add(pane.sum_minor());
        if let Some(merchant) = self.current.merchant {
            self.merchant.compared |= pane.sketch.has_merchants();
            self.merchant.same |= pane.sketch.may_have_merchant(merchant);
        }
    }

    pub(super) fn note_profile(&mut self, profile: &Profile) {
        self.first_seen_ms = profile.first_seen_ms().map_or(self.first_seen_ms, |first_ms| first_ms.min(self.first_seen_ms));
        self.last_place = self.last_place.into_iter().chain(profile.last_place()).reduce(Place::later);
        for (device, _) in profile.devices().iter() {
            self.device.note(Some(device), self.current.device);
        }
        for (country, seen) in profile.countries().iter() {
            self.country.note(Some(country), self.current.country);
            self.note_first_country(country, seen.first_ms);
            if self.is_elsewhere(country) {
                self.last_elsewhere_ms = self.last_elsewhere_ms.max(Some(seen.last_ms));
            }
        }
        self.history.home_country = profile.loaded_home_country();
    }

    pub(super) fn history(self) -> History {
        History {
            since_other_country_ms: self.last_elsewhere_ms.map(|last_ms| self.since(last_ms)),
            since_first_seen_ms: self.since(self.first_seen_ms),
            device_seen: self.device.seen(),
            country_seen: self.country.seen(),
            merchant_seen: self.merchant.seen(),
            last_country: self.last_place.map(|place| place.country),
            home_country: self.history.home_country.or(self.first_country.map(|(_, country)| country)),
            ..self.history
        }
    }

    fn note_first_country(&mut self, country: Country, time_ms: i64) {
        // Most often the same one again, a little earlier.
        self.first_country = match self.first_country {
            Some((first_ms, first)) if first == country => Some((first_ms.min(time_ms), first)),
            Some(known) => Some(known.min((time_ms, country))),
            None => Some((time_ms, country)),
        };
    }

    fn is_elsewhere(&self, country: Country) -> bool {
        self.current.country.is_some_and(|here| here != country)
    }

    fn since(&self, time_ms: i64) -> i64 {
        self.current.time_ms.saturating_sub(time_ms).max(0)
    }
}
