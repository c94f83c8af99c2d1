//! Roughly how many different values there were, in 31 bytes, and how many exactly among a few hundred. Pure.

use crate::record::Record;

/// The kinds of values that are counted, in the order of all arrays here: merchants, countries, devices, cards.
pub(crate) const KINDS: usize = 4;
pub(crate) const SKETCH_BYTES: usize = 31;
/// Where the bits of each kind are: first byte and number of bytes.
const PLACES: [(usize, usize); KINDS] = [(0, 11), (11, 4), (15, 8), (23, 8)];

/// The values of a record by kind; 0 for none.
pub(crate) fn values_of(record: &Record) -> [u32; KINDS] {
    let country = record.country.map_or(0, |country| u32::from(country.ordinal()));
    [record.merchant.unwrap_or(0), country, record.device.unwrap_or(0), record.card.unwrap_or(0)]
}

/// Linear counting: a bitmap a kind, one bit a value. Sketches unite by OR.
///
/// Up to a third of the bits (29 merchants, 10 countries, 21 devices or cards) an estimate is within a few of the truth;
/// a full bitmap stands for its own bits times their logarithm (394 merchants, 111 countries, 266 devices or cards) and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sketch([u8; SKETCH_BYTES]);

impl Sketch {
    pub(crate) fn from_bytes(bytes: [u8; SKETCH_BYTES]) -> Self {
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> [u8; SKETCH_BYTES] {
        self.0
    }

    pub(crate) fn note(&mut self, values: [u32; KINDS]) {
        for (place, value) in PLACES.into_iter().zip(values).filter(|(_, value)| *value != 0) {
            let (byte, bit) = bit_of(place, value);
            self.0[byte] |= bit;
        }
    }

    pub(crate) fn unite(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, others)| *mine |= others);
    }

    /// Whether the merchant was noted, or another one that has the same bit.
    pub(crate) fn may_have_merchant(&self, merchant: u32) -> bool {
        let (byte, bit) = bit_of(PLACES[0], merchant);
        self.0[byte] & bit != 0
    }

    pub(crate) fn has_merchants(&self) -> bool {
        let (first, bytes) = PLACES[0];
        self.0[first..first + bytes].iter().any(|byte| *byte != 0)
    }

    /// How many different values of each kind were noted.
    pub(crate) fn estimates(&self) -> [u32; KINDS] {
        PLACES.map(|(first, bytes)| {
            let ones: u32 = self.0[first..first + bytes].iter().map(|byte| byte.count_ones()).sum();
            let bits = bytes as f64 * 8.0;
            // Nothing tells how many values filled the last bit: half a bit is taken for free.
            let free = (bits - f64::from(ones)).max(0.5);
            rounded(bits * (bits / free).ln())
        })
    }
}

/// Small and never negative.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rounded(value: f64) -> u32 {
    value.round() as u32
}

/// The byte and the bit of a value. Stored bitmaps depend on it.
fn bit_of((first, bytes): (usize, usize), value: u32) -> (usize, u8) {
    let place = scatter(value, bytes * 8);
    (first + place / 8, 1 << (place % 8))
}

/// Fibonacci hashing onto `0..places`: countries are numbers in a row, so all values are scattered alike.
fn scatter(value: u32, places: usize) -> usize {
    let scattered = u64::from(value.wrapping_mul(0x9e37_79b1));
    usize::try_from((scattered * u64::try_from(places).unwrap_or(0)) >> 32).unwrap_or(0)
}

/// Counts different values one by one.
pub(crate) struct Distinct {
    /// Open addressing; 0 is a free place, because 0 stands for "none" and is never counted.
    tables: [Vec<u32>; KINDS],
    counts: [u32; KINDS],
    /// Most often the next value is the same again.
    last: [u32; KINDS],
}

impl Distinct {
    /// For at most `values_max` values of each kind.
    pub(crate) fn with_room_for(values_max: usize) -> Self {
        let size = values_max.saturating_mul(2).next_power_of_two().max(2);
        Self { tables: std::array::from_fn(|_| vec![0; size]), counts: [0; KINDS], last: [0; KINDS] }
    }

