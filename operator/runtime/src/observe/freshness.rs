//! How fresh this region's features are, judged as the decision services judge it: from what the builder of the active region
//! publishes in the shards.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crds::EffectiveRegionSpec;
use domain::{HostPort, Known};
use operator_planner::{FeatureFacts, FeatureLevel};
use scoring_core::{
    freshness::{Completeness, Level, Memory, Staleness, assess},
    published::{Heard, origins},
    windows::{Window, Windows},
};

use crate::kinds::Owner;

/// What has to be remembered of each pipeline, so that a level around a threshold does not flap.
#[derive(Debug, Default)]
pub(super) struct Judge(Mutex<BTreeMap<(String, String), Memory>>);

impl Judge {
    /// `processes`: by shard. `readings` and `now_ms` are on one clock of this process; `wall_ms` is the time of day.
    pub(super) fn judge(
        &self,
        owner: &Owner,
        effective: &EffectiveRegionSpec,
        processes: &[Vec<HostPort>],
        readings: &BTreeMap<HostPort, Heard>,
        (now_ms, wall_ms): (u64, i64),
    ) -> Known<FeatureFacts> {
        let (windows, staleness) = match limits(effective) {
            Ok(limits) => limits,
            Err(why) => return Known::unknown(why),
        };
        let nothing = Heard::default();
        // Of a shard's processes the one that is furthest: the others follow it.
        let furthest = |shard: &Vec<HostPort>| {
            let heard = shard.iter().filter_map(|process| readings.get(process));
            heard.max_by_key(|heard| heard.published_ms()).unwrap_or(&nothing)
        };
        let shards: Vec<&Heard> = processes.iter().map(furthest).collect();
        let mut memories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = memories.entry((owner.namespace.clone(), owner.name.clone())).or_default();
        let found = assess(&origins(&shards, now_ms), &windows, &staleness, memory, wall_ms);
        let level = match found.level {
            Level::Fresh => FeatureLevel::Fresh,
            Level::Raised => FeatureLevel::Raised,
            Level::Stopped => FeatureLevel::Stopped,
            Level::Unknown => return Known::unknown("the shards have not said lately how far the log is folded"),
        };
        let incomplete = found.windows.iter().filter(|(_, completeness)| *completeness != Completeness::Complete);
        let incomplete_windows = incomplete.map(|(window, _)| window.to_string()).collect();
        Known::Fresh { value: FeatureFacts { level, incomplete_windows }, seen_at_ms: now_ms }
    }

    pub(super) fn forget(&self, owner: &Owner) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(owner.namespace.clone(), owner.name.clone()));
    }
}

fn limits(effective: &EffectiveRegionSpec) -> Result<(Windows, Staleness), String> {
    let features = &effective.spec.features;
    let length = |text: &crds::text::DurationText| text.to_std().map_err(|error| error.to_string());
    let windows: Result<Vec<Window>, String> =
        features.windows.iter().map(|text| Window::new(length(text)?).map_err(|error| error.to_string())).collect();
    let usual = Windows::default();
    let skew = Duration::from_millis(usual.skew_ms().unsigned_abs());
    let windows = Windows::new(windows?, skew, usual.events_max()).map_err(|error| error.to_string())?;
    let limits = &features.staleness;
    let staleness = Staleness::new(length(&limits.warn)?, length(&limits.raise)?, length(&limits.stop)?);
    Ok((windows, staleness.map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use domain::{Epoch, RegionName};
    use prost::Message as _;
    use scoring_core::{freshness::OriginData, published::Published};

    use super::*;
    use crate::testing::example;

    fn process(port: u16) -> HostPort {
        HostPort { host: "127.0.0.1".into(), port }
    }

    /// A value that was seen to come at 1 s: of an origin whose data was so old.
    fn heard(published_ms: i64, age_ms: u64) -> Heard {
        let region = RegionName::new("us-east").unwrap();
        let of = |published_ms| {
            let origins = [(region.clone(), OriginData::Producing { age_ms: Known::Fresh { value: age_ms, seen_at_ms: 0 } })].into();
            Published { region: region.clone(), epoch: Epoch(1), published_ms, valid_ms: 2_000, origins }.to_wire().encode_to_vec()
        };
        let mut heard = Heard::default();
        heard.note(Some(&of(published_ms - 1)), 0);
        heard.note(Some(&of(published_ms)), 1_000);
        heard
    }

    fn level(readings: &[(u16, Heard)], now_ms: u64) -> Option<FeatureLevel> {
        let readings = readings.iter().map(|(port, heard)| (process(*port), heard.clone())).collect();
        let shards = [vec![process(1), process(2)], vec![process(3)]];
        let owner = Owner { name: "payments".into(), namespace: "fraud".into(), uid: "1".into() };
        let effective = example().spec.effective_for("us-east").unwrap();
        let found = Judge::default().judge(&owner, &effective, &shards, &readings, (now_ms, 0));
        found.fresh().map(|facts| facts.level)
    }

    #[test]
    fn every_shard_counts_with_the_process_that_is_furthest_and_silence_is_not_fresh() {
        let whole = [(1, heard(9_000, 80)), (2, heard(2_000, 70_000)), (3, heard(9_000, 90))];
        assert_eq!(level(&whole, 1_100), Some(FeatureLevel::Fresh), "a copy that is late is not what is read");
        assert_eq!(level(&whole, 3_100), None, "nothing was heard for two seconds");
        assert_eq!(level(&whole[..2], 1_100), None, "a shard says nothing");
        let late = [(1, heard(9_000, 80)), (3, heard(9_000, 6_000))];
        assert_eq!(level(&late, 1_100), Some(FeatureLevel::Raised));
        let dead = [(1, heard(9_000, 80)), (3, heard(9_000, 61_000))];
        assert_eq!(level(&dead, 1_100), Some(FeatureLevel::Stopped));
    }
}
