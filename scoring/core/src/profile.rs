//! What is remembered of a user or card beyond its events, in types that merge. Pure.
//!
//! A record enters the stored profile when it leaves the exact part of the value; until then readers take it from there.
//! So the profile that features see is always the stored one united with the records, a payment in flight is known at once,
//! and a payment is never compared with itself.
//!
//! Merging is idempotent and does not depend on order: minimum, maximum, union, last writer by (time, id). One exception,
//! by the bound on known devices and countries: one that was pushed out by newer ones and comes back has lost the time at
//! which it was first seen.

use sha2::{Digest, Sha256};

use crate::{
    codes::Country,
    event::{EVENT_TIME_MS_MAX, EntityId, EntityKind},
    record::{Record, RecordId},
};

mod slots;

/// How many devices and countries, and how many batch-loaded values, a profile holds whatever is configured.
pub(crate) const KNOWN_MAX: usize = 64;
const BATCH_VALUES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 64;
/// The name under which a batch says where a customer is at home.
const HOME_COUNTRY: &str = "home_country";

/// When something was seen first and last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub first_ms: i64,
    pub last_ms: i64,
}

impl Seen {
    fn at(time_ms: i64) -> Self {
        Self { first_ms: time_ms, last_ms: time_ms }
    }

    fn unite(&mut self, other: Self) {
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
    }
}

/// A few things with when they were seen, by their own order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSet<K>(Vec<(K, Seen)>);

impl<K> Default for KnownSet<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + Ord> KnownSet<K> {
    pub fn get(&self, key: K) -> Option<Seen> {
        self.0.binary_search_by_key(&key, |(known, _)| *known).ok().map(|place| self.0[place].1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (K, Seen)> + '_ {
        self.0.iter().copied()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn note(&mut self, key: K, seen: Seen, known_max: usize) {
        match self.0.binary_search_by_key(&key, |(known, _)| *known) {
            Ok(place) => self.0[place].1.unite(seen),
            Err(place) => self.0.insert(place, (key, seen)),
        }
        self.cap(known_max);
    }

    /// Keeps those that were seen last.
    fn cap(&mut self, known_max: usize) {
        while self.0.len() > known_max {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, (key, seen))| (seen.last_ms, *key)).map(|(place, _)| place);
            let Some(place) = oldest else { return };
            self.0.remove(place);
        }
    }
}

/// Where the entity was at its latest attempt that tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub country: Country,
    pub time_ms: i64,
    pub id: RecordId,
}

impl Place {
    pub(crate) fn of(record: &Record) -> Option<Self> {
        Some(Self { country: record.country?, time_ms: record.time_ms, id: record.id })
    }

    /// The later one; of two at once by id and country, so that every reader takes the same.
    pub(crate) fn later(self, other: Self) -> Self {
        std::cmp::max_by_key(self, other, |place| (place.time_ms, place.id, place.country))
    }
}

/// The first bytes of the hash of a batch-loaded value's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValueName([u8; 7]);

impl ValueName {
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        Self(std::array::from_fn(|index| digest[index]))
    }
}

/// A value that a batch job computed, as it is kept. The newest by (as-of time, id) wins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchValue {
    name: ValueName,
    value: f64,
    as_of_ms: i64,
    id: RecordId,
}

impl BatchValue {
    fn later(self, other: Self) -> Self {
        std::cmp::max_by_key(self, other, |value| (value.as_of_ms, value.id, value.value.to_bits()))
    }
}

/// A record of the topic `fraud.profiles`: one value of one user or card, computed by a batch job. Goes through a topic so
/// that it reaches every region as events do; fold [`ProfileRecord::stored`] into the entity's value.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRecord {
    entity: (EntityKind, EntityId),
    stored: BatchValue,
}

/// Why a record is not folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProfileRecord {
    #[error("profile record field entity: a {0} has no profile, only users and cards do")]
    Entity(&'static str),
    #[error("profile record field name: must be 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _")]
    Name,
    #[error("profile record field value: must be a number, and for {HOME_COUNTRY} the ordinal of a country (1 for AA to 676 for ZZ)")]
    Value,
    #[error("profile record field as_of_ms: {0} is not within 1 to {EVENT_TIME_MS_MAX}")]
    AsOf(i64),
}

