//! Folding of logs into the shards: what they say of each entity, and up to where they have been folded, in one call a shard.
//!
//! Each shard keeps a vector: log partition -> next offset. It is set only together with the values, also in shards that a
//! batch does not touch, so a shard's vector never claims more than its data: not after a crash in the middle, and not in a
//! replica, because Redis replicates in order. A shard takes of a batch what its vector says that it has not taken, so every
//! event is folded into it once, whatever is folded again.
//!
//! Values are computed here, and written by the function `fp_fold` in Redis (`functions.lua`), which changes nothing if the
//! shard belongs to a newer epoch, if its vector is not the one that was read, or if anybody else has folded in between. So
//! two builders at once are safe: one of them is told that the shard has moved.

mod shard;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::AddAssign,
    sync::Arc,
    time::Duration,
};

use domain::{Epoch, OlderEpoch};
use futures::future::try_join_all;
use redis::Value;
use scoring_core::{
    event::{EntityId, EntityKind},
    profile::BatchValue,
    record::Record,
    state::{self, EntityState, StateConfig},
};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    FeatureMetrics, LogPartition, LogParts, Positions, RedisStore,
    commands::{EntityKey, READ_FROM_KEY, VECTOR_KEY},
    link::text_of,
    logs::minimum,
    request::Request,
    shards::{Shard, Shards},
};
use shard::ShardFold;

/// What folding a batch came to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Folded {
    /// The entities that were asked for and that the batch changed, as they are after it.
    pub states: BTreeMap<(EntityKind, EntityId), EntityState>,
    pub counts: FoldCounts,
}

/// What became of records. Each counts once for each entity that it was folded into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FoldCounts {
    /// Older than the exact horizon, and new.
    pub late: u64,
    /// Older than the longest window: in no count, only in the profile of a user or card.
    pub expired: u64,
    /// Folded from a log before.
    pub duplicates: u64,
    /// Not what the store had under the same identity.
    pub differing: u64,
    /// Left out because the entity has too many.
    pub dropped: u64,
    /// Slots that this version cannot read.
    pub unreadable: u64,
}

impl AddAssign for FoldCounts {
    fn add_assign(&mut self, other: Self) {
        self.late += other.late;
        self.expired += other.expired;
        self.duplicates += other.duplicates;
        self.differing += other.differing;
        self.dropped += other.dropped;
        self.unreadable += other.unreadable;
    }
}

impl From<&state::Folded> for FoldCounts {
    fn from(folded: &state::Folded) -> Self {
        Self {
            late: folded.late.into(),
            expired: folded.expired.into(),
            duplicates: folded.duplicates.into(),
            differing: folded.differing.into(),
            dropped: folded.dropped.into(),
            unreadable: folded.unreadable.into(),
        }
    }
}

