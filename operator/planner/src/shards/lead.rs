//! What pods are told of a shard: which process leads here, and which others have all that it has.
//!
//! This is a fact of the region, not of the plan: no other region has to agree. It is written by the region's operator
//! only after it was seen in Redis, and it is what a later pass goes by when the primary is silent.

use domain::{HostPort, Plan, RegionName, RegionRole, ShardAddress};

use super::{Case, Process, REDIS_PORT, shard_name};
use crate::{
    Observation,
    seen::{Link, ShardFacts},
};

/// A shard's entry in the plan view of `region`.
pub(crate) fn address_of(plan: &Plan, region: &RegionName, role: RegionRole, shard: u16, seen: &Observation) -> ShardAddress {
    let case = Case::of(plan, region, shard, seen);
    let before = case.told().map(|(_, told)| told);
    let lead = case.lead(role);
    let process = lead.map(|(process, _)| process).or(before.map(|told| told.process)).unwrap_or(0);
    let host = format!("{}-primary.{}.svc", shard_name(plan, shard), plan.namespace);
    ShardAddress {
        shard,
        primary: HostPort { host, port: REDIS_PORT },
        replicas: lead.map_or_else(|| case.replicas_before(role), |lead| case.replicas_of(role, lead)),
        process,
        term: case.term(process),
    }
}

/// What is known of the process that leads here.
pub(crate) fn facts_of_lead<'a>(plan: &'a Plan, region: &'a RegionName, shard: u16, seen: &'a Observation) -> Option<&'a ShardFacts> {
    Case::of(plan, region, shard, seen).lead(plan.role_of(region)?).map(|(_, facts)| facts)
}

impl<'a> Case<'a> {
    fn lead(&self, role: RegionRole) -> Option<Process<'a>> {
        match role {
            RegionRole::Active => self.primary(),
            RegionRole::Standby | RegionRole::Rejoining => self.leads(),
            RegionRole::Handover | RegionRole::Isolated | RegionRole::Witness | RegionRole::Learner => None,
        }
    }

    /// A primary's replicas count only while it takes no writes without one.
    fn replicas_of(&self, role: RegionRole, (leader, facts): Process<'_>) -> Vec<HostPort> {
        if role == RegionRole::Active && facts.replicas_required == 0 {
            return Vec::new();
        }
        let attached = self.running().filter(|(_, facts)| self.link_to(facts, leader) == Some(Link::Up));
        attached.map(|(process, _)| self.address(process)).collect()
    }

    /// Nothing new is known. What was said of another epoch, or of a region that did not write, says nothing of a primary.
    fn replicas_before(&self, role: RegionRole) -> Vec<HostPort> {
        let still_holds = |view: &domain::PlanView| role != RegionRole::Active || (view.writes_features() && view.epoch == self.plan.epoch);
        self.told().filter(|(view, _)| still_holds(view)).map(|(_, told)| told.replicas.clone()).unwrap_or_default()
    }

    fn term(&self, process: u16) -> u64 {
        match self.told() {
            Some((view, told)) if view.epoch == self.plan.epoch => told.term + u64::from(told.process != process),
            _ => 0,
        }
    }
}
