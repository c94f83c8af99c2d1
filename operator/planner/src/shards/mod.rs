//! What may be done with the Redis processes of one shard.
//!
//! Redis holds its data in memory only: a process that restarts is empty, and copies of an empty primary are empty too.
//! So every process starts as a replica of nowhere, and the rules here keep to one sentence: **no copy that holds data
//! is ever overwritten by an empty one** (invariant I10).
//!
//! A region has one or more processes for each shard. One of them leads: in the active region it is the primary, in the
//! others it follows the active region's. The rest follow the one that leads. See `active` and `elsewhere`; what pods are
//! told is in `lead`.

mod active;
mod elsewhere;
mod lead;

use domain::{HostPort, Known, Plan, PlanView, RegionName, RegionRole, ShardAddress};

use crate::{
    Action, Allowed, Observation, Reason,
    seen::{Link, ShardFacts, ShardRole},
};

pub(crate) use lead::{address_of, facts_of_lead};

/// Says what may be done with one shard, and why the rest may not.
pub(crate) fn judge(plan: &Plan, region: &RegionName, role: RegionRole, shard: u16, seen: &Observation, allowed: &mut Allowed) {
    let case = Case::of(plan, region, shard, seen);
    if let Some(reason) = case.newer_epoch_seen() {
        return allowed.blocked.push(reason);
    }
    match role {
        RegionRole::Active => case.in_active_region(allowed),
        RegionRole::Standby | RegionRole::Rejoining => case.in_other_region(allowed),
        // Moves between regions decide what happens in these.
        RegionRole::Handover | RegionRole::Isolated | RegionRole::Witness | RegionRole::Learner => {}
    }
}

/// The name of a shard's pod inside its own cluster.
pub fn process_address(plan: &Plan, shard: u16, process: u16) -> HostPort {
    let set = shard_name(plan, shard);
    HostPort { host: format!("{set}-{process}.{set}.{}.svc", plan.namespace), port: REDIS_PORT }
}

const REDIS_PORT: u16 = 6379;

fn shard_name(plan: &Plan, shard: u16) -> String {
    format!("{}-fs-g{}-s{shard}", plan.pipeline, plan.features.generation)
}

/// One shard, as it was seen in one region.
struct Case<'a> {
    plan: &'a Plan,
    region: &'a RegionName,
    shard: u16,
    seen: &'a Observation,
    /// By the number of the pod.
    processes: Vec<Result<&'a ShardFacts, String>>,
}

/// A process that answers, with its number.
type Process<'a> = (u16, &'a ShardFacts);

impl<'a> Case<'a> {
    fn of(plan: &'a Plan, region: &'a RegionName, shard: u16, seen: &'a Observation) -> Self {
        Self { plan, region, shard, seen, processes: seen.processes(shard) }
    }

    /// The processes of which something is known. One that has ended is among them.
    fn known(&self) -> impl Iterator<Item = Process<'a>> {
        (0..).zip(&self.processes).filter_map(|(process, facts)| Some((process, *facts.as_ref().ok()?)))
    }

    fn running(&self) -> impl Iterator<Item = Process<'a>> {
        self.known().filter(|(_, facts)| facts.role != ShardRole::Gone)
    }

    /// The processes of which nothing is known, and why.
    fn unknown(&self) -> impl Iterator<Item = (u16, &str)> {
        (0..).zip(&self.processes).filter_map(|(process, facts)| Some((process, facts.as_ref().err()?.as_str())))
    }

    /// The other regions that have copies.
    fn others(&self) -> impl Iterator<Item = &'a RegionName> {
        self.plan.features.exposed.keys().filter(|region| *region != self.region)
    }

    fn copy(&self, region: &RegionName) -> Result<&'a ShardFacts, String> {
        self.seen.copy(region, self.shard)
    }

    fn exposed(&self, region: &RegionName) -> Option<&'a HostPort> {
        self.plan.features.exposed.get(region)?.get(usize::from(self.shard))
    }

    /// Which of this region's processes has this address.
    fn local(&self, address: &HostPort) -> Option<u16> {
        (0..).zip(&self.processes).map(|(process, _)| process).find(|process| self.address(*process) == *address)
    }

    fn address(&self, process: u16) -> HostPort {
        process_address(self.plan, self.shard, process)
    }

    /// The connection of a process to another one of this region, if it follows that.
    fn link_to(&self, facts: &ShardFacts, leader: u16) -> Option<Link> {
        match &facts.role {
            ShardRole::Following { upstream, link } if *upstream == self.address(leader) => Some(*link),
            _ => None,
        }
    }

    fn seeded(&self) -> bool {
        self.plan.features.seeded_shards.contains(&self.shard)
    }

    /// The view that pods read, and what it says of the shard.
    fn told(&self) -> Option<(&'a PlanView, &'a ShardAddress)> {
        let Known::Fresh { value: Some(view), .. } = &self.seen.view else { return None };
        Some((view, view.shard(self.shard)?))
    }

    fn is_named(&self, process: u16) -> bool {
        self.told().is_some_and(|(_, address)| address.process == process)
    }

    fn newer_epoch_seen(&self) -> Option<Reason> {
        let ours = self.plan.epoch;
        let here = self.known().map(|(_, facts)| (self.region, facts));
        let there = self.others().filter_map(|region| Some((region, self.copy(region).ok()?)));
        let (region, seen) = here.chain(there).find_map(|(region, facts)| Some((region, facts.epoch.filter(|epoch| *epoch > ours)?)))?;
        Some(Reason::UnsafeToActBelowSeenEpoch { what: format!("shard {} in {region}", self.shard), seen, ours })
    }

    fn follow_lead(&self, process: u16, leader: u16) -> Action {
        Action::FollowLocal { shard: self.shard, process, leader, epoch: self.plan.epoch }
    }

    fn follow_remote(&self, process: u16, upstream: &HostPort) -> Action {
        Action::FollowRemote { shard: self.shard, process, upstream: upstream.clone(), epoch: self.plan.epoch }
    }

    /// Makes all others follow the one that leads. One that holds data does so only if the one that leads holds some too.
    fn gather(&self, leader: u16, lead: &ShardFacts, allowed: &mut Allowed) {
        let waiting = |process: u16, why: &str| Reason::WaitingOnReplica { shard: self.shard, process, why: why.to_owned() };
        for (process, facts) in self.known().filter(|(process, _)| *process != leader) {
            match (&facts.role, self.link_to(facts, leader)) {
                (ShardRole::Gone, _) => allowed.blocked.push(waiting(process, "it has ended")),
                (_, Some(Link::Up)) => {}
                (_, Some(Link::Syncing)) => allowed.blocked.push(waiting(process, "it is being given a copy")),
                (_, Some(Link::Down)) => allowed.blocked.push(waiting(process, "it has no connection")),
                _ if !facts.holds_data || lead.holds_data => allowed.actions.push(self.follow_lead(process, leader)),
                _ => allowed.blocked.push(waiting(process, "it holds data, and the one that leads does not")),
            }
        }
        allowed.blocked.extend(self.unknown().map(|(process, why)| waiting(process, why)));
    }

    /// Nothing can be done: no process answers.
    fn nobody_answers(&self) -> Reason {
        let why = self.unknown().next().map(|(_, why)| why.to_owned());
        let none = if self.processes.is_empty() { "not looked at" } else { "it has ended" };
        Reason::WaitingOnShard { shard: self.shard, why: why.unwrap_or_else(|| none.to_owned()) }
    }
}