/// Why a batch is not, or not known to be, folded everywhere. Folding it again is harmless.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    #[error("shard {shard}: {source}. It was promoted under a newer plan")]
    Superseded { shard: u16, source: OlderEpoch },
    /// The shard has not folded up to where the batch begins, or somebody else has just folded into it. Go on reading from
    /// [`RedisStore::positions`].
    #[error("shard {shard} stands elsewhere than this builder: it was promoted and had less, or another builder folds too")]
    Moved {
        shard: u16,
        /// Where the shard stands in the partitions of the batch; those that it does not know are left out.
        stored: Positions,
    },
    #[error("the plan of epoch {0} does not let this region write its shards")]
    NotWritable(Epoch),
    #[error("shard {shard} is at its memory limit and takes no events. Give it more memory (maxmemory); folding goes on by itself then")]
    Full { shard: u16 },
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

    /// From when on a log is to be folded of which there is no position, where somebody has said so (`fraud-features rebuild`):
    /// in milliseconds, the earliest that a shard says.
    ///
    /// # Errors
    /// When a shard does not answer within `within`.
    pub async fn read_from(&self, within: Duration) -> Result<Option<i64>, FoldError> {
        let deadline = Instant::now() + within;
        let shards = self.shards();
        let said = try_join_all(shards.all().map(|shard| read_from_of(shard, deadline, &self.metrics))).await?;
        Ok(said.into_iter().flatten().min())
    }

    /// Folds `logs` into the values of all entities that they tell of, trims these to what is needed at `now_ms`, and sets the
    /// positions: in one call for each shard, all shards at once, on as many processors as there are. Gives back the entities
    /// in `wanted` that the batch changed.
    ///
    /// # Errors
    /// When any shard did not take its part within `within`. Others may have taken theirs; fold the same batch again, or begin
    /// anew at [`RedisStore::positions`].
    pub async fn fold(
        &self,
        logs: &LogParts,
        wanted: &BTreeSet<(EntityKind, EntityId)>,
        now_ms: i64,
        within: Duration,
    ) -> Result<Folded, FoldError> {
        let shards = self.shards();
        if !shards.writable {
            return Err(FoldError::NotWritable(shards.epoch));
        }
        let (batch, by_shard) = self.batch(logs, wanted, &shards, now_ms, within);
        let batch = Arc::new(batch);
        let mut tasks = JoinSet::new();
        for (shard, entries) in shards.all().zip(by_shard) {
            let fold = ShardFold { shard: shard.clone(), batch: batch.clone(), entries };
            tasks.spawn(fold.run());
        }
        let mut folded = Folded::default();
        let mut failure = None;
        while let Some(part) = tasks.join_next().await {
            match part {
                Ok(Ok(part)) => {
                    folded.states.extend(part.states);
                    folded.counts += part.counts;
                }
                Ok(Err(error)) => failure = failure.or(Some(error)),
                // Nobody cancels these tasks, so one has panicked: so do we.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        self.metrics.folded(folded.counts);
        failure.map_or(Ok(folded), Err)
    }

    /// What the shards share, and for each of them, in the order of [`Shards::all`], what concerns it.
    fn batch(
        &self,
        logs: &LogParts,
        wanted: &BTreeSet<EntityKey>,
        shards: &Shards,
        now_ms: i64,
        within: Duration,
    ) -> (Batch, Vec<Vec<Entry>>) {
        let mut by_shard: Vec<Vec<Entry>> = shards.all().map(|_| Vec::new()).collect();
        let mut items = Vec::with_capacity(logs.values().map(|part| part.events.len() + part.profiles.len()).sum());
        let mut note = |entity: EntityKey, item: usize| {
            if let Some(entries) = by_shard.get_mut(shards.place_of_entity(entity.0, entity.1)) {
                entries.push((entity, u32::try_from(item).unwrap_or(u32::MAX)));
            }
        };
        for (part, log) in (0_u32..).zip(logs.values()) {
            for (offset, event) in &log.events {
                event.entities.iter().for_each(|entity| note(entity, items.len()));
                items.push(Item { part, offset: *offset, what: What::Record(Record::of(event)) });
            }
            for (offset, profile) in &log.profiles {
                note(profile.entity(), items.len());
                items.push(Item { part, offset: *offset, what: What::Value(profile.stored()) });
            }
        }
        let batch = Batch {
            items,
            parts: logs.iter().map(|(partition, log)| Bounds::of(partition, log.from, log.next)).collect(),
            wanted: wanted.iter().copied().collect(),
            epoch: shards.epoch,
            config: self.state,
            now_ms,
            deadline: Instant::now() + within,
            metrics: self.metrics.clone(),
        };
        (batch, by_shard)
    }
}

/// An entity, and which item of the batch tells of it.
type Entry = (EntityKey, u32);

/// What all shards share.
struct Batch {
    items: Vec<Item>,
    parts: Vec<Bounds>,
    /// In order.
    wanted: Vec<EntityKey>,
    epoch: Epoch,
    config: StateConfig,
    now_ms: i64,
    deadline: Instant,
    metrics: FeatureMetrics,
}

struct Item {
    /// Index of its partition.
    part: u32,
    offset: i64,
    what: What,
}

enum What {
    Record(Record),
    Value(BatchValue),
}

/// A partition's part of a batch, without what is in it.
struct Bounds {
    partition: LogPartition,
    /// The field of the vector.
    name: String,
    from: Option<i64>,
    next: i64,
}

impl Bounds {
    fn of(partition: &LogPartition, from: Option<i64>, next: i64) -> Self {
        Self { partition: partition.clone(), name: partition.to_string(), from, next }
    }
}

async fn vector_of(shard: &Shard, deadline: Instant, metrics: &FeatureMetrics) -> Result<Positions, FoldError> {
    let mut request = Request::with_room_for(1);
    request.command(&[b"HGETALL", VECTOR_KEY.as_bytes()]);
    let answer = ask(shard, &request, deadline, metrics).await?.into_iter().next().unwrap_or_default();
    let entries: BTreeMap<String, String> = redis::from_redis_value(answer).map_err(|error| problem(shard, &error.to_string()))?;
    let parsed = |(partition, next): (String, String)| match (partition.parse(), position(&next)) {
        (Ok(partition), Some(next)) => Ok((partition, next)),
        _ => Err(damaged(shard, &partition)),
    };
    entries.into_iter().map(parsed).collect()
}

/// What cannot be read says nothing: then all is folded that a window needs.
async fn read_from_of(shard: &Shard, deadline: Instant, metrics: &FeatureMetrics) -> Result<Option<i64>, FoldError> {
    let mut request = Request::with_room_for(1);
    request.command(&[b"GET", READ_FROM_KEY.as_bytes()]);
    let answer = ask(shard, &request, deadline, metrics).await?.into_iter().next().unwrap_or_default();
    Ok(redis::from_redis_value::<Option<String>>(answer).ok().flatten().and_then(|text| position(&text)))
}

/// An entry of a vector.
fn position(text: &str) -> Option<i64> {
    text.parse().ok().filter(|next| *next >= 0)
}

fn damaged(shard: &Shard, entry: &str) -> FoldError {
    FoldError::Vector { shard: shard.index, entry: entry.chars().take(200).collect() }
}

/// Folding always goes over the write connection: reads and writes stay in order, and decisions do not wait behind it.
async fn ask(shard: &Shard, request: &Request, deadline: Instant, metrics: &FeatureMetrics) -> Result<Vec<Value>, FoldError> {
    shard.write.send(request, deadline).await.map_err(|failure| {
        metrics.failure(shard.index, failure.cause());
        problem(shard, &failure.to_string())
    })
}

fn problem(shard: &Shard, text: &str) -> FoldError {
    FoldError::Shard { shard: shard.index, problem: text.chars().take(300).collect() }
}

/// What a shard answered that is not what was asked for.
fn unexpected(shard: &Shard, answer: &Value) -> FoldError {
    problem(shard, &format!("gave an unexpected answer: {}", text_of(answer)))
}
