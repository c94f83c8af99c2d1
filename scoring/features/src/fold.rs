//! Folding of logs into the shards: events and the position up to which they have been folded, in one transaction a shard.
//!
//! Each shard keeps a vector: log partition -> next offset. It is set for every shard, also for those that a batch does not
//! touch, and only together with the events, so a shard's vector never claims more than its data: not after a crash in
//! the middle, and not in a replica, because Redis replicates in order. Resuming from the minimum over the shards folds some
//! events again, which changes nothing.
//!
//! One folder per store is assumed: two at once are harmless to the sets, and may move a vector back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use domain::{Epoch, EpochGuard, OlderEpoch};
use futures::future::try_join_all;
use redis::{Cmd, Pipeline, RedisError, Value, cmd, pipe};
use scoring_core::{
    encoding::Record,
    event::{EntityId, EntityKind, Event},
    set::EventSet,
};
use tokio::time::Instant;

use crate::{
    FeatureMetrics, RedisStore,
    commands::{EPOCH_KEY, EntityKey, VECTOR_KEY, add, event_set_key, keep_alive, read, set_of, trim},
    shards::{Shard, Shards},
};

/// A partition of a log, by names that no other log has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPartition {
    pub cluster_id: String,
    /// What identifies the topic in its cluster.
    pub topic: String,
    pub partition: i32,
}

impl fmt::Display for LogPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster_id, self.topic, self.partition)
    }
}

impl FromStr for LogPartition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '/');
        let (cluster_id, topic, partition) = (parts.next().ok_or(())?, parts.next().ok_or(())?, parts.next().ok_or(())?);
        let partition = partition.parse().map_err(|_| ())?;
        Ok(Self { cluster_id: cluster_id.to_owned(), topic: topic.to_owned(), partition })
    }
}

/// The next offset to fold of each log partition.
pub type Positions = BTreeMap<LogPartition, i64>;

/// What folding a batch came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folded {
    /// The sets of the entities that were asked for, as they are after the batch.
    pub sets: BTreeMap<(EntityKind, EntityId), EventSet>,
    /// Events older than the longest window: counted, not folded.
    pub expired: u64,
}

/// Why a batch is not, or not known to be, folded everywhere. Fold it again: that is harmless.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error("shard {shard}: {source}. It was promoted under a newer plan")]
    Superseded { shard: u16, source: OlderEpoch },
    #[error("shard {shard} was promoted while the batch was folded")]
    Promoted { shard: u16 },
    #[error("the plan of epoch {0} does not let this region write its shards")]
    NotWritable(Epoch),
    #[error("shard {shard}: {problem}")]
    Shard { shard: u16, problem: String },
    #[error(
        "shard {shard}: entry {entry:?} of {VECTOR_KEY} is not CLUSTER/TOPIC/PARTITION with an offset: restore the shard, or remove the entry to fold that log from its start"
    )]
    Vector { shard: u16, entry: String },
}

impl RedisStore {
    /// Up to where every shard has folded: the minimum over the shards. A partition that one of them does not know is left
    /// out, because that shard needs all of it.
    ///
    /// # Errors
    /// When a shard does not answer within `within`, or its vector is damaged.
    pub async fn positions(&self, within: Duration) -> Result<Positions, FoldError> {
        let deadline = Instant::now() + within;
        let shards = self.shards();
        let vectors = try_join_all(shards.all().map(|shard| vector_of(shard, deadline, &self.metrics))).await?;
        Ok(minimum(vectors))
    }

    /// Adds `events` to the sets of their entities, trims what no window needs at `now_ms`, and sets `positions`: in one
    /// transaction for each shard, all shards at once. Gives back the sets of the entities in `wanted`, reaching as far as
    /// windows at the events' times need.
    ///
    /// # Errors
    /// When any shard did not take its part within `within`. Others may have taken theirs.
    pub async fn fold(
        &self,
        events: &[Event],
        positions: &Positions,
        wanted: &BTreeSet<(EntityKind, EntityId)>,
        now_ms: i64,
        within: Duration,
    ) -> Result<Folded, FoldError> {
        let shards = self.shards();
        if !shards.writable {
            return Err(FoldError::NotWritable(shards.epoch));
        }
        let (live, expired) = self.without_expired(events, now_ms);
        let mut parts: BTreeMap<u16, Part<'_>> =
            shards.all().map(|shard| (shard.index, Part { shard, entities: BTreeMap::new() })).collect();
        for event in &live {
            for entity in event.entities.iter() {
                let index = shards.of_entity(entity.0, entity.1).map(|shard| shard.index);
                if let Some(part) = index.and_then(|index| parts.get_mut(&index)) {
                    part.entities.entry(entity).or_default().push(Record::of(event));
                }
            }
        }
        let batch = Batch { store: self, shards: &shards, positions, wanted, now_ms, deadline: Instant::now() + within };
        let sets = try_join_all(parts.into_values().map(|part| batch.fold(part))).await?;
        self.metrics.expired(expired);
        Ok(Folded { sets: sets.into_iter().flatten().collect(), expired })
    }

