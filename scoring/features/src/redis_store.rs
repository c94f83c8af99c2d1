//! The feature store in Redis shards: record and read in one round trip per shard, all shards at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use domain::{Epoch, PlanView};
use futures::future::join_all;
use redis::{Pipeline, RedisError, Value, pipe};
use scoring_core::{
    encoding::Record,
    event::{EntityKind, Event},
    set::EventSet,
    windows::Windows,
};
use tokio::time::Instant;

use crate::{
    FeatureMetrics, FeatureRead, RedisConfig, UnusablePlan,
    commands::{EntityKey, add, event_set_key, keep_alive, read, set_of},
    metrics::Cause,
    shards::{Shard, Shards},
};

/// A client of all shards of this region. Its connections live in background tasks that end with it.
pub struct RedisStore {
    pub(crate) windows: Windows,
    pub(crate) metrics: FeatureMetrics,
    config: RedisConfig,
    shards: RwLock<Arc<Shards>>,
}

impl RedisStore {
    /// Starts connecting to the plan's shards, and returns before they are reached. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the plan gives slots to a shard without an address.
    pub fn start(config: RedisConfig, windows: Windows, metrics: FeatureMetrics, plan: &PlanView) -> Result<Self, UnusablePlan> {
        let shards = RwLock::new(Arc::new(Shards::of(plan, None, &config, &metrics)?));
        Ok(Self { windows, metrics, config, shards })
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

    /// See [`FeatureStore::record_and_read`](crate::FeatureStore::record_and_read). Reads only, where the plan does not let
    /// this region write.
    pub async fn record_and_read(&self, event: &Event, deadline: Instant) -> FeatureRead {
        let shards = self.shards();
        let parts = join_all(self.round_trips(event, &shards).into_values().map(|trip| trip.run(deadline))).await;
        let mut whole = FeatureRead::nothing_of(&event.entities);
        whole.recorded = parts.iter().all(|part| part.recorded);
        for (kind, set) in parts.into_iter().flat_map(|part| part.sets) {
            if set.saturated() {
                self.metrics.saturated(kind);
            }
            whole.unread.retain(|unread| *unread != kind);
            whole.sets.set(kind, set);
        }
        whole
    }

    /// By the index of the shard: what is asked of it.
    fn round_trips<'a>(&'a self, event: &Event, shards: &'a Shards) -> BTreeMap<u16, RoundTrip<'a>> {
        let mut trips = BTreeMap::new();
        for entity in event.entities.iter() {
            let Some(shard) = shards.of_entity(entity.0, entity.1) else { continue };
            let trip = trips.entry(shard.index).or_insert_with(|| RoundTrip {
                shard,
                windows: &self.windows,
                metrics: &self.metrics,
                record: Record::of(event),
                entities: Vec::new(),
                writes: shards.writable,
            });
            trip.entities.push(entity);
        }
        trips
    }
}

/// What is asked of one shard for one event.
struct RoundTrip<'a> {
    shard: &'a Shard,
    windows: &'a Windows,
    metrics: &'a FeatureMetrics,
    record: Record,
    entities: Vec<EntityKey>,
    writes: bool,
}

/// What came of it.
#[derive(Default)]
struct Part {
    sets: Vec<(EntityKind, EventSet)>,
    recorded: bool,
}

impl RoundTrip<'_> {
    async fn run(self, deadline: Instant) -> Part {
        let started = Instant::now();
        let (link, operation) = if self.writes { (&self.shard.write, "record_and_read") } else { (&self.shard.read, "read") };
        let answers = link.send(&self.pipeline(), deadline).await;
        self.metrics.round_trip(self.shard.index, operation, started.elapsed());
        match answers {
            Ok(answers) => self.part_of(answers),
            Err(failure) => {
                self.metrics.failure(self.shard.index, failure.cause());
                Part::default()
            }
        }
    }

    /// One command after the other, each with an answer of its own: at its memory limit a shard refuses the write and still
    /// answers the read.
    fn pipeline(&self) -> Pipeline {
        let mut pipeline = pipe();
        pipeline.ignore_errors();
        for &(kind, id) in &self.entities {
            let key = event_set_key(kind, id);
            if self.writes {
                pipeline.add_command(add(&key, &[self.record])).add_command(keep_alive(&key, self.windows));
            }
            pipeline.add_command(read(&key, self.windows.reach(self.record.time_ms), self.windows));
        }
        pipeline
    }

    fn part_of(&self, answers: Vec<Result<Value, RedisError>>) -> Part {
        let mut part = Part { sets: Vec::with_capacity(self.entities.len()), recorded: self.writes };
        let mut answers = answers.into_iter();
        for &(kind, _) in &self.entities {
            if self.writes {
                let (added, _kept_alive) = (answers.next(), answers.next());
                part.recorded &= self.accepted(added);
            }
            if let Some(set) = self.set_of(answers.next()) {
                part.sets.push((kind, set));
            }
        }
        part
    }

    fn accepted(&self, answer: Option<Result<Value, RedisError>>) -> bool {
        match answer {
            Some(Ok(_)) => true,
            Some(Err(error)) => {
                self.metrics.failure(self.shard.index, Cause::of(&error));
                false
            }
            None => false,
        }
    }

    fn set_of(&self, answer: Option<Result<Value, RedisError>>) -> Option<EventSet> {
        match answer?.and_then(|value| set_of(value, self.windows)) {
            Ok((set, unreadable)) => {
                self.metrics.unreadable(unreadable);
                Some(set)
            }
            Err(error) => {
                self.metrics.failure(self.shard.index, Cause::of(&error));
                None
            }
        }
    }
}
