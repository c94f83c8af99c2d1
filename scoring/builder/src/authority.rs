//! Which regions have lost authority, and when: what they wrote before and is not folded is missing. Pure.
//!
//! Known from the plans that this process has seen, and, for what was before it started, from what the builder before it had
//! published in the shards. Times are those of the caller's clock.

use std::collections::BTreeMap;

use domain::{Epoch, Known, PlanView, RegionName};
use scoring_core::{freshness::OriginData, published::Published};

/// What is known of an origin without its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ended {
    ended_ms: i64,
    /// Up to when a builder before this one had folded it.
    folded_through_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Authority {
    active: Option<RegionName>,
    /// When the plan in force was seen first.
    since_ms: i64,
    ended: BTreeMap<RegionName, Ended>,
}

impl Authority {
    /// There is another plan.
    pub(crate) fn follow(&mut self, plan: &PlanView, now_ms: i64) {
        if self.active.as_ref() == Some(&plan.active_region) {
            return;
        }
        if let Some(former) = self.active.replace(plan.active_region.clone()) {
            self.ended.insert(former, Ended { ended_ms: now_ms, folded_through_ms: None });
        }
        self.since_ms = now_ms;
        self.ended.remove(&plan.active_region);
    }

    /// What the builder before this one said, if it left anything. `offset_ms` leads from its clock to the caller's.
    pub(crate) fn inherit(&mut self, left: Option<&Published>, epoch: Epoch, others: &[RegionName], offset_ms: i64) {
        let Some(left) = left else {
            // Of a later epoch than the first, and nobody tells who was active before: anybody may have been.
            if epoch > Epoch::FIRST {
                others.iter().for_each(|region| self.note(region, Ended { ended_ms: self.since_ms, folded_through_ms: None }));
            }
            return;
        };
        for (region, data) in &left.origins {
            if let OriginData::Ended { folded_through_ms, ended_ms } = data {
                let folded_through_ms = folded_through_ms.fresh().map(|through_ms| through_ms.saturating_add(offset_ms));
                self.note(region, Ended { ended_ms: ended_ms.saturating_add(offset_ms), folded_through_ms });
            }
        }
        self.note(&left.region, Ended { ended_ms: self.since_ms, folded_through_ms: None });
    }

    /// What this process saw itself is known better.
    fn note(&mut self, region: &RegionName, ended: Ended) {
        if self.active.as_ref() != Some(region) && !self.ended.contains_key(region) {
            self.ended.insert(region.clone(), ended);
        }
    }

    /// Intervals that ended before this are in no window any more.
    pub(crate) fn forget_before(&mut self, time_ms: i64) {
        self.ended.retain(|_, ended| ended.ended_ms >= time_ms);
    }

    /// What counts for the windows, given up to when the log of each region has been folded, and how old that is.
    pub(crate) fn origins(
        &self,
        here: &RegionName,
        reaches_ms: impl Fn(&RegionName) -> Option<i64>,
        own_age: Known<u64>,
        now_ms: i64,
    ) -> BTreeMap<RegionName, OriginData> {
        let ended = self.ended.iter().map(|(region, ended)| {
            let through_ms = reaches_ms(region).max(ended.folded_through_ms);
            let seen_at_ms = now_ms.max(0).unsigned_abs();
            let folded_through_ms =
                through_ms.map_or_else(|| Known::unknown("nothing of it was folded yet"), |value| Known::Fresh { value, seen_at_ms });
            (region.clone(), OriginData::Ended { folded_through_ms, ended_ms: ended.ended_ms })
        });
        ended.chain([(here.clone(), OriginData::Producing { age_ms: own_age })]).collect()
    }
}

#[cfg(test)]
mod tests {
    use domain::{PipelineName, RegionRole, Revision, SlotMap, Step};

    use super::*;

    fn region(name: &str) -> RegionName {
        RegionName::new(name).unwrap()
    }

