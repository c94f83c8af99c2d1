//! What a reader has heard of the published values, and since when by its own clock.

use std::collections::BTreeMap;

use domain::{Known, RegionName};
use prost::Message as _;
use proto::fraud::v1;

use super::Published;
use crate::freshness::OriginData;

/// What one shard says. Times are milliseconds of any clock of the reader that does not go back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Heard {
    published: Option<Published>,
    /// When it last became another one. `None` for what was there at the first look: nobody tells how old that is.
    changed_at_ms: Option<u64>,
    looked: bool,
}

impl Heard {
    /// What the shard says now; `None` when it says nothing. What cannot be read counts as nothing.
    pub fn note(&mut self, bytes: Option<&[u8]>, now_ms: u64) {
        let first = !std::mem::replace(&mut self.looked, true);
        let Some(published) = bytes.and_then(published_of) else { return };
        if self.published.as_ref() != Some(&published) {
            self.published = Some(published);
            self.changed_at_ms = (!first).then_some(now_ms);
        }
    }

    /// By the builder's clock: of several processes that hold one shard, the one with the largest is the furthest.
    #[must_use]
    pub fn published_ms(&self) -> Option<i64> {
        self.published.as_ref().filter(|_| self.changed_at_ms.is_some()).map(|published| published.published_ms)
    }

    /// For how many milliseconds it has been unchanged, as long as it is believed.
    fn believed_for(&self, now_ms: u64) -> Option<u64> {
        let elapsed_ms = now_ms.saturating_sub(self.changed_at_ms?);
        (elapsed_ms <= self.published.as_ref()?.valid_ms).then_some(elapsed_ms)
    }
}

/// The data of all origins, as the shard that is furthest behind has it.
///
/// When one of the shards has not been heard of for longer than it said, nothing is known of any origin; before each has been
/// heard of there is none, so that nothing has to get better for a while before it counts.
#[must_use]
pub fn origins(shards: &[&Heard], now_ms: u64) -> BTreeMap<RegionName, OriginData> {
    if shards.iter().any(|heard| heard.changed_at_ms.is_none()) {
        return BTreeMap::new();
    }
    let all_believed = shards.iter().all(|heard| heard.believed_for(now_ms).is_some());
    let mut origins: BTreeMap<RegionName, OriginData> = BTreeMap::new();
    for heard in shards {
        let Some(published) = &heard.published else { continue };
        let elapsed_ms = heard.believed_for(now_ms).filter(|_| all_believed);
        for (region, data) in &published.origins {
            let data = match elapsed_ms {
                Some(elapsed_ms) => data.clone().older_by(elapsed_ms),
                None => OriginData::Producing { age_ms: Known::unknown("a shard has not said lately how far it is folded") },
            };
            let worst = match origins.remove(region) {
                Some(others) => others.and(data),
                None => data,
            };
            origins.insert(region.clone(), worst);
        }
    }
    origins
}

fn published_of(bytes: &[u8]) -> Option<Published> {
    Published::from_wire(&v1::PublishedFreshness::decode(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use domain::Epoch;

    use super::*;

    fn region() -> RegionName {
        RegionName::new("us-east").unwrap()
    }

    fn bytes(published_ms: i64, age_ms: u64) -> Vec<u8> {
        let origins = [(region(), OriginData::Producing { age_ms: Known::Fresh { value: age_ms, seen_at_ms: 0 } })].into();
        let published = Published { region: region(), epoch: Epoch(1), published_ms, valid_ms: 2_000, origins };
        published.to_wire().encode_to_vec()
    }

    fn age(shards: &[&Heard], now_ms: u64) -> Option<u64> {
        match origins(shards, now_ms).get(&region())? {
            OriginData::Producing { age_ms } => age_ms.fresh().copied(),
            OriginData::Ended { .. } => None,
        }
    }

    #[test]
    fn a_value_counts_once_it_was_seen_to_change_and_grows_old_by_the_readers_clock() {
        let mut heard = Heard::default();
        assert!(origins(&[&heard], 0).is_empty());
        heard.note(Some(&bytes(1, 80)), 0);
        assert_eq!((age(&[&heard], 0), heard.published_ms()), (None, None), "it may have lain there for an hour");
        heard.note(Some(&bytes(2, 90)), 250);
        assert_eq!((age(&[&heard], 250), heard.published_ms()), (Some(90), Some(2)));
        // The same again, no answer, and damage: none of them makes it younger.
        for said in [Some(bytes(2, 90)), None, Some(vec![0xff])] {
            heard.note(said.as_deref(), 500);
            assert_eq!(age(&[&heard], 750), Some(590));
        }
        assert_eq!(age(&[&heard], 2_251), None);
    }

    #[test]
    fn the_oldest_shard_counts_and_one_that_says_nothing_makes_all_unknown() {
        let [mut one, mut two, silent] = [Heard::default(), Heard::default(), Heard::default()];
        for (published_ms, ages_ms) in [(1, [1, 1]), (2, [50, 700])] {
            one.note(Some(&bytes(published_ms, ages_ms[0])), 0);
            two.note(Some(&bytes(published_ms, ages_ms[1])), 0);
        }
        assert_eq!(age(&[&one, &two], 0), Some(700));
        assert_eq!(age(&[&one, &two, &silent], 0), None);
        assert_eq!(age(&[], 0), None);
    }

    #[test]
    fn a_shard_that_had_nothing_at_first_counts_from_its_first_value_on() {
        let mut heard = Heard::default();
        heard.note(None, 0);
        heard.note(Some(&bytes(1, 5)), 0);
        assert_eq!(age(&[&heard], 0), Some(5));
    }
}
