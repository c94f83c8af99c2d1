//! From what the planner tells to the status of a FraudPipeline, and when that is written. The mapping is pure.
//!
//! A status is written when it differs from the one that is there, and not more often than each ten seconds; what was
//! held back is not lost, since the next pass makes the then newest one. A new manifest is answered at once.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crds::{
    FraudPipeline, FraudPipelineStatus,
    status::{FeatureFreshness, Health, MirrorState, MirrorStatus, Phase, RegionModelStatus, RegionStatus},
};
use domain::RegionName;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use operator_planner::{self as planner, CurrentPlan, PipelineStatus};
use tokio::time::Instant;

use crate::register::PipelineKey;

const WRITE_EVERY: Duration = Duration::from_secs(10);

/// The status to write. Conditions keep the time since which they have had their value.
pub(crate) fn status_of(
    pipeline: &FraudPipeline,
    region: &RegionName,
    current: Option<&CurrentPlan>,
    told: &PipelineStatus,
    spec_digest: Option<String>,
    now: Timestamp,
) -> FraudPipelineStatus {
    let before = pipeline.status.clone().unwrap_or_default();
    let plan = current.map(|current| &current.plan);
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    FraudPipelineStatus {
        observed_generation: pipeline.metadata.generation,
        local_region: Some(region.as_str().into()),
        active_region: plan.map(|plan| plan.active_region.as_str().into()),
        epoch: plan.map(|plan| signed(plan.epoch.0)),
        revision: plan.map(|plan| signed(plan.revision.0)),
        spec_digest,
        data_plane_version: plan.map(|plan| plan.data_plane_version.clone()),
        phase: Some(phase(told.phase)),
        features: Some(freshness(told.features)),
        model: told.model.as_deref().map(|digest| digest.chars().take(12).collect()),
        regions: told.regions.iter().map(|state| of_region(state, region, told, &before, now)).collect(),
        waiting_on: told.waiting_on.as_deref().map(|why| shortened(why, 2048)),
        holds: Vec::new(),
        last_failover: None,
        conditions: told.conditions.iter().map(|condition| of_condition(condition, pipeline, &before, now)).collect(),
    }
}

fn phase(phase: planner::Phase) -> Phase {
    match phase {
        planner::Phase::Pending => Phase::Pending,
        planner::Phase::Active => Phase::Active,
        planner::Phase::Standby => Phase::Standby,
        planner::Phase::Handover => Phase::Handover,
        planner::Phase::Isolated => Phase::Isolated,
        planner::Phase::Rejoining => Phase::Rejoining,
        planner::Phase::Witness => Phase::Witness,
        planner::Phase::Deleting => Phase::Deleting,
    }
}

fn freshness(level: Option<planner::FeatureLevel>) -> FeatureFreshness {
    match level {
        Some(planner::FeatureLevel::Fresh) => FeatureFreshness::Fresh,
        Some(planner::FeatureLevel::Raised) => FeatureFreshness::Raised,
        Some(planner::FeatureLevel::Stopped) => FeatureFreshness::Stopped,
        None => FeatureFreshness::Unknown,
    }
}

fn of_region(
    state: &planner::RegionState,
    own: &RegionName,
    told: &PipelineStatus,
    before: &FraudPipelineStatus,
    now: Timestamp,
) -> RegionStatus {
    let health = match state.health {
        planner::Health::Healthy => Health::Healthy,
        planner::Health::Unhealthy => Health::Unhealthy,
        planner::Health::Unknown => Health::Unknown,
    };
    let model = told.model.clone().filter(|_| &state.name == own).map(|active| RegionModelStatus {
        active: Some(active),
        candidate: None,
        stage: None,
    });
    let mirrors_before =
        before.regions.iter().find(|region| region.name.as_str() == state.name.as_str()).map(|region| region.mirror.as_slice());
    RegionStatus {
        name: state.name.as_str().into(),
        role: state.role.to_string(),
        health: Some(health),
        features: Some(freshness(state.features)),
        mirror: state.mirrors.iter().map(|(origin, state)| of_mirror(origin, *state, mirrors_before.unwrap_or_default(), now)).collect(),
        model,
    }
}

