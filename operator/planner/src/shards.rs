//! What may be done with one shard's Redis process.
//!
//! Redis holds its data in memory only: a process that restarts is empty, and copies of an empty primary are empty too.
//! So every process starts as a replica of nowhere, and the rules here keep to one sentence: **no copy that holds data
//! is ever overwritten by an empty one** (invariant I10).
//!
//! Active region: a process becomes a primary if it holds data and nothing writes to what it follows; or if it is empty
//! and every other region's copy is known to be empty; or if it is empty, no copy is known to hold data, and the plan
//! says that the shard has never been a primary. An empty process whose data are elsewhere first becomes a copy of the
//! one that is held there and has the most.
//!
//! Other regions: a process follows the active region's. If it holds data and finds the active region's process empty
//! (that one has restarted), it holds its copy until the active region has fetched it.

use domain::{HostPort, Plan, RegionName, RegionRole};

use crate::{
    Action, Observation, Reason,
    seen::{Link, ShardFacts, ShardRole},
};

pub(crate) enum Verdict {
    Settled,
    Do(Action),
    Blocked(Reason),
}

use Verdict::{Blocked, Do, Settled};

pub(crate) fn verdict(plan: &Plan, region: &RegionName, role: RegionRole, shard: u16, seen: &Observation) -> Verdict {
    let case = Case { plan, region, shard, seen };
    let own = match seen.shard(shard) {
        Ok(own) => own,
        Err(why) => return Blocked(Reason::WaitingOnShard { shard, why }),
    };
    if let Some(reason) = case.newer_epoch_seen(own) {
        return Blocked(reason);
    }
    match role {
        RegionRole::Active => case.in_active_region(own),
        RegionRole::Standby | RegionRole::Rejoining => case.in_other_region(own),
        // Moves between regions decide what happens in these.
        RegionRole::Handover | RegionRole::Isolated | RegionRole::Witness | RegionRole::Learner => Settled,
    }
}

struct Case<'a> {
    plan: &'a Plan,
    region: &'a RegionName,
    shard: u16,
    seen: &'a Observation,
}

