//! The active region: one process of the shard is the primary.
//!
//! If it is lost, the process that holds data and has the most takes its place: at once if the old one is known to have
//! ended or to have restarted; if it is merely silent, once it can take no writes any more. If no process here holds data,
//! an empty one first becomes a copy of the one that is held elsewhere and has the most; it becomes a primary empty only if
//! every other copy is known to be empty too, or if the shard has never been a primary.

use std::cmp::Reverse;

use domain::HostPort;

use super::{Case, Process};
use crate::{
    Action, Allowed, Reason,
    seen::{Link, ShardFacts, ShardRole},
};

/// After so long without any replica a primary takes no writes: `min-replicas-max-lag` (2 s), a second each for rounding,
/// for its own timer and for the last acknowledgement on its way, and one more.
const FENCED_AFTER_S: u64 = 6;

impl<'a> Case<'a> {
    pub(super) fn in_active_region(&self, allowed: &mut Allowed) {
        if let Some((process, facts)) = self.primary() {
            return self.keep(process, facts, allowed);
        }
        match self.best_copy() {
            Some((process, facts)) => self.take_over(process, facts, allowed),
            None => self.without_data(allowed),
        }
    }

    /// The process that is the primary of this epoch. Of several, the one that pods were told of: the others were overtaken.
    /// An empty one is none while another process here holds data.
    pub(super) fn primary(&self) -> Option<Process<'a>> {
        let primaries = self.running().filter(|(_, facts)| facts.role == ShardRole::Primary && facts.epoch == Some(self.plan.epoch));
        let best = primaries.max_by_key(|(process, facts)| (facts.holds_data, self.is_named(*process), facts.offset, Reverse(*process)))?;
        (best.1.holds_data || !self.running().any(|(_, facts)| facts.holds_data)).then_some(best)
    }

    /// The primary is there: the others follow it, and it takes no writes alone once one of them does.
    fn keep(&self, primary: u16, facts: &ShardFacts, allowed: &mut Allowed) {
        self.gather(primary, facts, allowed);
        let attached = self.running().any(|(_, facts)| self.link_to(facts, primary) == Some(Link::Up));
        let wanted = u64::from(attached);
        // Before it may write alone, pods and whoever promotes must know that no other process has all of its writes.
        let known_alone = self.told().is_some_and(|(_, told)| told.process == primary && told.replicas.is_empty());
        if facts.replicas_required != wanted && (attached || known_alone) {
            let (shard, epoch) = (self.shard, self.plan.epoch);
            allowed.actions.push(Action::RequireReplicas { shard, process: primary, replicas: wanted, epoch });
        }
    }

    /// The process that has the most: of the newest epoch, then by offset. One that is being given a copy counts as well, if
    /// none holds data.
    fn best_copy(&self) -> Option<Process<'a>> {
        let copying = |facts: &ShardFacts| matches!(&facts.role, ShardRole::Following { upstream, link: Link::Syncing } if self.local(upstream).is_none());
        let copies = self.running().filter(|(_, facts)| facts.holds_data || copying(facts));
        copies.max_by_key(|(process, facts)| (facts.holds_data, facts.epoch, facts.offset, Reverse(*process)))
    }

    fn take_over(&self, process: u16, facts: &ShardFacts, allowed: &mut Allowed) {
        if self.stop_other_primaries(process, allowed) {
            return;
        }
        let refusal = match &facts.role {
            ShardRole::Following { upstream, link } if self.local(upstream).is_none() => self.end_of_copying(process, upstream, *link),
            ShardRole::Following { link: Link::Syncing, .. } => {
                let why = "it is being given a copy".to_owned();
                Err(Reason::WaitingOnReplica { shard: self.shard, process, why })
            }
            _ => Ok(None),
        };
        match refusal {
            Err(reason) => allowed.blocked.push(reason),
            Ok(Some(action)) => allowed.actions.push(action),
            Ok(None) => match self.silent_primary(process) {
                Some(reason) => allowed.blocked.push(reason),
                None if self.leave_silent(process, allowed) => {}
                None => allowed.actions.push(self.make_primary(process)),
            },
        }
    }

    fn make_primary(&self, process: u16) -> Action {
        Action::MakePrimary { shard: self.shard, process, epoch: self.plan.epoch }
    }

    /// There is never a second primary: the ones of older epochs and the empty ones first follow the one that comes.
    fn stop_other_primaries(&self, next: u16, allowed: &mut Allowed) -> bool {
        let others = self.running().filter(|(process, facts)| *process != next && facts.role == ShardRole::Primary);
        let before = allowed.actions.len();
        allowed.actions.extend(others.map(|(process, _)| self.follow_lead(process, next)));
        allowed.actions.len() > before
    }

    /// A silent primary takes writes again once a replica finds back to it: the others follow the next one beforehand.
    fn leave_silent(&self, next: u16, allowed: &mut Allowed) -> bool {
        let follows_silent = |facts: &ShardFacts| self.unknown().any(|(silent, _)| self.link_to(facts, silent).is_some());
        let leaving = self.running().filter(|(process, facts)| *process != next && follows_silent(facts));
        let before = allowed.actions.len();
        allowed.actions.extend(leaving.map(|(process, _)| self.follow_lead(process, next)));
        allowed.actions.len() > before
    }

    /// The process follows another region's and holds data, or is about to. `Ok(None)`: it may become the primary.
    fn end_of_copying(&self, process: u16, upstream: &HostPort, link: Link) -> Result<Option<Action>, Reason> {
        let shard = self.shard;
        let upstream_writes = |upstream: String| Err(Reason::UnsafeToPromoteWhileUpstreamWrites { shard, upstream });
        let Some(from) = self.others().find(|region| self.exposed(region) == Some(upstream)).cloned() else {
            return self.fetch(process).map_or_else(|| upstream_writes(upstream.to_string()), |fetch| Ok(Some(fetch)));
        };
        let held = self.copy(&from).is_ok_and(|facts| facts.role == ShardRole::Held);
        match link {
            Link::Syncing => Err(Reason::WaitingOnCopy { shard, from }),
            Link::Up if held => Ok(None),
            Link::Up => upstream_writes(from.to_string()),
            Link::Down if held => Err(Reason::WaitingOnCopy { shard, from }),
            // What it was copied from has gone, or is no longer held: another copy may be there.
            Link::Down => self.fetch(process).map_or(Err(Reason::WaitingOnLink { shard, to: from }), |fetch| Ok(Some(fetch))),
        }
    }

    /// Why the primary that pods were told of, and that does not answer, may still take writes; none if it cannot, or if
    /// there is no such primary.
    fn silent_primary(&self, next: u16) -> Option<Reason> {
        let shard = self.shard;
        let (process, told) = match self.told() {
            Some((view, _)) if !view.writes_features() => return None,
            Some((_, told)) => (self.unknown().find(|(process, _)| *process == told.process)?.0, Some(told)),
            None if self.seen.view.fresh().is_some() => return None,
            None => (self.unknown().next()?.0, None),
        };
        let unsafe_because = |why: String| Some(Reason::UnsafeToReplaceSilentPrimary { shard, process, why });
        let Some(told) = told else { return unsafe_because("what pods were told is not known".into()) };
        if !told.replicas.contains(&self.address(next)) {
            return unsafe_because(format!("process {next} may lack its last writes"));
        }
        if let Some((other, _)) = self.unknown().find(|(other, _)| *other != process) {
            return unsafe_because(format!("process {other}, which may be connected to it, does not answer either"));
        }
        if let Some(region) = self.others().find(|region| self.copy(region).is_err()) {
            return unsafe_because(format!("the copy in {region}, which may be connected to it, does not answer either"));
        }
        let address = self.address(process);
        let here = self.running().map(|(_, facts)| (facts, Some(&address)));
        let there = self.others().filter_map(|region| Some((self.copy(region).ok()?, self.exposed(self.region))));
        let connected = here.chain(there).any(|(facts, to)| is_connected(facts, to));
        connected.then_some(Reason::WaitingOnSilentPrimary { shard, process })
    }

    /// No process here holds data.
    fn without_data(&self, allowed: &mut Allowed) {
        let chosen =
            self.running().max_by_key(|(process, facts)| (facts.role == ShardRole::Primary, self.is_named(*process), Reverse(*process)));
        let Some((process, facts)) = chosen else { return allowed.blocked.push(self.nobody_answers()) };
        if self.stop_other_primaries(process, allowed) {
            return;
        }
        match self.first_data(process, facts) {
            Ok(action) => allowed.actions.push(action),
            Err(reason) => allowed.blocked.push(reason),
        }
    }

    fn first_data(&self, process: u16, facts: &ShardFacts) -> Result<Action, Reason> {
        let shard = self.shard;
        let copies: Vec<_> = self.others().map(|region| (region, self.copy(region))).collect();
        if let Some((region, _)) = copies.iter().find(|(_, facts)| facts.as_ref().is_ok_and(|facts| facts.holds_data)) {
            let not_held = Reason::WaitingOnHeldCopy { shard, region: (*region).clone() };
            return match (&facts.role, self.best_held_copy()) {
                (_, None) => Err(not_held),
                (ShardRole::Following { upstream, .. }, Some(best)) if self.exposed(best) == Some(upstream) => {
                    Err(Reason::WaitingOnCopy { shard, from: best.clone() })
                }
                (_, Some(_)) => self.fetch(process).ok_or(not_held),
            };
        }
        if let Some((process, why)) = self.unknown().find(|(process, _)| self.seeded() || self.may_have_been_told(*process)) {
            return Err(Reason::WaitingOnProcess { shard, process, why: why.to_owned() });
        }
        // A process that was given no role yet says nothing of the others that its region has.
        let undecided = |facts: &ShardFacts| matches!(facts.role, ShardRole::Nowhere | ShardRole::Gone);
        let unknown = copies.iter().filter(|(_, facts)| facts.as_ref().map_or(true, |facts| undecided(facts)));
        let unknown: Vec<_> = unknown.map(|(region, _)| (*region).clone()).collect();
        if unknown.is_empty() || !self.seeded() {
            return Ok(self.make_primary(process));
        }
        Err(Reason::UnsafeToPromoteEmptyShard { shard, unknown })
    }

    fn may_have_been_told(&self, process: u16) -> bool {
        match self.told() {
            Some((view, told)) => view.writes_features() && told.process == process,
            None => self.seen.view.fresh().is_none(),
        }
    }

    /// Fetches the data from the held copy that has the most, if there is one.
    fn fetch(&self, process: u16) -> Option<Action> {
        Some(self.follow_remote(process, self.exposed(self.best_held_copy()?)?))
    }

    fn best_held_copy(&self) -> Option<&'a domain::RegionName> {
        let held = self.others().filter_map(|region| {
            let facts = self.copy(region).ok()?;
            (facts.role == ShardRole::Held && facts.holds_data).then_some((facts.offset, Reverse(region)))
        });
        // The first of equals, so that repeated passes choose the same.
        held.max().map(|(_, Reverse(region))| region)
    }
}

/// Whether a process is, or was until a moment ago, connected to what it follows at this address.
fn is_connected(facts: &ShardFacts, to: Option<&HostPort>) -> bool {
    match &facts.role {
        ShardRole::Following { upstream, link } if Some(upstream) == to => *link != Link::Down || facts.unlinked_s < FENCED_AFTER_S,
        _ => false,
    }
}