fn of_mirror(origin: &RegionName, state: planner::MirrorState, before: &[MirrorStatus], now: Timestamp) -> MirrorStatus {
    let state = match state {
        planner::MirrorState::Stopped => MirrorState::Stopped,
        planner::MirrorState::Unknown => MirrorState::Unknown,
    };
    let same = before.iter().find(|mirror| mirror.origin.as_str() == origin.as_str() && mirror.state == state);
    let since = same.and_then(|mirror| mirror.since.clone()).unwrap_or_else(|| seconds(now).to_string());
    MirrorStatus { origin: origin.as_str().into(), state, since: Some(since) }
}

fn of_condition(told: &planner::Condition, pipeline: &FraudPipeline, before: &FraudPipelineStatus, now: Timestamp) -> Condition {
    let (type_, status) = (told.condition.as_str(), told.truth.as_str());
    let same = before.conditions.iter().find(|condition| condition.type_ == type_ && condition.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: told.reason.to_owned(),
        message: shortened(&told.message, 4096),
        observed_generation: pipeline.metadata.generation,
        last_transition_time: same.map_or_else(|| Time(seconds(now)), |condition| condition.last_transition_time.clone()),
    }
}

/// Kubernetes keeps whole seconds: a finer time would differ from what is read back, and be written again.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn shortened(text: &str, bytes_max: usize) -> String {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A condition that got another value or another reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transition {
    pub condition: String,
    pub reason: String,
    pub message: String,
    pub warns: bool,
}

/// What changed from one status to the next, for events.
pub(crate) fn transitions(before: Option<&FraudPipelineStatus>, after: &FraudPipelineStatus) -> Vec<Transition> {
    let known = |condition: &Condition| {
        let old = before.into_iter().flat_map(|status| &status.conditions).find(|old| old.type_ == condition.type_);
        old.map(|old| (old.status.as_str(), old.reason.as_str()))
    };
    let changed = after.conditions.iter().filter(|condition| known(condition) != Some((&condition.status, &condition.reason)));
    // What has never been known and still is not, is no news.
    let news = changed.filter(|condition| !(condition.status == "Unknown" && known(condition).is_none()));
    news.map(|condition| Transition {
        condition: condition.type_.clone(),
        reason: condition.reason.clone(),
        message: format!("{} is {}: {}", condition.type_, condition.status, condition.message),
        warns: is_bad(condition),
    })
    .collect()
}

fn is_bad(condition: &Condition) -> bool {
    match condition.type_.as_str() {
        crds::conditions::STALLED => condition.status == "True",
        crds::conditions::RECONCILING | crds::conditions::FAILOVER_READY => false,
        _ => condition.status == "False",
    }
}

/// What to do with a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    NotNeeded,
    Now,
    /// It was written a moment ago: make a new one after this time.
    Later(Duration),
}

/// Remembers when each pipeline's status was written.
#[derive(Default)]
pub(crate) struct WriteLimit {
    written: Mutex<BTreeMap<PipelineKey, Instant>>,
}

impl WriteLimit {
    pub(crate) fn judge(
        &self,
        key: &PipelineKey,
        before: Option<&FraudPipelineStatus>,
        after: &FraudPipelineStatus,
        now: Instant,
    ) -> Write {
        if before == Some(after) {
            return Write::NotNeeded;
        }
        let observed = before.and_then(|status| status.observed_generation);
        if observed != after.observed_generation {
            return Write::Now;
        }
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        match written.get(key).map(|at| WRITE_EVERY.saturating_sub(now.duration_since(*at))) {
            Some(left) if !left.is_zero() => Write::Later(left),
            _ => Write::Now,
        }
    }