    fn without_expired<'a>(&self, events: &'a [Event], now_ms: i64) -> (Vec<&'a Event>, u64) {
        let oldest_ms = self.windows.reach(now_ms).0;
        let live: Vec<&Event> = events.iter().filter(|event| event.event_time_ms > oldest_ms).collect();
        let expired = events.len().saturating_sub(live.len());
        (live, u64::try_from(expired).unwrap_or(u64::MAX))
    }
}

/// One shard's part of a batch.
struct Part<'a> {
    shard: &'a Shard,
    entities: BTreeMap<EntityKey, Vec<Record>>,
}

/// What all parts share.
struct Batch<'a> {
    store: &'a RedisStore,
    shards: &'a Shards,
    positions: &'a Positions,
    wanted: &'a BTreeSet<EntityKey>,
    now_ms: i64,
    deadline: Instant,
}

type SetsByEntity = Vec<(EntityKey, EventSet)>;
/// At which place of a transaction's answers is whose set.
type Reads = Vec<(usize, EntityKey)>;

impl Batch<'_> {
    async fn fold(&self, part: Part<'_>) -> Result<SetsByEntity, FoldError> {
        if part.entities.is_empty() && self.positions.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        self.check_epoch(part.shard).await?;
        let (transaction, reads) = self.transaction(&part.entities);
        let answers = ask(part.shard, &transaction, self.deadline, &self.store.metrics).await?;
        self.store.metrics.round_trip(part.shard.index, "fold", started.elapsed());
        // No answers at all: the watched epoch changed, and nothing was done.
        if answers.is_empty() {
            return Err(FoldError::Promoted { shard: part.shard.index });
        }
        let answers: Vec<Value> = answers.into_iter().collect::<Result<_, _>>().map_err(|error: RedisError| refused(part.shard, &error))?;
        self.sets_of(part.shard, answers, reads)
    }

    /// Watches the epoch in which the shard was promoted, and refuses to write under an older plan (invariant I2).
    async fn check_epoch(&self, shard: &Shard) -> Result<(), FoldError> {
        let mut pipeline = pipe();
        pipeline.ignore_errors().cmd("WATCH").arg(EPOCH_KEY).ignore().cmd("GET").arg(EPOCH_KEY);
        let answers = ask(shard, &pipeline, self.deadline, &self.store.metrics).await?;
        let answer = answers.into_iter().next().ok_or_else(|| unexpected(shard, 0))?.map_err(|error| refused(shard, &error))?;
        let promoted_in: Option<u64> = redis::from_redis_value(answer).map_err(|error| refused(shard, &error.into()))?;
        EpochGuard::new(Epoch(promoted_in.unwrap_or(0)))
            .admit(self.shards.epoch)
            .map_err(|source| FoldError::Superseded { shard: shard.index, source })
    }

    /// The transaction of a shard, and for each wanted entity the place of its answer.
    fn transaction(&self, entities: &BTreeMap<EntityKey, Vec<Record>>) -> (Pipeline, Reads) {
        let windows = &self.store.windows;
        let forget_through_ms = windows.reach(self.now_ms).0.saturating_sub(windows.skew_ms());
        let (mut transaction, mut reads) = (pipe(), Vec::new());
        transaction.atomic().ignore_errors();
        for (&(kind, id), records) in entities {
            let key = event_set_key(kind, id);
            transaction.add_command(add(&key, records)).add_command(keep_alive(&key, windows));
            for command in trim(&key, forget_through_ms, windows) {
                transaction.add_command(command);
            }
            if self.wanted.contains(&(kind, id)) {
                reads.push((transaction.len(), (kind, id)));
                transaction.add_command(read(&key, reach_of(records, windows), windows));
            }
        }
        if let Some(set_vector) = set_vector(self.positions) {
            transaction.add_command(set_vector);
        }
        (transaction, reads)
    }

    fn sets_of(&self, shard: &Shard, mut answers: Vec<Value>, reads: Reads) -> Result<SetsByEntity, FoldError> {
        let mut sets = Vec::with_capacity(reads.len());
        for (place, entity) in reads {
            let answer = answers.get_mut(place).map(std::mem::take).ok_or_else(|| unexpected(shard, place))?;
            let (set, unreadable) = set_of(answer, &self.store.windows).map_err(|error| refused(shard, &error))?;
            self.store.metrics.unreadable(unreadable);
            sets.push((entity, set));
        }
        Ok(sets)
    }
}