impl Case<'_> {
    fn newer_epoch_seen(&self, own: &ShardFacts) -> Option<Reason> {
        let ours = self.plan.epoch;
        let here = [(self.region, own)].into_iter();
        let there = self.others().filter_map(|region| Some((region, self.seen.copy(region, self.shard).ok()?)));
        let (region, seen) = here.chain(there).find_map(|(region, facts)| Some((region, facts.epoch.filter(|epoch| *epoch > ours)?)))?;
        Some(Reason::UnsafeToActBelowSeenEpoch { what: format!("shard {} in {region}", self.shard), seen, ours })
    }

    /// The other regions that have copies.
    fn others(&self) -> impl Iterator<Item = &RegionName> {
        self.plan.features.exposed.keys().filter(|region| *region != self.region)
    }

    fn exposed(&self, region: &RegionName) -> Option<&HostPort> {
        self.plan.features.exposed.get(region)?.get(usize::from(self.shard))
    }

    fn in_active_region(&self, own: &ShardFacts) -> Verdict {
        match &own.role {
            ShardRole::Primary if own.epoch == Some(self.plan.epoch) => Settled,
            ShardRole::Following { upstream, link } if own.holds_data || *link == Link::Syncing => self.end_of_copying(upstream, *link),
            ShardRole::Primary | ShardRole::Held | ShardRole::Nowhere if own.holds_data => self.make_primary(),
            _ => self.empty_in_active_region(own),
        }
    }

    fn make_primary(&self) -> Verdict {
        Do(Action::MakePrimary { shard: self.shard, epoch: self.plan.epoch })
    }

    /// The process follows another one and holds data, or is about to.
    fn end_of_copying(&self, upstream: &HostPort, link: Link) -> Verdict {
        let shard = self.shard;
        let upstream_writes = |upstream: String| Blocked(Reason::UnsafeToPromoteWhileUpstreamWrites { shard, upstream });
        let Some(from) = self.others().find(|region| self.exposed(region) == Some(upstream)).cloned() else {
            return self.fetch().unwrap_or_else(|| upstream_writes(upstream.to_string()));
        };
        let held = self.seen.copy(&from, shard).is_ok_and(|facts| facts.role == ShardRole::Held);
        match link {
            Link::Syncing => Blocked(Reason::WaitingOnCopy { shard, from }),
            Link::Up if held => self.make_primary(),
            Link::Up => upstream_writes(from.to_string()),
            Link::Down if held => Blocked(Reason::WaitingOnCopy { shard, from }),
            // What it was copied from has gone, or is no longer held: another copy may be there.
            Link::Down => self.fetch().unwrap_or(Blocked(Reason::WaitingOnLink { shard, to: from })),
        }
    }

    fn empty_in_active_region(&self, own: &ShardFacts) -> Verdict {
        let shard = self.shard;
        let copies: Vec<_> = self.others().map(|region| (region, self.seen.copy(region, shard))).collect();
        if let Some((region, _)) = copies.iter().find(|(_, facts)| facts.as_ref().is_ok_and(|facts| facts.holds_data)) {
            return match (&own.role, self.best_held_copy()) {
                (_, None) => Blocked(Reason::WaitingOnHeldCopy { shard, region: (*region).clone() }),
                (ShardRole::Following { upstream, .. }, Some(best)) if self.exposed(best) == Some(upstream) => {
                    Blocked(Reason::WaitingOnCopy { shard, from: best.clone() })
                }
                (_, Some(_)) => self.fetch().unwrap_or(Blocked(Reason::WaitingOnHeldCopy { shard, region: (*region).clone() })),
            };
        }
        let unknown: Vec<RegionName> = copies.iter().filter(|(_, facts)| facts.is_err()).map(|(region, _)| (*region).clone()).collect();
        if unknown.is_empty() || !self.plan.features.seeded_shards.contains(&shard) {
            return self.make_primary();
        }
        Blocked(Reason::UnsafeToPromoteEmptyShard { shard, unknown })
    }

    /// Fetches the data from the held copy that has the most, if there is one.
    fn fetch(&self) -> Option<Verdict> {
        let upstream = self.exposed(self.best_held_copy()?)?.clone();
        Some(Do(Action::FollowRemote { shard: self.shard, upstream, epoch: self.plan.epoch }))
    }

    fn best_held_copy(&self) -> Option<&RegionName> {
        let held = self.others().filter_map(|region| {
            let facts = self.seen.copy(region, self.shard).ok()?;
            (facts.role == ShardRole::Held && facts.holds_data).then_some((facts.offset, region))
        });
        // The first of equals, so that repeated passes choose the same.
        held.fold(None, |best: Option<(u64, &RegionName)>, next| if best.is_some_and(|best| best.0 >= next.0) { best } else { Some(next) })
            .map(|(_, region)| region)
    }

    fn in_other_region(&self, own: &ShardFacts) -> Verdict {
        let (shard, active) = (self.shard, &self.plan.active_region);
        let Some(wanted) = self.exposed(active) else {
            return Blocked(Reason::UnsafeToAddressShards {
                region: active.clone(),
                addresses: 0,
                shards: self.plan.features.slots.shards(),
            });
        };
        let upstream = self.seen.copy(active, shard);
        match &own.role {
            ShardRole::Following { upstream: followed, link } if followed == wanted => match link {
                Link::Up => Settled,
                Link::Syncing => Blocked(Reason::WaitingOnCopy { shard, from: active.clone() }),
                Link::Down if own.holds_data && upstream.is_ok_and(|facts| !facts.holds_data) => {
                    Do(Action::HoldCopy { shard, epoch: self.plan.epoch })
                }
                Link::Down => Blocked(Reason::WaitingOnLink { shard, to: active.clone() }),
            },
            _ if !own.holds_data => self.follow(wanted),
            _ => self.follow_without_loss(wanted, upstream),
        }
    }

    fn follow(&self, upstream: &HostPort) -> Verdict {
        Do(Action::FollowRemote { shard: self.shard, upstream: upstream.clone(), epoch: self.plan.epoch })
    }

    /// The process holds data, which following replaces: only by those of a primary that has some.
    fn follow_without_loss(&self, wanted: &HostPort, upstream: Result<&ShardFacts, String>) -> Verdict {
        let (shard, region) = (self.shard, self.plan.active_region.clone());
        let waiting = |why: &str| Blocked(Reason::WaitingOnActiveShard { shard, region: region.clone(), why: why.to_owned() });
        match upstream {
            Err(why) => waiting(&format!("that shard has not answered ({why})")),
            Ok(facts) if facts.role != ShardRole::Primary || facts.epoch != Some(self.plan.epoch) => {
                waiting("that shard is not a primary yet")
            }
            Ok(facts) if !facts.holds_data => Blocked(Reason::UnsafeToFollowEmptyShard { shard, region }),
            Ok(_) => self.follow(wanted),
        }
    }
}
