//! The plan: the first one from the manifest, later ones from their parent. The manifest never moves the active region.

use std::collections::BTreeMap;

use domain::{Epoch, FeaturePrimaries, Plan, RegionName, RegionRole, Revision, RoleOfRegion, SlotMap, Step};

use crate::{
    CurrentPlan, PlanInput, PlanReport, Reason, RegionFacts, RegionKind, SpecFacts,
    seen::{Observation, ShardFacts, ShardRole},
};

/// What should be. `plan` is the committed one if nothing changes, and `None` if there can be none yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub plan: Option<Plan>,
    pub report: PlanReport,
}

/// Never waits and never fails. The plan of its own result is the same plan.
pub fn plan(input: &PlanInput<'_>) -> Planned {
    match input.current {
        None => first_plan(input),
        Some(current) => next_plan(input, current),
    }
}

fn first_plan(input: &PlanInput<'_>) -> Planned {
    let spec = input.spec;
    let refused = |reason| Planned { plan: None, report: PlanReport { changes: vec![], reasons: vec![reason] } };
    let Some(active) = best_preference(&spec.regions) else { return refused(Reason::UnsafeToPlanWithoutDataPlane) };
    let Ok(slots) = SlotMap::even(spec.shards) else { return refused(Reason::UnsafeToReshard { planned: 0, asked: spec.shards }) };
    if let Some(reason) = unaddressed(spec) {
        return refused(reason);
    }
    let plan = Plan {
        pipeline: spec.pipeline.clone(),
        namespace: spec.namespace.clone(),
        epoch: Epoch::FIRST,
        revision: Revision(1),
        active_region: active.name.clone(),
        roles: roles(&spec.regions, &active.name, &[]),
        step: Step::Steady,
        features: FeaturePrimaries {
            region: active.name.clone(),
            generation: 1,
            slots,
            exposed: exposed(&spec.regions),
            seeded_shards: std::collections::BTreeSet::new(),
        },
        dns_answer: active.ingress.clone(),
        model: spec.model.clone(),
        light_model: spec.light_model.clone(),
        data_plane_version: spec.version.clone().unwrap_or_else(|| input.newest_version.to_owned()),
        holds: Vec::new(),
        effective_spec: spec.effective.clone(),
        cause: format!("first plan: {} has the best preference", active.name),
        parent: None,
    };
    Planned { plan: Some(plan), report: PlanReport { changes: vec!["first plan".into()], reasons: vec![] } }
}

fn next_plan(input: &PlanInput<'_>, current: &CurrentPlan) -> Planned {
    let mut next = current.plan.clone();
    let mut reasons = Vec::new();
    match reason_to_keep(input.spec, &current.plan) {
        Some(reason) => reasons.push(reason),
        None => follow_manifest(&mut next, input.spec),
    }
    note_seeded(&mut next, input.region, input.seen);
    let changes = differences(&current.plan, &next);
    if !changes.is_empty() {
        next.revision = next.revision.next();
        next.parent = Some(current.sha256.clone());
        next.cause = changes.join("; ");
    }
    Planned { plan: Some(next), report: PlanReport { changes, reasons } }
}

/// Why the manifest cannot be followed; the plan then stays as it is.
fn reason_to_keep(spec: &SpecFacts, plan: &Plan) -> Option<Reason> {
    let active = &plan.active_region;
    if !spec.regions.iter().any(|region| &region.name == active && region.kind == RegionKind::DataPlane) {
        return Some(Reason::UnsafeToRemoveActiveRegion { region: active.clone() });
    }
    let planned = plan.features.slots.shards();
    if spec.shards != planned {
        return Some(Reason::UnsafeToReshard { planned, asked: spec.shards });
    }
    unaddressed(spec)
}

