//! What people are told: one value, from which status, events and the CLI are made. Holds buckets and reasons, never
//! live numbers, so that it changes only when something does.

use std::collections::BTreeMap;

use domain::{Known, Plan, RegionName, RegionRole};

use crate::{
    Allowed, Component, Observation, PlanReport, Reason, TopicsState, Workload,
    seen::{Link, ShardRole},
    shards,
};

/// True, False, or not known: never taken for either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What is judged. In the order in which it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    Accepted,
    Ready,
    Reconciling,
    Stalled,
    Quorum,
    SpecInSync,
    InputsInSync,
    Replicating,
    FeaturesFresh,
    ModelsInSync,
    FailoverReady,
}

impl ConditionType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::Quorum => "Quorum",
            Self::SpecInSync => "SpecInSync",
            Self::InputsInSync => "InputsInSync",
            Self::Replicating => "Replicating",
            Self::FeaturesFresh => "FeaturesFresh",
            Self::ModelsInSync => "ModelsInSync",
            Self::FailoverReady => "FailoverReady",
        }
    }
}

/// A judgement with its reason, which is the anchor of a runbook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub condition: ConditionType,
    pub truth: Truth,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Pending,
    Active,
    Standby,
    Handover,
    Isolated,
    Rejoining,
    Witness,
    Deleting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Healthy,
    Unhealthy,
    Unknown,
}

/// As far as this operator can tell: whether a mirror's pods run. How late it is, is in the mirror's own metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MirrorState {
    Stopped,
    Unknown,
}

/// One region, as known here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionState {
    pub name: RegionName,
    pub role: RegionRole,
    pub health: Health,
    /// Only of this operator's own region.
    pub mirrors: Vec<(RegionName, MirrorState)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineStatus {
    pub phase: Phase,
    pub conditions: Vec<Condition>,
    pub regions: Vec<RegionState>,
    pub waiting_on: Option<String>,
    /// Digest of the model that this region's pods have loaded and checked.
    pub model: Option<String>,
}

impl PipelineStatus {
    pub fn truth(&self, condition: ConditionType) -> Truth {
        self.conditions.iter().find(|found| found.condition == condition).map_or(Truth::Unknown, |found| found.truth)
    }
}

/// All that [`status`] looks at.
#[derive(Debug, Clone)]
pub struct StatusInput<'a> {
    pub region: &'a RegionName,
    pub plan: Option<&'a Plan>,
    pub report: &'a PlanReport,
    pub allowed: &'a Allowed,
    pub seen: &'a Observation,
    /// Why the manifest is not accepted: a stable reason, and what to do.
    pub refused: Option<(&'static str, String)>,
    /// What was tried and did not work.
    pub failures: &'a [String],
    /// Whether owned objects were changed in this pass.
    pub applied: bool,
    /// The manifest is being deleted, and why that waits, if it does.
    pub deletion: Option<Option<String>>,
}

const NOT_CONNECTED: (&str, &str) = ("PeersNotConnected", "the operators of the regions are not connected to each other");
const SINGLE_REGION: (&str, &str) = ("SingleRegion", "there is only one region");

/// What to tell.
pub fn status(input: &StatusInput<'_>) -> PipelineStatus {
    let facts = Facts::of(input);
    let conditions = vec![
        accepted(input),
        facts.ready(input),
        facts.reconciling(input),
        facts.stalled(input),
        facts.between_regions(ConditionType::Quorum, Truth::True),
        facts.between_regions(ConditionType::SpecInSync, Truth::True),
        facts.between_regions(ConditionType::InputsInSync, Truth::True),
        facts.replicating(input),
        condition(
            ConditionType::FeaturesFresh,
            Truth::Unknown,
            "NotMeasured",
            "the operator does not measure it; see the decision service's metrics",
        ),
        condition(ConditionType::ModelsInSync, Truth::Unknown, "NotMeasured", "the models of the other regions are not compared"),
        facts.failover_ready(),
    ];
    let ready = conditions.iter().any(|found| found.condition == ConditionType::Ready && found.truth == Truth::True);
    PipelineStatus {
        phase: phase(input),
        regions: facts.regions(input, ready),
        waiting_on: facts.waiting_on(input),
        model: facts.model(input),
        conditions,
    }
}

fn condition(condition: ConditionType, truth: Truth, reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { condition, truth, reason, message: message.into() }
}

fn accepted(input: &StatusInput<'_>) -> Condition {
    match &input.refused {
        Some((reason, message)) => condition(ConditionType::Accepted, Truth::False, reason, message.clone()),
        None => condition(ConditionType::Accepted, Truth::True, "Valid", "the manifest is valid in this region"),
    }
}

fn phase(input: &StatusInput<'_>) -> Phase {
    if input.deletion.is_some() {
        return Phase::Deleting;
    }
    match input.plan.and_then(|plan| plan.role_of(input.region)) {
        None | Some(RegionRole::Learner) => Phase::Pending,
        Some(RegionRole::Active) => Phase::Active,
        Some(RegionRole::Standby) => Phase::Standby,
        Some(RegionRole::Handover) => Phase::Handover,
        Some(RegionRole::Isolated) => Phase::Isolated,
        Some(RegionRole::Rejoining) => Phase::Rejoining,
        Some(RegionRole::Witness) => Phase::Witness,
    }
}