    pub(crate) fn written(&self, key: &PipelineKey, now: Instant) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), now);
    }

    pub(crate) fn forget(&self, key: &PipelineKey) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use operator_planner::{Allowed, ConditionType, Observation, PlanReport, StatusInput, status};

    use super::*;
    use crate::testing::example;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn told(refused: bool) -> PipelineStatus {
        let region = RegionName::new("us-east").unwrap();
        status(&StatusInput {
            region: &region,
            plan: None,
            report: &PlanReport::default(),
            allowed: &Allowed::default(),
            seen: &Observation::nothing("test"),
            refused: refused.then(|| ("InputMissing", "Secret fraud-pii is missing".into())),
            failures: &[],
            applied: false,
            deletion: None,
        })
    }

    fn made(pipeline: &FraudPipeline, refused: bool, second: i64) -> FraudPipelineStatus {
        status_of(pipeline, &RegionName::new("us-east").unwrap(), None, &told(refused), None, at(second))
    }

    #[test]
    fn every_condition_of_the_api_is_told_with_its_name() {
        let names: Vec<_> = told(false).conditions.iter().map(|condition| condition.condition.as_str()).collect();
        assert_eq!(names, crds::conditions::OF_A_PIPELINE);
        assert_eq!(told(true).truth(ConditionType::Accepted), planner::Truth::False);
    }

    #[test]
    fn a_condition_keeps_the_time_since_which_it_has_its_value() {
        let mut pipeline = example();
        pipeline.status = Some(made(&pipeline, false, 100));
        let same = made(&pipeline, false, 200);
        assert_eq!(Some(&same), pipeline.status.as_ref(), "nothing happened, so nothing differs");
        let changed = made(&pipeline, true, 300);
        let accepted = changed.conditions.iter().find(|condition| condition.type_ == "Accepted").unwrap();
        assert_eq!(accepted.last_transition_time.0, at(300));
        let ready = changed.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!(ready.last_transition_time.0, at(100));
    }

    #[test]
    fn transitions_are_what_changed_and_not_what_is_still_unknown() {
        let pipeline = example();
        let (before, after) = (made(&pipeline, false, 1), made(&pipeline, true, 2));
        let changes = transitions(Some(&before), &after);
        assert_eq!(changes.iter().map(|change| (change.condition.as_str(), change.warns)).collect::<Vec<_>>(), [("Accepted", true)]);
        assert!(transitions(None, &before).iter().all(|change| change.condition != "FeaturesFresh"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_status_is_written_at_most_each_ten_seconds_and_the_newest_in_the_end() {
        let key = PipelineKey { namespace: "fraud".into(), name: "payments".into() };
        let (limit, pipeline) = (WriteLimit::default(), example());
        let (one, two) = (made(&pipeline, false, 1), made(&pipeline, true, 2));
        assert_eq!(limit.judge(&key, None, &one, Instant::now()), Write::Now);
        limit.written(&key, Instant::now());
        assert_eq!(limit.judge(&key, Some(&one), &one, Instant::now()), Write::NotNeeded);
        assert_eq!(limit.judge(&key, Some(&one), &two, Instant::now()), Write::Later(WRITE_EVERY));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(limit.judge(&key, Some(&one), &two, Instant::now()), Write::Later(Duration::from_secs(6)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(limit.judge(&key, Some(&one), &two, Instant::now()), Write::Now);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_manifest_is_answered_at_once() {
        let key = PipelineKey { namespace: "fraud".into(), name: "payments".into() };
        let (limit, mut pipeline) = (WriteLimit::default(), example());
        let before = made(&pipeline, false, 1);
        limit.written(&key, Instant::now());
        pipeline.metadata.generation = Some(2);
        let after = made(&pipeline, true, 2);
        assert_eq!(limit.judge(&key, Some(&before), &after, Instant::now()), Write::Now);
    }
}
