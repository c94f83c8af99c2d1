//! The feature store in Redis shards: record and read in one round trip per shard, all shards at once.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::Instant as Clock,
};

use domain::{Epoch, PlanView};
use futures::future::join_all;
use scoring_core::{
    event::{EntityKind, Event},
    record::Record,
    slot::SlotBytes,
    state::{EntityState, StateConfig},
    windows::Windows,
};
use tokio::time::Instant;

use crate::{
    FeatureMetrics, FeatureRead, RedisConfig, StoreConfig, UnusablePlan,
    commands::{Asked, EntityKey},
    hot::HotProfiles,
    metrics::Relief,
    over_long::OverLong,
    round_trip::{Part, RoundTrip},
    shards::Shards,
};

/// A client of all shards of this region. Its connections live in background tasks that end with it.
pub struct RedisStore {
    pub(crate) windows: Windows,
    pub(crate) state: StateConfig,
    pub(crate) metrics: FeatureMetrics,
    config: Box<RedisConfig>,
    shards: RwLock<Arc<Shards>>,
    remembered: Box<Remembered>,
}

/// What this process has learned of entities.
#[derive(Default)]
struct Remembered {
    over_long: Mutex<OverLong>,
    hot: Mutex<HotProfiles>,
}

impl RedisStore {
    /// Starts connecting to the plan's shards, and returns before they are reached. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the plan gives slots to a shard without an address.
    pub fn start(config: StoreConfig, metrics: FeatureMetrics, plan: &PlanView) -> Result<Self, UnusablePlan> {
        let StoreConfig { windows, state, redis } = config;
        let shards = RwLock::new(Arc::new(Shards::of(plan, None, &redis, &metrics)?));
        Ok(Self { windows, state, metrics, config: Box::new(redis), shards, remembered: Box::default() })
    }

    /// Follows a changed plan: role, slots and addresses, all at once. Round trips that are under way finish on the former.
    ///
    /// # Errors
    /// When the plan is of a lower epoch than the one in force (invariant I2), or misses an address. The former stays.
    pub fn follow(&self, plan: &PlanView) -> Result<(), UnusablePlan> {
        let mut current = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(Shards::of(plan, Some(&current), &self.config, &self.metrics)?);
        Ok(())
    }

    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// What is kept of an entity, and for how long.
    pub fn state_config(&self) -> &StateConfig {
        &self.state
    }

    /// The epoch of the plan in force.
    pub fn epoch(&self) -> Epoch {
        self.shards().epoch
    }

    /// Shards to which there is no connection at this moment: for readiness and for people.
    pub fn disconnected(&self) -> Vec<u16> {
        self.shards().all().filter(|shard| !shard.read.is_up() || !shard.write.is_up()).map(|shard| shard.index).collect()
    }

    pub(crate) fn shards(&self) -> Arc<Shards> {
        self.shards.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn hot(&self) -> MutexGuard<'_, HotProfiles> {
        self.remembered.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over_long(&self) -> MutexGuard<'_, OverLong> {
        self.remembered.over_long.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`FeatureStore::record_and_read`](crate::FeatureStore::record_and_read). Reads only, where the plan does not let
    /// this region write.
    pub async fn record_and_read(&self, event: &Event, deadline: Instant) -> FeatureRead {
        let shards = self.shards();
        let slot = Record::of(event).slot();
        let trips = self.round_trips(event, &shards, &slot);
        let mut whole = FeatureRead::nothing_of(&event.entities);
        whole.recorded = true;
        for part in join_all(trips.into_iter().map(|trip| trip.run(deadline))).await {
            self.add(part, &mut whole);
        }
        self.use_memory(event, &mut whole);
        whole
    }

    fn round_trips<'a>(&'a self, event: &Event, shards: &'a Shards, slot: &'a SlotBytes) -> Vec<RoundTrip<'a>> {
        let mut entities: Vec<(usize, EntityKey)> =
            event.entities.iter().map(|entity| (shards.place_of_entity(entity.0, entity.1), entity)).collect();
        entities.sort_unstable_by_key(|(place, _)| *place);
        let (mut over_long, now) = (self.over_long(), Clock::now());
        let trip = |some: &[(usize, EntityKey)]| {
            let shard = shards.get(some.first()?.0)?;
            let asked = some.iter().map(|(_, entity)| Asked::new(*entity, !over_long.has(*entity, now))).collect();
            Some(RoundTrip { shard, config: &self.state, metrics: &self.metrics, slot, asked, writes: shards.writable })
        };
        entities.chunk_by(|(one, _), (other, _)| one == other).filter_map(trip).collect()
    }

    fn add(&self, part: Part, whole: &mut FeatureRead) {
        whole.recorded &= part.recorded;
        for entity in part.over_long {
            self.metrics.over_long(entity.0);
            self.over_long().note(entity, Clock::now());
        }
        for ((kind, id), state) in part.states {
            if state.saturated() {
                self.metrics.saturated(kind);
            }
            if kind == EntityKind::User {
                self.remember((kind, id), &state);
            }
            whole.unread.retain(|unread| *unread != kind);
            whole.states.set(kind, state);
        }
    }

    /// Keeps the profile of a user who is asked for often.
    pub(crate) fn remember(&self, (_, user): EntityKey, state: &EntityState) {
        let (mut hot, now) = (self.hot(), Clock::now());
        if hot.asked_for(user, now) {
            hot.learn(user, state.lasting(&self.state), now);
            self.metrics.cached_profiles(hot.len());
        }
    }

    /// A user whose shard did not answer is known by what is remembered, if anything is: the profile, without windows.
    fn use_memory(&self, event: &Event, whole: &mut FeatureRead) {
        if !whole.unread.contains(&EntityKind::User) {
            return;
        }
        let Some(user) = event.entities.get(EntityKind::User) else { return };
        let remembered = self.hot().get(user, Clock::now()).map(|(profile, age)| (profile.clone(), age));
        if let Some((profile, age)) = remembered {
            let shards = self.shards();
            let shard = shards.get(shards.place_of_entity(EntityKind::User, user)).map_or(0, |shard| shard.index);
            self.metrics.relief(shard, Relief::Cached);
            whole.states.set(EntityKind::User, profile);
            whole.cached = Some(age);
        }
    }
}