    /// Gives back the values that were not there yet, with 0 in the place of others.
    pub(crate) fn note(&mut self, values: [u32; KINDS]) -> [u32; KINDS] {
        std::array::from_fn(|kind| {
            let value = values[kind];
            if value == 0 || value == self.last[kind] {
                return 0;
            }
            self.last[kind] = value;
            let new = insert(&mut self.tables[kind], value);
            self.counts[kind] += u32::from(new);
            if new { value } else { 0 }
        })
    }

    pub(crate) fn counts(&self) -> [u32; KINDS] {
        self.counts
    }
}

/// Whether the value was not there. The table always has a free place.
fn insert(table: &mut [u32], value: u32) -> bool {
    let mask = table.len() - 1;
    let mut place = scatter(value, table.len());
    loop {
        let there = &mut table[place & mask];
        if *there == value || *there == 0 {
            let new = *there == 0;
            *there = value;
            return new;
        }
        place += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Hashes as they come: the first bytes of a digest.
    fn hashes(count: u32, seed: u32) -> impl Iterator<Item = u32> {
        (1..=count).map(move |n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed.wrapping_mul(97_531)) ^ (n << 7)) % 0xff_ffff + 1)
    }

    fn estimate(values: impl Iterator<Item = u32>) -> [u32; KINDS] {
        let mut sketch = Sketch::default();
        values.for_each(|value| sketch.note([value; KINDS]));
        sketch.estimates()
    }

    #[test]
    fn none_is_none_and_one_is_one() {
        assert_eq!(estimate([].into_iter()), [0; KINDS]);
        assert_eq!(estimate([0].into_iter()), [0; KINDS]);
        assert_eq!(estimate([7, 7, 7].into_iter()), [1; KINDS]);
    }

    #[test]
    fn up_to_a_third_of_the_bits_estimates_are_near() {
        for seed in 0..200 {
            let [merchants, _, devices, cards] = estimate(hashes(20, seed));
            for estimate in [merchants, devices, cards] {
                assert!((12..=30).contains(&estimate), "seed {seed}: {estimate} for 20");
            }
            assert!((5..=14).contains(&estimate(hashes(8, seed))[1]), "seed {seed}");
        }
    }

    #[test]
    fn countries_in_a_row_do_not_share_bits_more_than_others() {
        for first in 1..640 {
            assert!(estimate(first..first + 6)[1] >= 4, "{first}");
        }
    }

    #[test]
    fn a_full_bitmap_gives_a_large_number() {
        assert_eq!(estimate(hashes(100_000, 1)), [455, 133, 311, 311]);
    }

    proptest! {
        #[test]
        fn sketches_unite_as_sets_do(a in prop::collection::vec(0_u32..50, 0..40), b in prop::collection::vec(0_u32..50, 0..40)) {
            let sketch = |values: &[u32]| { let mut s = Sketch::default(); values.iter().for_each(|v| s.note([*v; KINDS])); s };
            let mut united = sketch(&a);
            united.unite(&sketch(&b));
            prop_assert_eq!(united, sketch(&[a.clone(), b].concat()));
            prop_assert!(a.iter().filter(|v| **v != 0).all(|v| united.may_have_merchant(*v)));
        }

        #[test]
        fn distinct_values_are_counted_exactly(values in prop::collection::vec(prop_oneof![0_u32..20, any::<u32>()], 1..200)) {
            let mut distinct = Distinct::with_room_for(values.len());
            let mut seen = BTreeSet::new();
            for value in &values {
                let new = *value != 0 && seen.insert(*value);
                prop_assert_eq!(distinct.note([*value, 0, *value, 1])[0], if new { *value } else { 0 });
            }
            let expected = u32::try_from(seen.len()).unwrap();
            prop_assert_eq!(distinct.counts(), [expected, 0, expected, 1]);
        }
    }
}