impl ProfileRecord {
    /// `id` tells uploads apart that are as of the same time: the larger one wins.
    ///
    /// # Errors
    /// When a field is out of bounds.
    pub fn new(entity: (EntityKind, EntityId), name: &str, value: f64, as_of_ms: i64, id: RecordId) -> Result<Self, InvalidProfileRecord> {
        if !entity.0.has_profile() {
            return Err(InvalidProfileRecord::Entity(entity.0.name()));
        }
        let letters = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !letters {
            return Err(InvalidProfileRecord::Name);
        }
        if !value.is_finite() || (name == HOME_COUNTRY && country_of(value).is_none()) {
            return Err(InvalidProfileRecord::Value);
        }
        if !(1..=EVENT_TIME_MS_MAX).contains(&as_of_ms) {
            return Err(InvalidProfileRecord::AsOf(as_of_ms));
        }
        Ok(Self { entity, stored: BatchValue { name: ValueName::of(name), value, as_of_ms, id } })
    }

    /// Where a customer is at home, from whoever knows better than the payments do.
    ///
    /// # Errors
    /// When a field is out of bounds.
    pub fn home_country(
        entity: (EntityKind, EntityId),
        country: Country,
        as_of_ms: i64,
        id: RecordId,
    ) -> Result<Self, InvalidProfileRecord> {
        Self::new(entity, HOME_COUNTRY, f64::from(country.ordinal()), as_of_ms, id)
    }

    pub fn entity(&self) -> (EntityKind, EntityId) {
        self.entity
    }

    pub fn stored(&self) -> BatchValue {
        self.stored
    }
}

fn country_of(value: f64) -> Option<Country> {
    (1..=Country::ORDINAL_MAX).find(|ordinal| f64::from(*ordinal) == value).and_then(Country::from_ordinal)
}

/// What is stored of an entity beyond its events. See the [module](self) for how it joins with them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Profile {
    pub(crate) first_seen_ms: Option<i64>,
    pub(crate) last_place: Option<Place>,
    pub(crate) devices: KnownSet<u32>,
    pub(crate) countries: KnownSet<Country>,
    values: Vec<BatchValue>,
}

impl Profile {
    pub fn first_seen_ms(&self) -> Option<i64> {
        self.first_seen_ms
    }

    pub fn last_place(&self) -> Option<Place> {
        self.last_place
    }

    /// By the hashes of [`Record::device`].
    pub fn devices(&self) -> &KnownSet<u32> {
        &self.devices
    }

    pub fn countries(&self) -> &KnownSet<Country> {
        &self.countries
    }

    /// Whether nothing is known at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// A value that a batch job loaded, and as of when it is.
    pub fn batch_value(&self, name: &str) -> Option<(f64, i64)> {
        let name = ValueName::of(name);
        self.values.iter().find(|value| value.name == name).map(|value| (value.value, value.as_of_ms))
    }

    /// Where a batch job says the entity is at home.
    pub(crate) fn loaded_home_country(&self) -> Option<Country> {
        // The name is hashed only for the few that have batch-loaded values at all.
        if self.values.is_empty() {
            return None;
        }
        self.batch_value(HOME_COUNTRY).and_then(|(value, _)| country_of(value))
    }

    /// Any event says that the entity exists; only attempts say where it was and with what.
    pub(crate) fn add(&mut self, record: &Record, known_max: usize) {
        note_first(&mut self.first_seen_ms, record.time_ms);
        if !record.is_attempt() {
            return;
        }
        let seen = Seen::at(record.time_ms);
        if let Some(device) = record.device {
            self.devices.note(device, seen, known_max);
        }
        if let Some(place) = Place::of(record) {
            self.countries.note(place.country, seen, known_max);
            self.note_place(place);
        }
    }

    pub(crate) fn load(&mut self, value: BatchValue) {
        match self.values.binary_search_by_key(&value.name, |known| known.name) {
            Ok(place) => self.values[place] = self.values[place].later(value),
            Err(place) if self.values.len() < BATCH_VALUES_MAX => self.values.insert(place, value),
            Err(_) => {}
        }
    }

    /// Adds everything that another copy of this entity's profile says.
    pub fn merge(&mut self, other: &Self, known_max: usize) {
        if let Some(first_ms) = other.first_seen_ms {
            note_first(&mut self.first_seen_ms, first_ms);
        }
        if let Some(place) = other.last_place {
            self.note_place(place);
        }
        other.devices.iter().for_each(|(device, seen)| self.devices.note(device, seen, known_max));
        other.countries.iter().for_each(|(country, seen)| self.countries.note(country, seen, known_max));
        other.values.iter().for_each(|value| self.load(*value));
    }

    /// Applies a bound that may have become smaller.
    pub(crate) fn cap(&mut self, known_max: usize) {
        self.devices.cap(known_max);
        self.countries.cap(known_max);
    }

    fn note_place(&mut self, place: Place) {
        self.last_place = Some(self.last_place.map_or(place, |known| known.later(place)));
    }
}

fn note_first(first_ms: &mut Option<i64>, time_ms: i64) {
    *first_ms = Some(first_ms.map_or(time_ms, |known| known.min(time_ms)));
}

#[cfg(test)]
mod tests;
