//! The slots of a profile. Pure.
//!
//! | slot | bytes |
//! |---|---|
//! | profile | 1 to 6 first seen (0: not known); last place: 7 to 8 country, 9 to 14 time, 15 to 24 id |
//! | devices | two of: 3 hash, 6 first seen, 6 last seen |
//! | countries | two of: 2 letters, 6 first seen, 6 last seen |
//! | batch value | 1 to 7 name, 8 to 15 number (IEEE 754), 16 to 21 as-of time, 22 to 31 id |
//!
//! Zeros where there is none.

use super::{BatchValue, KNOWN_MAX, KnownSet, Place, Profile, Seen, ValueName, note_first};
use crate::{
    codes::Country,
    record::RecordId,
    slot::{SLOT_BYTES, SlotBytes, bytes_at, put, tag, time_bytes, time_of},
};

const DEVICE_BYTES: usize = 15;
const COUNTRY_BYTES: usize = 14;

impl Profile {
    pub(crate) fn encode(&self, value: &mut Vec<u8>) {
        if self.first_seen_ms.is_some() || self.last_place.is_some() {
            value.extend(encode_base(self));
        }
        for pair in self.devices.0.chunks(2) {
            value.extend(encode_pair(tag::DEVICES, pair, DEVICE_BYTES, |device| {
                let [_, hash @ ..] = device.to_be_bytes();
                hash
            }));
        }
        for pair in self.countries.0.chunks(2) {
            value.extend(encode_pair(tag::COUNTRIES, pair, COUNTRY_BYTES, Country::letters));
        }
        self.values.iter().for_each(|batch| value.extend(encode_value(batch)));
    }

    /// Adds what a slot says. Whether it is a slot of a profile that decodes.
    pub(crate) fn read_slot(&mut self, slot: &SlotBytes) -> bool {
        match slot[0] {
            tag::PROFILE => read_base(self, slot),
            tag::DEVICES => read_pair(&mut self.devices, slot, DEVICE_BYTES, |[a, b, c]| {
                Some(u32::from_be_bytes([0, a, b, c])).filter(|hash| *hash != 0)
            }),
            tag::COUNTRIES => read_pair(&mut self.countries, slot, COUNTRY_BYTES, country_of),
            tag::BATCH_VALUE => read_value(self, slot),
            _ => false,
        }
    }
}

fn encode_base(profile: &Profile) -> SlotBytes {
    let mut slot = [0; SLOT_BYTES];
    slot[0] = tag::PROFILE;
    put(&mut slot, 1, time_bytes(profile.first_seen_ms.unwrap_or(0)));
    if let Some(place) = profile.last_place {
        put(&mut slot, 7, place.country.letters());
        put(&mut slot, 9, time_bytes(place.time_ms));
        put(&mut slot, 15, place.id.0);
    }
    slot
}

fn read_base(profile: &mut Profile, slot: &SlotBytes) -> bool {
    let first_ms = time_of(bytes_at(slot, 1));
    let letters = bytes_at(slot, 7);
    let country = country_of(letters);
    if country.is_none() && letters != [0, 0] {
        return false;
    }
    if first_ms > 0 {
        note_first(&mut profile.first_seen_ms, first_ms);
    }
    if let Some(country) = country {
        profile.note_place(Place { country, time_ms: time_of(bytes_at(slot, 9)), id: RecordId(bytes_at(slot, 15)) });
    }
    true
}

fn encode_pair<K: Copy, const N: usize>(tag: u8, pair: &[(K, Seen)], bytes: usize, key_bytes: impl Fn(K) -> [u8; N]) -> SlotBytes {
    let mut slot = [0; SLOT_BYTES];
    slot[0] = tag;
    for (at, (key, seen)) in (1..).step_by(bytes).zip(pair) {
        put(&mut slot, at, key_bytes(*key));
        put(&mut slot, at + N, time_bytes(seen.first_ms));
        put(&mut slot, at + N + 6, time_bytes(seen.last_ms));
    }
    slot
}

fn read_pair<K: Copy + Ord, const N: usize>(
    known: &mut KnownSet<K>,
    slot: &SlotBytes,
    bytes: usize,
    key_of: impl Fn([u8; N]) -> Option<K>,
) -> bool {
    let mut plausible = true;
    for at in [1, 1 + bytes] {
        let key_bytes = bytes_at(slot, at);
        let (first_ms, last_ms) = (time_of(bytes_at(slot, at + N)), time_of(bytes_at(slot, at + N + 6)));
        match key_of(key_bytes) {
            Some(key) if first_ms <= last_ms => known.note(key, Seen { first_ms, last_ms }, KNOWN_MAX),
            None if key_bytes == [0; N] => {}
            _ => plausible = false,
        }
    }
    plausible
}

fn encode_value(batch: &BatchValue) -> SlotBytes {
    let mut slot = [0; SLOT_BYTES];
    slot[0] = tag::BATCH_VALUE;
    put(&mut slot, 1, batch.name.0);
    put(&mut slot, 8, batch.value.to_be_bytes());
    put(&mut slot, 16, time_bytes(batch.as_of_ms));
    put(&mut slot, 22, batch.id.0);
    slot
}

fn read_value(profile: &mut Profile, slot: &SlotBytes) -> bool {
    let value = f64::from_be_bytes(bytes_at(slot, 8));
    let (as_of_ms, id) = (time_of(bytes_at(slot, 16)), RecordId(bytes_at(slot, 22)));
    if value.is_finite() {
        profile.load(BatchValue { name: ValueName(bytes_at(slot, 1)), value, as_of_ms, id });
    }
    value.is_finite()
}

fn country_of(letters: [u8; 2]) -> Option<Country> {
    std::str::from_utf8(&letters).ok().and_then(Country::from_letters)
}