struct Facts<'a> {
    reasons: Vec<&'a Reason>,
    /// Components that lack pods, and those of which nothing is known.
    not_ready: Vec<&'a Component>,
    unknown: Vec<&'a Component>,
    single_region: bool,
}

impl<'a> Facts<'a> {
    fn of(input: &StatusInput<'a>) -> Self {
        let components = &input.seen.components;
        let fresh = |known: &'a Known<Workload>| known.fresh().copied();
        Self {
            reasons: input.report.reasons.iter().chain(&input.allowed.blocked).collect(),
            not_ready: components
                .iter()
                .filter(|(_, known)| fresh(known).is_some_and(|pods| !pods.is_ready()))
                .map(|(name, _)| name)
                .collect(),
            unknown: components.iter().filter(|(_, known)| fresh(known).is_none()).map(|(name, _)| name).collect(),
            single_region: input.plan.is_some_and(|plan| plan.roles.len() == 1),
        }
    }

    /// This region performs its role. A dead peer does not make it false: whether a mirror or a standby's link has
    /// another end is `Replicating`.
    fn ready(&self, input: &StatusInput<'_>) -> Condition {
        let say = |truth, reason, message: String| condition(ConditionType::Ready, truth, reason, message);
        let Some(plan) = input.plan else {
            return say(Truth::False, "NotPlanned", "there is no plan for this pipeline yet".into());
        };
        let Some(role) = plan.role_of(input.region) else {
            return say(Truth::False, "RegionMissing", format!("the plan has no region {}", input.region));
        };
        let pods: Vec<_> = self.not_ready.iter().filter(|component| !matches!(component, Component::Mirror(_))).collect();
        if !pods.is_empty() {
            return say(Truth::False, "PodsNotAvailable", format!("too few pods are ready: {}", names(&pods)));
        }
        if let Some(reason) = self.reasons.iter().find(|reason| reason.is_about_shards() && self.spoils_readiness(role, reason)) {
            return say(Truth::False, "ShardsNotInRole", reason.to_string());
        }
        let role_changes = input.allowed.actions.iter().find(|action| action.gives_role());
        if let Some(action) = role_changes.filter(|_| role == RegionRole::Active) {
            return say(Truth::False, "ShardsNotInRole", format!("{} is being done", action.name()));
        }
        match &input.seen.topics {
            Known::Fresh { value: TopicsState::Ready, .. } => {}
            Known::Fresh { .. } => return say(Truth::False, "KafkaNotReady", "Kafka lacks topics or partitions".into()),
            Known::Stale { .. } => return say(Truth::Unknown, "KafkaNotReady", "Kafka has not answered lately".into()),
            Known::Unknown { why } => return say(Truth::Unknown, "KafkaNotReady", why.clone()),
        }
        let unknown: Vec<_> = self.unknown.iter().filter(|component| !matches!(component, Component::Mirror(_))).collect();
        if !unknown.is_empty() {
            return say(Truth::Unknown, "PodsNotAvailable", format!("nothing is known of the pods of {}", names(&unknown)));
        }
        say(Truth::True, "PerformsRole", format!("this region performs its role, {role}"))
    }

    fn spoils_readiness(&self, role: RegionRole, reason: &Reason) -> bool {
        // A standby whose link to a dead region is down still serves reads from what it has.
        let about_peer =
            matches!(reason, Reason::WaitingOnLink { .. } | Reason::WaitingOnActiveShard { .. } | Reason::WaitingOnCopy { .. });
        role == RegionRole::Active || !about_peer
    }

    fn reconciling(&self, input: &StatusInput<'_>) -> Condition {
        let say = |truth, reason, message: &str| condition(ConditionType::Reconciling, truth, reason, message);
        let rolling = !self.not_ready.is_empty() || !input.allowed.actions.is_empty() || input.applied;
        if input.deletion.is_some() {
            return say(Truth::True, "Deleting", "the pipeline is being taken down");
        }
        if input.plan.is_none() {
            return say(Truth::False, "NotPlanned", "there is no plan for this pipeline yet");
        }
        if rolling {
            say(Truth::True, "Applying", "owned objects are being brought to what the plan says")
        } else {
            say(Truth::False, "UpToDate", "what the plan says is what runs")
        }
    }

    fn stalled(&self, input: &StatusInput<'_>) -> Condition {
        let say = |truth, reason, message: String| condition(ConditionType::Stalled, truth, reason, message);
        if let Some(Some(why)) = &input.deletion {
            return say(Truth::True, "DeletionNotConfirmed", why.clone());
        }
        if let Some(reason) = self.reasons.iter().find(|reason| reason.needs_somebody()) {
            return say(Truth::True, reason.name(), reason.to_string());
        }
        match input.failures.first() {
            Some(failure) => say(Truth::True, "ActionsFailed", failure.clone()),
            None => say(Truth::False, "Progressing", "nothing waits for a human".into()),
        }
    }

