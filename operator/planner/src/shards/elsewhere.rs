//! The other regions: one process of the shard follows the active region's, and the rest follow that one.
//!
//! If it holds data and finds the active region's process empty (that one has restarted), it holds its copy until the
//! active region has fetched it.

use std::cmp::Reverse;

use domain::HostPort;

use super::{Case, Process};
use crate::{
    Action, Allowed, Reason,
    seen::{Link, ShardFacts, ShardRole},
};

impl<'a> Case<'a> {
    pub(super) fn in_other_region(&self, allowed: &mut Allowed) {
        let active = &self.plan.active_region;
        let Some(wanted) = self.exposed(active) else {
            let shards = self.plan.features.slots.shards();
            return allowed.blocked.push(Reason::UnsafeToAddressShards { region: active.clone(), addresses: 0, shards });
        };
        let Some((process, facts)) = self.leads() else { return allowed.blocked.push(self.nobody_answers()) };
        match self.lead_here(process, facts, wanted) {
            Ok(None) => {}
            Ok(Some(action)) => allowed.actions.push(action),
            Err(reason) => allowed.blocked.push(reason),
        }
        self.gather(process, facts, allowed);
    }

    /// The process that leads here: one that holds data, if there is one; and of these the one that does so already.
    pub(super) fn leads(&self) -> Option<Process<'a>> {
        let wanted = self.exposed(&self.plan.active_region);
        let follows = |facts: &ShardFacts| matches!(&facts.role, ShardRole::Following { upstream, .. } if Some(upstream) == wanted);
        self.running()
            .max_by_key(|(process, facts)| (facts.holds_data, follows(facts), self.is_named(*process), facts.offset, Reverse(*process)))
    }

    fn lead_here(&self, process: u16, own: &ShardFacts, wanted: &HostPort) -> Result<Option<Action>, Reason> {
        let (shard, active) = (self.shard, &self.plan.active_region);
        let upstream = self.copy(active);
        match &own.role {
            ShardRole::Following { upstream: followed, link } if followed == wanted => match link {
                Link::Up => Ok(None),
                Link::Syncing => Err(Reason::WaitingOnCopy { shard, from: active.clone() }),
                Link::Down if own.holds_data && upstream.is_ok_and(|facts| !facts.holds_data) => {
                    Ok(Some(Action::HoldCopy { shard, process, epoch: self.plan.epoch }))
                }
                Link::Down => Err(Reason::WaitingOnLink { shard, to: active.clone() }),
            },
            _ if !own.holds_data => self.follow_empty(process, wanted, upstream),
            _ => self.follow_without_loss(process, wanted, upstream),
        }
    }

    /// The process is empty: following says that this region has no data, so it must be known of the other processes too,
    /// unless there are data to follow.
    fn follow_empty(&self, process: u16, wanted: &HostPort, upstream: Result<&ShardFacts, String>) -> Result<Option<Action>, Reason> {
        let has_data = upstream.is_ok_and(|facts| self.is_primary(facts) && facts.holds_data);
        match self.unknown().next() {
            Some((process, why)) if self.seeded() && !has_data => {
                Err(Reason::WaitingOnProcess { shard: self.shard, process, why: why.to_owned() })
            }
            _ => Ok(Some(self.follow_remote(process, wanted))),
        }
    }

    /// The process holds data, which following replaces: only by those of a primary that has some.
    fn follow_without_loss(
        &self,
        process: u16,
        wanted: &HostPort,
        upstream: Result<&ShardFacts, String>,
    ) -> Result<Option<Action>, Reason> {
        let (shard, region) = (self.shard, self.plan.active_region.clone());
        let waiting = |why: &str| Err(Reason::WaitingOnActiveShard { shard, region: region.clone(), why: why.to_owned() });
        match upstream {
            Err(why) => waiting(&format!("that shard has not answered ({why})")),
            Ok(facts) if !self.is_primary(facts) => waiting("that shard is not a primary yet"),
            Ok(facts) if !facts.holds_data => Err(Reason::UnsafeToFollowEmptyShard { shard, region }),
            Ok(_) => Ok(Some(self.follow_remote(process, wanted))),
        }
    }

    fn is_primary(&self, facts: &ShardFacts) -> bool {
        facts.role == ShardRole::Primary && facts.epoch == Some(self.plan.epoch)
    }
}
