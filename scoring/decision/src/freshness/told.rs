//! What the shards say of freshness, and since when by this process's clock. No IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use domain::{Known, RegionName};
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::{freshness::OriginData, published::Published};

/// By shard.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<u16, Said>);

#[derive(Debug, Default)]
struct Said {
    published: Option<Published>,
    /// When it last became another one. `None` for what was there at the first look: nobody tells how old that is.
    changed_at: Option<Instant>,
}

impl Told {
    /// What each shard that the plan has says now; `None` for one that says nothing.
    pub(super) fn note(&mut self, said: Vec<(u16, Option<Vec<u8>>)>, now: Instant) {
        self.0.retain(|shard, _| said.iter().any(|(known, _)| known == shard));
        for (shard, bytes) in said {
            let first = !self.0.contains_key(&shard);
            let known = self.0.entry(shard).or_default();
            let Some(published) = bytes.as_deref().and_then(published_of) else { continue };
            if known.published.as_ref() != Some(&published) {
                *known = Said { published: Some(published), changed_at: (!first).then_some(now) };
            }
        }
    }

    /// The data of all origins, as the shard that is furthest behind has it. When one of them has not been heard of for longer
    /// than it said, nothing is known of any origin; before each has been heard of there is none, so that nothing has to get
    /// better for a while before it counts.
    pub(super) fn origins(&self, now: Instant) -> BTreeMap<RegionName, OriginData> {
        if self.0.values().any(|said| said.changed_at.is_none()) {
            return BTreeMap::new();
        }
        let all_believed = self.0.values().all(|said| said.believed_for(now).is_some());
        let mut origins: BTreeMap<RegionName, OriginData> = BTreeMap::new();
        for said in self.0.values() {
            let Some(published) = &said.published else { continue };
            let elapsed_ms = said.believed_for(now).filter(|_| all_believed);
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
}

impl Said {
    /// For how many milliseconds it has been unchanged, as long as it is believed.
    fn believed_for(&self, now: Instant) -> Option<u64> {
        let elapsed = now.saturating_duration_since(self.changed_at?);
        let valid = Duration::from_millis(self.published.as_ref()?.valid_ms);
        (elapsed <= valid).then(|| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
    }
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

    fn bytes(published_ms: i64, age_ms: u64) -> Option<Vec<u8>> {
        let origins = [(region(), OriginData::Producing { age_ms: Known::Fresh { value: age_ms, seen_at_ms: 0 } })].into();
        let published = Published { region: region(), epoch: Epoch(1), published_ms, valid_ms: 2_000, origins };
        Some(published.to_wire().encode_to_vec())
    }

    fn age(told: &Told, now: Instant) -> Option<u64> {
        told.origins(now).get(&region()).and_then(super::super::age_of)
    }

    #[test]
    fn a_value_counts_once_it_was_seen_to_change_and_grows_old_by_the_readers_clock() {
        let (mut told, start) = (Told::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(told.origins(start).is_empty());
        told.note(vec![(0, bytes(1, 80))], at(0));
        assert_eq!(age(&told, at(0)), None, "it may have lain there for an hour");
        told.note(vec![(0, bytes(2, 90))], at(250));
        assert_eq!(age(&told, at(250)), Some(90));
        // The same again, no answer, and damage: none of them makes it younger.
        for said in [bytes(2, 90), None, Some(vec![0xff])] {
            told.note(vec![(0, said)], at(500));
            assert_eq!(age(&told, at(750)), Some(590));
        }
        assert_eq!(age(&told, at(2_251)), None);
    }

    #[test]
    fn the_oldest_shard_counts_and_one_that_says_nothing_makes_all_unknown() {
        let (mut told, now) = (Told::default(), Instant::now());
        told.note(vec![(0, bytes(1, 1)), (1, bytes(1, 1))], now);
        told.note(vec![(0, bytes(2, 50)), (1, bytes(2, 700))], now);
        assert_eq!(age(&told, now), Some(700));
        told.note(vec![(0, bytes(3, 50)), (1, bytes(3, 50)), (2, None)], now);
        assert_eq!(age(&told, now), None);
        told.note(vec![(0, bytes(4, 50)), (1, bytes(4, 60))], now);
        assert_eq!(age(&told, now), Some(60), "a shard that the plan has no more does not count");
    }

    #[test]
    fn a_shard_that_had_nothing_at_first_counts_from_its_first_value_on() {
        let (mut told, now) = (Told::default(), Instant::now());
        told.note(vec![(0, None)], now);
        told.note(vec![(0, bytes(1, 5))], now);
        assert_eq!(age(&told, now), Some(5));
    }
}