    fn between_regions(&self, judged: ConditionType, alone: Truth) -> Condition {
        if self.single_region {
            return condition(judged, alone, SINGLE_REGION.0, SINGLE_REGION.1);
        }
        condition(judged, Truth::Unknown, NOT_CONNECTED.0, NOT_CONNECTED.1)
    }

    fn replicating(&self, input: &StatusInput<'_>) -> Condition {
        let say = |truth, reason, message: String| condition(ConditionType::Replicating, truth, reason, message);
        let Some(plan) = input.plan else { return say(Truth::Unknown, "NotPlanned", "there is no plan for this pipeline yet".into()) };
        if self.single_region {
            return say(Truth::Unknown, SINGLE_REGION.0, "there is nothing to copy from".into());
        }
        let mirrors: Vec<_> = self.not_ready.iter().filter(|component| matches!(component, Component::Mirror(_))).collect();
        if !mirrors.is_empty() {
            return say(Truth::False, "PodsNotAvailable", format!("too few pods are ready: {}", names(&mirrors)));
        }
        let follows = plan.role_of(input.region) == Some(RegionRole::Standby);
        let links: Vec<_> = (0..plan.features.slots.shards()).map(|shard| link_of(plan, input.region, shard, input.seen)).collect();
        if follows && links.contains(&Some(false)) {
            return say(Truth::False, "LinksDown", format!("shards of this region are not connected to those of {}", plan.active_region));
        }
        let origins = plan.roles.iter().filter(|entry| entry.role != RegionRole::Witness && &entry.name != input.region);
        let seen = |origin: &RegionName| {
            input.seen.components.get(&Component::Mirror(origin.clone())).is_some_and(|known| known.fresh().is_some())
        };
        let unknown = !origins.map(|entry| &entry.name).all(seen);
        if unknown || (follows && links.contains(&None)) {
            return say(Truth::Unknown, "NotMeasured", "not all mirrors and shards of this region have answered".into());
        }
        say(Truth::True, "Connected", "mirrors run and shards are connected; how late they are is in the metrics".into())
    }

    fn failover_ready(&self) -> Condition {
        let (reason, why) = if self.single_region { SINGLE_REGION } else { NOT_CONNECTED };
        condition(ConditionType::FailoverReady, Truth::False, reason, format!("{why}: no other region can take over"))
    }

    fn waiting_on(&self, input: &StatusInput<'_>) -> Option<String> {
        if let Some(Some(why)) = &input.deletion {
            return Some(why.clone());
        }
        if let (Some((_, why)), None) = (&input.refused, input.plan) {
            return Some(why.clone());
        }
        let urgent = self.reasons.iter().find(|reason| reason.needs_somebody()).or(self.reasons.first());
        urgent.map(ToString::to_string).or_else(|| input.failures.first().cloned())
    }

    /// Inference pods are ready only once they have loaded the model of their configuration and checked its digest.
    fn model(&self, input: &StatusInput<'_>) -> Option<String> {
        let ready = matches!(input.seen.components.get(&Component::Inference), Some(Known::Fresh { value, .. }) if value.is_ready());
        input.plan.filter(|_| ready).map(|plan| plan.model.sha256.clone())
    }

    fn regions(&self, input: &StatusInput<'_>, ready: bool) -> Vec<RegionState> {
        let Some(plan) = input.plan else { return Vec::new() };
        let own = |name: &RegionName| name == input.region;
        let health = |name: &RegionName| match own(name) {
            true if ready => Health::Healthy,
            true => Health::Unhealthy,
            false => Health::Unknown,
        };
        let state = |entry: &domain::RoleOfRegion| RegionState {
            name: entry.name.clone(),
            role: entry.role,
            health: health(&entry.name),
            mirrors: if own(&entry.name) { mirrors(&input.seen.components) } else { Vec::new() },
        };
        plan.roles.iter().map(state).collect()
    }
}

/// Whether a shard is connected to what it follows; `None` if that is not known.
fn link_of(plan: &Plan, region: &RegionName, shard: u16, seen: &Observation) -> Option<bool> {
    match &shards::facts_of_lead(plan, region, shard, seen)?.role {
        ShardRole::Following { link, .. } => Some(*link == Link::Up),
        ShardRole::Gone | ShardRole::Nowhere | ShardRole::Primary | ShardRole::Held => Some(false),
    }
}

fn mirrors(components: &BTreeMap<Component, Known<Workload>>) -> Vec<(RegionName, MirrorState)> {
    let state = |known: &Known<Workload>| match known.fresh() {
        Some(pods) if pods.ready == 0 => MirrorState::Stopped,
        _ => MirrorState::Unknown,
    };
    let one = |(component, known): (&Component, &Known<Workload>)| match component {
        Component::Mirror(origin) => Some((origin.clone(), state(known))),
        _ => None,
    };
    components.iter().filter_map(one).collect()
}

fn names(components: &[&&Component]) -> String {
    components.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
