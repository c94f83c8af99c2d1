//! What a committed plan allows to be done now.

use domain::{Epoch, HostPort, Known, Plan, PlanView, RegionName, RegionRole};

use crate::{Observation, Reason, TopicsState, shards};

/// One thing to do. Each carries its epoch, and whoever receives it refuses an older one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Give this region's pods the plan.
    EnsurePlanView(Box<PlanView>),
    /// Create the topics, or raise their partitions.
    EnsureTopics,
    /// Make a shard's process take writes.
    MakePrimary { shard: u16, process: u16, epoch: Epoch },
    /// Make a shard's process a copy of another region's.
    FollowRemote { shard: u16, process: u16, upstream: HostPort, epoch: Epoch },
    /// Make a shard's process a copy of another one of this region.
    FollowLocal { shard: u16, process: u16, leader: u16, epoch: Epoch },
    /// Make a shard's process keep what it holds: no writes, and others may copy it.
    HoldCopy { shard: u16, process: u16, epoch: Epoch },
    /// Let a shard's primary take writes only while so many others have them at hand.
    RequireReplicas { shard: u16, process: u16, replicas: u64, epoch: Epoch },
}

impl Action {
    /// The stable name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::EnsurePlanView(_) => "EnsurePlanView",
            Self::EnsureTopics => "EnsureTopics",
            Self::MakePrimary { .. } => "MakePrimary",
            Self::FollowRemote { .. } => "FollowRemote",
            Self::FollowLocal { .. } => "FollowLocal",
            Self::HoldCopy { .. } => "HoldCopy",
            Self::RequireReplicas { .. } => "RequireReplicas",
        }
    }

    /// Whether the region does not perform its role before this is done.
    pub fn gives_role(&self) -> bool {
        match self {
            Self::MakePrimary { .. } | Self::FollowRemote { .. } | Self::HoldCopy { .. } => true,
            Self::EnsurePlanView(_) | Self::EnsureTopics | Self::FollowLocal { .. } | Self::RequireReplicas { .. } => false,
        }
    }
}

/// What may be done, and why the rest may not. The actions are independent of each other.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowed {
    pub actions: Vec<Action>,
    pub blocked: Vec<Reason>,
}

/// The only way from a plan to work. Empty once everything is as the plan says.
pub fn actions(plan: &Plan, region: &RegionName, seen: &Observation) -> Allowed {
    let mut allowed = Allowed::default();
    let Some(role) = plan.role_of(region) else {
        allowed.blocked.push(Reason::UnsafeToActInNoRegion { region: region.clone() });
        return allowed;
    };
    if role == RegionRole::Witness {
        return allowed;
    }
    plan_view(plan, region, seen, &mut allowed);
    topics(seen, &mut allowed);
    for shard in 0..plan.features.slots.shards() {
        shards::judge(plan, region, role, shard, seen, &mut allowed);
    }
    allowed.blocked.extend(seen.faults.iter().cloned().map(Box::new).map(Reason::UnsafeToRunWithSetting));
    allowed
}

fn plan_view(plan: &Plan, region: &RegionName, seen: &Observation, allowed: &mut Allowed) {
    let Some(view) = view_of(plan, region, seen) else { return };
    let found = match &seen.view {
        Known::Fresh { value, .. } => value,
        Known::Stale { .. } => return allowed.blocked.push(Reason::WaitingOnPlanView { why: "not seen lately".into() }),
        Known::Unknown { why } => return allowed.blocked.push(Reason::WaitingOnPlanView { why: why.clone() }),
    };
    match found {
        Some(found) if *found == view => {}
        // Pods have acted on it: going back would break their fence (invariant I2).
        Some(found) if found.epoch > view.epoch => {
            allowed.blocked.push(Reason::UnsafeToActBelowSeenEpoch {
                what: "the plan that pods read".into(),
                seen: found.epoch,
                ours: view.epoch,
            });
        }
        _ => allowed.actions.push(Action::EnsurePlanView(Box::new(view))),
    }
}

fn topics(seen: &Observation, allowed: &mut Allowed) {
    match &seen.topics {
        Known::Fresh { value: TopicsState::Ready, .. } => {}
        Known::Fresh { value: TopicsState::Missing(_), .. } => allowed.actions.push(Action::EnsureTopics),
        Known::Fresh { value: TopicsState::MissingUnmanaged(topics), .. } => {
            allowed.blocked.push(Reason::WaitingOnTopics { topics: topics.clone() });
        }
        Known::Stale { .. } => allowed.blocked.push(Reason::WaitingOnKafka { why: "not seen lately".into() }),
        Known::Unknown { why } => allowed.blocked.push(Reason::WaitingOnKafka { why: why.clone() }),
    }
}

/// What a region's pods need to know of the plan, and of the shards in their region; none for a region that is not in the
/// plan or runs nothing.
pub fn view_of(plan: &Plan, region: &RegionName, seen: &Observation) -> Option<PlanView> {
    let role = plan.role_of(region).filter(|role| *role != RegionRole::Witness)?;
    let shards = (0..plan.features.slots.shards()).map(|shard| shards::address_of(plan, region, role, shard, seen));
    Some(PlanView {
        pipeline: plan.pipeline.clone(),
        namespace: plan.namespace.clone(),
        region: region.clone(),
        epoch: plan.epoch,
        revision: plan.revision,
        active_region: plan.active_region.clone(),
        role,
        step: plan.step,
        slots: plan.features.slots.clone(),
        shards: shards.collect(),
    })
}