    fn plan(active: &str, epoch: u64) -> PlanView {
        PlanView {
            pipeline: PipelineName::new("payments").unwrap(),
            namespace: "fraud".into(),
            region: region("eu-west"),
            epoch: Epoch(epoch),
            revision: Revision(1),
            active_region: region(active),
            role: if active == "eu-west" { RegionRole::Active } else { RegionRole::Standby },
            step: Step::Steady,
            slots: SlotMap::even(1).unwrap(),
            shards: vec![],
        }
    }

    fn ended(authority: &Authority, reaches_ms: Option<i64>) -> Vec<(String, Option<i64>, i64)> {
        let origins = authority.origins(&region("eu-west"), |_| reaches_ms, Known::unknown("-"), 0);
        let of = |(region, data): (RegionName, OriginData)| match data {
            OriginData::Ended { folded_through_ms, ended_ms } => Some((region.to_string(), folded_through_ms.fresh().copied(), ended_ms)),
            OriginData::Producing { .. } => None,
        };
        origins.into_iter().filter_map(of).collect()
    }

    #[test]
    fn the_region_that_was_active_before_has_ended_when_the_plan_changed() {
        let mut authority = Authority::default();
        authority.follow(&plan("us-east", 1), 100);
        authority.follow(&plan("us-east", 1), 200);
        assert_eq!(ended(&authority, Some(5)), []);
        authority.follow(&plan("eu-west", 2), 300);
        assert_eq!(ended(&authority, Some(250)), [("us-east".into(), Some(250), 300)]);
        authority.follow(&plan("us-east", 3), 400);
        assert_eq!(
            authority.ended.into_iter().collect::<Vec<_>>(),
            [(region("eu-west"), Ended { ended_ms: 400, folded_through_ms: None })]
        );
    }

    #[test]
    fn a_builder_that_starts_anew_knows_what_the_one_before_it_left() {
        let mut authority = Authority::default();
        authority.follow(&plan("eu-west", 2), 1_000);
        let us = OriginData::Ended { folded_through_ms: Known::Fresh { value: 90, seen_at_ms: 0 }, ended_ms: 95 };
        let left = Published {
            region: region("eu-west"),
            epoch: Epoch(2),
            published_ms: 900,
            valid_ms: 2_000,
            origins: [(region("us-east"), us), (region("eu-west"), OriginData::Producing { age_ms: Known::unknown("-") })].into(),
        };
        authority.inherit(Some(&left), Epoch(2), &[region("us-east")], 5);
        // Also when no heartbeat of the dead region tells this process anything.
        assert_eq!(ended(&authority, None), [("us-east".into(), Some(95), 100)]);
        assert_eq!(ended(&authority, Some(97)), [("us-east".into(), Some(97), 100)]);
    }

    #[test]
    fn after_a_takeover_the_region_that_had_published_has_ended_even_if_this_process_saw_none_of_its_plans() {
        let mut authority = Authority::default();
        authority.follow(&plan("eu-west", 2), 1_000);
        let left = Published { region: region("us-east"), epoch: Epoch(1), published_ms: 1, valid_ms: 1, origins: BTreeMap::new() };
        authority.inherit(Some(&left), Epoch(2), &[], 0);
        assert_eq!(ended(&authority, None), [("us-east".into(), None, 1_000)]);
    }

    #[test]
    fn without_any_trace_of_an_earlier_epoch_anybody_may_have_been_active() {
        let others = [region("ap-south"), region("us-east")];
        let mut authority = Authority::default();
        authority.follow(&plan("eu-west", 4), 7);
        authority.inherit(None, Epoch(4), &others, 0);
        assert_eq!(ended(&authority, None).len(), 2);
        let mut first = Authority::default();
        first.follow(&plan("eu-west", 1), 7);
        first.inherit(None, Epoch::FIRST, &others, 0);
        assert_eq!(ended(&first, None), []);
    }

    #[test]
    fn what_no_window_can_miss_is_forgotten() {
        let mut authority = Authority::default();
        authority.follow(&plan("us-east", 1), 100);
        authority.follow(&plan("eu-west", 2), 300);
        authority.forget_before(300);
        assert_eq!(ended(&authority, None).len(), 1);
        authority.forget_before(301);
        assert_eq!(ended(&authority, None), []);
    }
}