/// What windows at the times of all these records need.
fn reach_of(records: &[Record], windows: &scoring_core::windows::Windows) -> (i64, i64) {
    let times = || records.iter().map(|record| record.time_ms);
    let (first_ms, last_ms) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
    (windows.reach(first_ms).0, windows.reach(last_ms).1)
}

fn set_vector(positions: &Positions) -> Option<Cmd> {
    if positions.is_empty() {
        return None;
    }
    let mut set = cmd("HSET");
    set.arg(VECTOR_KEY);
    for (partition, next) in positions {
        set.arg(partition.to_string()).arg(*next);
    }
    Some(set)
}

async fn vector_of(shard: &Shard, deadline: Instant, metrics: &FeatureMetrics) -> Result<Positions, FoldError> {
    let mut pipeline = pipe();
    pipeline.ignore_errors().cmd("HGETALL").arg(VECTOR_KEY);
    let answer = ask(shard, &pipeline, deadline, metrics).await?.into_iter().next().ok_or_else(|| unexpected(shard, 0))?;
    let answer = answer.map_err(|error| refused(shard, &error))?;
    let entries: BTreeMap<String, String> = redis::from_redis_value(answer).map_err(|error| refused(shard, &error.into()))?;
    let parsed = |(partition, next): (String, String)| match (partition.parse(), next.parse::<i64>()) {
        (Ok(partition), Ok(next)) if next >= 0 => Ok((partition, next)),
        _ => Err(FoldError::Vector { shard: shard.index, entry: partition.chars().take(200).collect() }),
    };
    entries.into_iter().map(parsed).collect()
}

fn minimum(vectors: Vec<Positions>) -> Positions {
    let mut vectors = vectors.into_iter();
    let Some(first) = vectors.next() else { return Positions::new() };
    vectors.fold(first, |least, vector| {
        least.into_iter().filter_map(|(partition, next)| vector.get(&partition).map(|other| (partition, next.min(*other)))).collect()
    })
}

/// Folding always goes over the write connection, which nothing else uses in the builder: WATCH belongs to a connection.
async fn ask(
    shard: &Shard,
    pipeline: &Pipeline,
    deadline: Instant,
    metrics: &FeatureMetrics,
) -> Result<Vec<Result<Value, RedisError>>, FoldError> {
    shard.write.send(pipeline, deadline).await.map_err(|failure| {
        metrics.failure(shard.index, failure.cause());
        problem(shard, &failure.to_string())
    })
}

fn refused(shard: &Shard, error: &RedisError) -> FoldError {
    problem(shard, &error.to_string())
}

/// An aborted transaction repeats the reason for each of its commands: the beginning tells it.
fn problem(shard: &Shard, text: &str) -> FoldError {
    FoldError::Shard { shard: shard.index, problem: text.chars().take(300).collect() }
}

fn unexpected(shard: &Shard, answers: usize) -> FoldError {
    problem(shard, &format!("gave an unexpected number of answers ({answers})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(entries: &[(&str, i64)]) -> Positions {
        entries.iter().map(|(partition, next)| (partition.parse().unwrap(), *next)).collect()
    }

    #[test]
    fn a_partition_is_resumed_where_the_shard_that_is_furthest_behind_stands() {
        let vectors = vec![positions(&[("c/t/0", 10), ("c/t/1", 5)]), positions(&[("c/t/0", 7), ("c/t/1", 9)])];
        assert_eq!(minimum(vectors), positions(&[("c/t/0", 7), ("c/t/1", 5)]));
        assert_eq!(minimum(vec![positions(&[("c/t/0", 10)]), positions(&[])]), positions(&[]));
    }

    #[test]
    fn a_log_partition_reads_back_and_damage_is_refused() {
        let partition = LogPartition { cluster_id: "MkU3".into(), topic: "fraud.events.raw".into(), partition: 3 };
        assert_eq!(partition.to_string().parse(), Ok(partition));
        for bad in ["", "a/b", "a/b/c", "a/b/1/2"] {
            assert_eq!(bad.parse::<LogPartition>(), Err(()), "{bad}");
        }
    }
}
