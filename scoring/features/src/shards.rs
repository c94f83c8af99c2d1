//! The shards of the plan in force, with their connections. A new plan keeps the connections whose address did not change.

use std::{collections::BTreeMap, sync::Arc};

use domain::{Epoch, EpochGuard, HostPort, OlderEpoch, PlanView, SlotMap};
use scoring_core::event::{EntityId, EntityKind};

use crate::{FeatureMetrics, RedisConfig, commands::slot_of_entity, link::Link};

/// One shard. Writes and reads have a connection of their own: a read never waits behind a write that is paused.
pub(crate) struct Shard {
    pub(crate) index: u16,
    address: HostPort,
    pub(crate) write: Link,
    pub(crate) read: Link,
}

/// What is in force.
pub(crate) struct Shards {
    pub(crate) epoch: Epoch,
    /// Whether this region may write its shards.
    pub(crate) writable: bool,
    slots: SlotMap,
    by_index: BTreeMap<u16, Arc<Shard>>,
}

/// Why a plan cannot be followed; the one in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusablePlan {
    #[error(transparent)]
    Older(#[from] OlderEpoch),
    #[error("plan of epoch {epoch}: slots belong to shard {shard}, for which it has no address")]
    NoAddress { epoch: Epoch, shard: u16 },
}

impl Shards {
    /// The shards of `plan`, with the connections of `former` where it has them.
    pub(crate) fn of(plan: &PlanView, former: Option<&Self>, config: &RedisConfig, metrics: &FeatureMetrics) -> Result<Self, UnusablePlan> {
        EpochGuard::new(former.map_or(Epoch::default(), |former| former.epoch)).admit(plan.epoch)?;
        let addresses: BTreeMap<u16, &HostPort> = plan.shards.iter().map(|shard| (shard.shard, &shard.primary)).collect();
        let unaddressed = plan.slots.ranges().iter().find(|range| !addresses.contains_key(&range.shard));
        if let Some(range) = unaddressed {
            return Err(UnusablePlan::NoAddress { epoch: plan.epoch, shard: range.shard });
        }
        let shard = |(index, address): (u16, &HostPort)| {
            let kept = former.and_then(|former| former.by_index.get(&index)).filter(|shard| shard.address == *address);
            (index, kept.cloned().unwrap_or_else(|| Arc::new(Shard::start(index, address, config, metrics))))
        };
        let by_index = addresses.into_iter().map(shard).collect();
        Ok(Self { epoch: plan.epoch, writable: plan.writes_features(), slots: plan.slots.clone(), by_index })
    }

    /// The shard that holds an entity. `None` never happens: every slot's shard has an address.
    pub(crate) fn of_entity(&self, kind: EntityKind, id: EntityId) -> Option<&Arc<Shard>> {
        self.by_index.get(&self.slots.shard_of(slot_of_entity(kind, id)))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.by_index.values()
    }
}

impl Shard {
    fn start(index: u16, address: &HostPort, config: &RedisConfig, metrics: &FeatureMetrics) -> Self {
        let link = || Link::start(index, address.clone(), config, metrics);
        Self { index, address: address.clone(), write: link(), read: link() }
    }
}
