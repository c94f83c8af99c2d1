//! Whether a plan may follow its parent. Independent of how plans are made, so that a mistake there is found here.

use domain::{Epoch, InvariantId, Plan, RegionRole, Revision};

/// Something that no plan may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The invariant that it would break, if it is one of those.
    pub invariant: Option<InvariantId>,
    pub what: String,
}

/// Everything that is wrong with a plan, by itself and as the successor of `parent`.
#[must_use]
pub fn lint(plan: &Plan, parent: Option<&Plan>) -> Vec<Finding> {
    let mut findings = Vec::new();
    roles(plan, &mut findings);
    addresses(plan, &mut findings);
    match parent {
        None => first(plan, &mut findings),
        Some(parent) => successor(plan, parent, &mut findings),
    }
    findings
}

fn find(findings: &mut Vec<Finding>, wrong: bool, invariant: Option<InvariantId>, what: &str) {
    if wrong {
        findings.push(Finding { invariant, what: what.to_owned() });
    }
}

fn roles(plan: &Plan, findings: &mut Vec<Finding>) {
    let active: Vec<_> = plan.roles.iter().filter(|entry| entry.role == RegionRole::Active).map(|entry| &entry.name).collect();
    find(findings, active.len() > 1, Some(InvariantId::I1), "two regions are active");
    find(findings, active.first() != Some(&&plan.active_region), Some(InvariantId::I1), "activeRegion does not have the role Active");
    let mut names: Vec<_> = plan.roles.iter().map(|entry| &entry.name).collect();
    names.sort();
    names.dedup();
    find(findings, names.len() != plan.roles.len(), None, "a region has two roles");
    let mut ordinals: Vec<_> = plan.roles.iter().map(|entry| entry.ordinal).collect();
    ordinals.sort_unstable();
    ordinals.dedup();
    find(findings, ordinals.len() != plan.roles.len(), None, "two regions have the same ordinal");
}

fn addresses(plan: &Plan, findings: &mut Vec<Finding>) {
    let shards = usize::from(plan.features.slots.shards());
    let runs_shards = |region: &domain::RegionName| plan.role_of(region).is_some_and(|role| role != RegionRole::Witness);
    find(findings, !plan.features.exposed.keys().all(runs_shards), None, "a region that has no shards has shard addresses");
    if plan.features.exposed.len() > 1 {
        let complete = plan.features.exposed.values().all(|addresses| addresses.len() == shards);
        find(findings, !complete, None, "a region does not have one address for each shard");
    }
    let beyond = plan.features.seeded_shards.iter().any(|shard| usize::from(*shard) >= shards);
    find(findings, beyond, None, "a shard is seeded that does not exist");
}

fn first(plan: &Plan, findings: &mut Vec<Finding>) {
    find(findings, plan.epoch != Epoch::FIRST || plan.revision != Revision(1), None, "a first plan has epoch 1 and revision 1");
    find(findings, plan.parent.is_some(), Some(InvariantId::I3), "a first plan has no parent");
    find(findings, !plan.features.seeded_shards.is_empty(), None, "no shard is seeded before the first plan");
}

fn successor(plan: &Plan, parent: &Plan, findings: &mut Vec<Finding>) {
    let digest = parent.to_bytes().map(|bytes| bytes.sha256().to_owned()).ok();
    find(
        findings,
        digest.is_none() || plan.parent != digest,
        Some(InvariantId::I3),
        "parent is not the digest of the plan that it replaces",
    );
    let same_epoch = plan.epoch == parent.epoch && plan.revision == parent.revision.next();
    let next_epoch = plan.epoch == parent.epoch.next() && plan.revision == Revision(1);
    find(findings, !same_epoch && !next_epoch, Some(InvariantId::I1), "neither the next revision nor revision 1 of the next epoch");
    find(
        findings,
        same_epoch && plan.active_region != parent.active_region,
        Some(InvariantId::I1),
        "the active region changes without a new epoch",
    );
    find(findings, plan.pipeline != parent.pipeline || plan.namespace != parent.namespace, None, "a plan never changes pipelines");
    let kept =
        |entry: &domain::RoleOfRegion| parent.roles.iter().all(|before| before.name != entry.name || before.ordinal == entry.ordinal);
    find(findings, !plan.roles.iter().all(kept), None, "a region gets another ordinal: its mirrors would lose their positions");
    let same_generation = plan.features.generation == parent.features.generation;
    find(findings, plan.features.generation < parent.features.generation, None, "the generation of shards goes back");
    find(findings, same_generation && plan.features.slots != parent.features.slots, None, "slots move inside a generation of shards");
    let forgotten = same_generation && !plan.features.seeded_shards.is_superset(&parent.features.seeded_shards);
    find(findings, forgotten, Some(InvariantId::I10), "it is forgotten that a shard has been a primary");
}
