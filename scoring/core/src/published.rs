//! What the builder publishes of how far it has folded, for the decision services: the key `fp:fresh` of every shard. Pure.
//!
//! A reader cannot tell how old a value is by a clock of another machine. So it looks when the value changed, by its own
//! clock, and adds to every age what has passed since; a value that has not changed for as long as it says is nothing known.

mod heard;

use std::collections::BTreeMap;

use domain::{Epoch, Known, RegionName};
use proto::fraud::v1;

use crate::freshness::OriginData;

pub use heard::{Heard, origins};

/// The version of the published meaning.
const VERSION: u32 = 1;
const ORIGINS_MAX: usize = 64;
/// A longer validity is damage.
const VALID_MS_MAX: u64 = 600_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Whose builder says so.
    pub region: RegionName,
    pub epoch: Epoch,
    /// By the builder's clock; of two values the later one has the larger.
    pub published_ms: i64,
    /// How long a reader may believe it after it has changed.
    pub valid_ms: u64,
    pub origins: BTreeMap<RegionName, OriginData>,
}

/// Why a published value is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableFreshness {
    #[error("fp:fresh is of version {0}, this process reads {VERSION}")]
    Version(u32),
    #[error("fp:fresh names a region that is none, too many of them, or a validity of more than 10 minutes: it is damaged")]
    Damaged,
}

impl Published {
    pub fn to_wire(&self) -> v1::PublishedFreshness {
        let origin = |(region, data): (&RegionName, &OriginData)| {
            let named = v1::OriginProgress { region: region.to_string(), ..v1::OriginProgress::default() };
            match data {
                OriginData::Producing { age_ms } => v1::OriginProgress { age_ms: age_ms.fresh().copied(), ..named },
                OriginData::Ended { folded_through_ms, ended_ms } => {
                    v1::OriginProgress { ended: true, folded_through_ms: folded_through_ms.fresh().copied(), ended_ms: *ended_ms, ..named }
                }
            }
        };
        v1::PublishedFreshness {
            version: VERSION,
            region: self.region.to_string(),
            epoch: self.epoch.0,
            published_ms: self.published_ms,
            valid_ms: self.valid_ms,
            origins: self.origins.iter().map(origin).collect(),
        }
    }

    /// # Errors
    /// When it is of another version, or damaged.
    pub fn from_wire(wire: &v1::PublishedFreshness) -> Result<Self, UnusableFreshness> {
        if wire.version != VERSION {
            return Err(UnusableFreshness::Version(wire.version));
        }
        if wire.origins.len() > ORIGINS_MAX || wire.valid_ms > VALID_MS_MAX {
            return Err(UnusableFreshness::Damaged);
        }
        let region = |name: &str| RegionName::new(name).map_err(|_| UnusableFreshness::Damaged);
        let origins = wire.origins.iter().map(|origin| Ok((region(&origin.region)?, data_of(origin, wire.published_ms))));
        Ok(Self {
            region: region(&wire.region)?,
            epoch: Epoch(wire.epoch),
            published_ms: wire.published_ms,
            valid_ms: wire.valid_ms,
            origins: origins.collect::<Result<_, _>>()?,
        })
    }
}

fn data_of(origin: &v1::OriginProgress, published_ms: i64) -> OriginData {
    let seen_at_ms = published_ms.max(0).unsigned_abs();
    if origin.ended {
        let folded_through_ms = known(origin.folded_through_ms, seen_at_ms);
        return OriginData::Ended { folded_through_ms, ended_ms: origin.ended_ms };
    }
    OriginData::Producing { age_ms: known(origin.age_ms, seen_at_ms) }
}

fn known<T>(value: Option<T>, seen_at_ms: u64) -> Known<T> {
    value.map_or_else(|| Known::unknown("the builder does not know"), |value| Known::Fresh { value, seen_at_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Published {
        let region = |name: &str| RegionName::new(name).unwrap();
        let fresh = |value| Known::Fresh { value, seen_at_ms: 5_000 };
        let origins = [
            (region("ap-south"), OriginData::Ended { folded_through_ms: Known::unknown("the builder does not know"), ended_ms: 900 }),
            (region("eu-west"), OriginData::Ended { folded_through_ms: Known::Fresh { value: 800, seen_at_ms: 5_000 }, ended_ms: 900 }),
            (region("us-east"), OriginData::Producing { age_ms: fresh(0) }),
        ];
        Published { region: region("us-east"), epoch: Epoch(3), published_ms: 5_000, valid_ms: 2_000, origins: origins.into() }
    }

    #[test]
    fn what_is_published_reads_back_and_an_age_of_zero_is_not_an_unknown_one() {
        assert_eq!(Published::from_wire(&published().to_wire()), Ok(published()));
        let mut unknown = published();
        let here = unknown.region.clone();
        unknown.origins.insert(here.clone(), OriginData::Producing { age_ms: Known::Stale { value: 7, seen_at_ms: 1 } });
        let read = Published::from_wire(&unknown.to_wire()).unwrap();
        assert!(matches!(&read.origins[&here], OriginData::Producing { age_ms: Known::Unknown { .. } }), "what is stale is not known");
    }

    #[test]
    fn another_version_and_damage_are_refused() {
        let wire = published().to_wire();
        let with = |change: fn(&mut v1::PublishedFreshness)| {
            let mut wire = wire.clone();
            change(&mut wire);
            Published::from_wire(&wire).unwrap_err()
        };
        assert_eq!(with(|wire| wire.version = 2), UnusableFreshness::Version(2));
        assert_eq!(with(|wire| wire.region = "US".into()), UnusableFreshness::Damaged);
        assert_eq!(with(|wire| wire.valid_ms = u64::MAX), UnusableFreshness::Damaged);
        assert_eq!(with(|wire| wire.origins = vec![v1::OriginProgress::default(); 65]), UnusableFreshness::Damaged);
    }
}