/// Takes over everything that the manifest decides. What it does not decide (epoch, active region, slot map, generation,
/// step, holds) stays. A version that the manifest does not name stays too: a new operator alone restarts nothing.
fn follow_manifest(plan: &mut Plan, spec: &SpecFacts) {
    plan.roles = roles(&spec.regions, &plan.active_region, &plan.roles);
    plan.features.exposed = exposed(&spec.regions);
    if let Some(active) = spec.regions.iter().find(|region| region.name == plan.active_region) {
        plan.dns_answer.clone_from(&active.ingress);
    }
    plan.model = spec.model.clone();
    plan.light_model.clone_from(&spec.light_model);
    if let Some(version) = &spec.version {
        plan.data_plane_version.clone_from(version);
    }
    plan.effective_spec = spec.effective.clone();
}

/// Records shards that have become primaries. Only the active region's own operator knows.
fn note_seeded(plan: &mut Plan, region: &RegionName, seen: &Observation) {
    if &plan.active_region != region {
        return;
    }
    for shard in 0..plan.features.slots.shards() {
        let is_primary = |facts: &ShardFacts| facts.role == ShardRole::Primary && facts.epoch == Some(plan.epoch);
        if seen.processes(shard).iter().flatten().any(|facts| is_primary(facts)) {
            plan.features.seeded_shards.insert(shard);
        }
    }
}

fn best_preference(regions: &[RegionFacts]) -> Option<&RegionFacts> {
    let candidates = regions.iter().filter(|region| region.kind == RegionKind::DataPlane && region.preference.is_some());
    candidates.min_by_key(|region| (region.preference, &region.name))
}

/// Roles and numbers that a region has already are not the manifest's to change.
fn roles(regions: &[RegionFacts], active: &RegionName, before: &[RoleOfRegion]) -> Vec<RoleOfRegion> {
    let mut roles: Vec<RoleOfRegion> = Vec::with_capacity(regions.len());
    for region in regions {
        let known = before.iter().find(|entry| entry.name == region.name);
        let fresh = match region.kind {
            RegionKind::Witness => RegionRole::Witness,
            RegionKind::DataPlane if &region.name == active => RegionRole::Active,
            RegionKind::DataPlane => RegionRole::Standby,
        };
        let same_kind = known.filter(|entry| (entry.role == RegionRole::Witness) == (fresh == RegionRole::Witness));
        let taken = |ordinal: &u8| before.iter().chain(&roles).any(|entry| entry.ordinal == *ordinal);
        let ordinal = known.map(|entry| entry.ordinal).or_else(|| (0..=u8::MAX).find(|ordinal| !taken(ordinal))).unwrap_or(u8::MAX);
        roles.push(RoleOfRegion { name: region.name.clone(), role: same_kind.map_or(fresh, |entry| entry.role), ordinal });
    }
    roles
}

fn exposed(regions: &[RegionFacts]) -> BTreeMap<RegionName, Vec<domain::HostPort>> {
    let data_plane = regions.iter().filter(|region| region.kind == RegionKind::DataPlane);
    data_plane.map(|region| (region.name.clone(), region.exposed.clone())).collect()
}

fn unaddressed(spec: &SpecFacts) -> Option<Reason> {
    let data_plane = || spec.regions.iter().filter(|region| region.kind == RegionKind::DataPlane);
    if data_plane().count() < 2 {
        // Nobody follows a single region's shards.
        return None;
    }
    let short = data_plane().find(|region| region.exposed.len() != usize::from(spec.shards))?;
    Some(Reason::UnsafeToAddressShards { region: short.name.clone(), addresses: short.exposed.len(), shards: spec.shards })
}

/// What is different, in words. Empty if and only if the plans are equal in all that a revision may change.
fn differences(before: &Plan, after: &Plan) -> Vec<String> {
    let mut changes = Vec::new();
    let mut changed = |different: bool, what: String| {
        if different {
            changes.push(what);
        }
    };
    changed(before.data_plane_version != after.data_plane_version, format!("data plane version {}", after.data_plane_version));
    changed(before.model != after.model || before.light_model != after.light_model, "model".into());
    changed(before.roles != after.roles, "regions".into());
    changed(before.features.exposed != after.features.exposed, "addresses of the feature store".into());
    changed(before.dns_answer != after.dns_answer, "address of the active region".into());
    changed(before.features.seeded_shards != after.features.seeded_shards, "shards became primaries for the first time".into());
    changed(before.effective_spec != after.effective_spec, "spec".into());
    changes
}
