//! The shards of the plan in force, with their connections. A new plan keeps the connections whose addresses did not change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use domain::{Epoch, EpochGuard, HostPort, OlderEpoch, PlanView, SLOTS, ShardAddress};
use scoring_core::{
    event::{EntityId, EntityKind},
    key::slot_of_entity,
};

use crate::{FeatureMetrics, RedisConfig, health::Health, link::Link};

/// One shard. Writes and reads have a connection of their own: a read never waits behind a write that is paused.
pub(crate) struct Shard {
    pub(crate) index: u16,
    primary: HostPort,
    pub(crate) write: Link,
    pub(crate) read: Link,
    /// In this region, for hedged reads and while the shard itself is silent. They come and go while the primary stays.
    replicas: Mutex<Vec<(HostPort, Arc<Link>)>>,
    health: Mutex<Health>,
    /// Held while a batch is folded into the shard.
    pub(crate) folding: tokio::sync::Mutex<()>,
}

/// What is in force.
pub(crate) struct Shards {
    pub(crate) epoch: Epoch,
    /// Whether this region may write its shards.
    pub(crate) writable: bool,
    /// By index.
    list: Vec<Arc<Shard>>,
    /// Which of the list each hash slot belongs to.
    place_of_slot: Vec<u16>,
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
        let addresses: BTreeMap<u16, &ShardAddress> = plan.shards.iter().map(|shard| (shard.shard, shard)).collect();
        let place = |slot: u16| {
            let shard = plan.slots.shard_of(slot);
            let place = addresses.keys().position(|index| *index == shard).and_then(|place| u16::try_from(place).ok());
            place.ok_or(UnusablePlan::NoAddress { epoch: plan.epoch, shard })
        };
        let place_of_slot = (0..SLOTS).map(place).collect::<Result<_, _>>()?;
        let shard = |address: &ShardAddress| {
            let kept = former.and_then(|former| former.list.iter().find(|shard| shard.is_at(address)));
            let shard = kept.cloned().unwrap_or_else(|| Arc::new(Shard::start(address, config, metrics)));
            shard.set_replicas(&address.replicas, config, metrics);
            shard
        };
        let list = addresses.into_values().map(shard).collect();
        Ok(Self { epoch: plan.epoch, writable: plan.writes_features(), list, place_of_slot })
    }

    /// Which of [`Shards::all`] holds an entity.
    pub(crate) fn place_of_entity(&self, kind: EntityKind, id: EntityId) -> usize {
        self.place_of_slot.get(usize::from(slot_of_entity(kind, id))).copied().map_or(0, usize::from)
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Arc<Shard>> {
        self.list.get(place)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Shard>> {
        self.list.iter()
    }
}

impl Shard {
    fn start(address: &ShardAddress, config: &RedisConfig, metrics: &FeatureMetrics) -> Self {
        let index = address.shard;
        let link = || Link::start(index, address.primary.clone(), config, metrics);
        Self {
            index,
            primary: address.primary.clone(),
            write: link(),
            read: link(),
            replicas: Mutex::default(),
            health: Mutex::default(),
            folding: tokio::sync::Mutex::new(()),
        }
    }

    fn is_at(&self, address: &ShardAddress) -> bool {
        self.index == address.shard && self.primary == address.primary
    }

    fn set_replicas(&self, addresses: &[HostPort], config: &RedisConfig, metrics: &FeatureMetrics) {
        let mut replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        let link = |to: &HostPort| {
            let kept = replicas.iter().find(|(at, _)| at == to).map(|(_, link)| link.clone());
            (to.clone(), kept.unwrap_or_else(|| Arc::new(Link::start(self.index, to.clone(), config, metrics))))
        };
        *replicas = addresses.iter().map(link).collect();
    }

    pub(crate) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica to which there is a connection.
    pub(crate) fn replica(&self) -> Option<Arc<Link>> {
        let replicas = self.replicas.lock().unwrap_or_else(PoisonError::into_inner);
        replicas.iter().find(|(_, replica)| replica.is_up()).map(|(_, replica)| replica.clone())
    }
}
