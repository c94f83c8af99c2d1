//! One shard's part of a batch: read, compute, write guarded.

use std::{ops::Range, sync::Arc};

use domain::{Epoch, EpochGuard};
use redis::Value;
use scoring_core::{
    key::{ENTITY_KEY_BYTES, entity_key},
    state::{self, Additions, EntityState},
};
use tokio::time::Instant;

use super::{Batch, Entry, FoldCounts, FoldError, What, ask, damaged, position, problem, unexpected};
use crate::{
    Positions,
    commands::{EPOCH_KEY, EntityKey, FOLDS_KEY, VECTOR_KEY},
    functions::{self, Guard, Head, Outcome, bytes_of},
    link::{error_code, text_of},
    request::Request,
    shards::Shard,
};

/// How many values one command reads: between two commands a shard serves others.
const KEYS_PER_READ: usize = 256;

pub(super) struct ShardFold {
    pub(super) shard: Arc<Shard>,
    pub(super) batch: Arc<Batch>,
    pub(super) entries: Vec<Entry>,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Part {
    pub(super) states: Vec<(EntityKey, EntityState)>,
    pub(super) counts: FoldCounts,
}

/// Where the shard stood when its values were read.
struct Seen {
    folds: String,
    /// By partition of the batch.
    stored: Vec<Option<i64>>,
}

/// One entity of the batch, and where its entries are.
struct Entity {
    whose: EntityKey,
    key: [u8; ENTITY_KEY_BYTES],
    entries: Range<usize>,
}

impl ShardFold {
    pub(super) async fn run(mut self) -> Result<Part, FoldError> {
        let shard = self.shard.clone();
        // Two folds of one process would only refuse each other.
        let waiting = tokio::time::timeout_at(self.batch.deadline, shard.folding.lock());
        let _alone = waiting.await.map_err(|_| problem(&shard, "is still busy with the batch before"))?;
        let started = Instant::now();
        self.entries.sort_unstable();
        let entities = entities_of(&self.entries);
        let mut answers = self.ask(&self.reading(&entities)).await?.into_iter();
        let seen = self.seen(&mut answers).await?;
        let values = values_of(&shard, answers, entities.len())?;
        let (part, heads) = self.compute(&entities, values, &seen)?;
        if !heads.is_empty() || self.moves(&seen) {
            self.write(&seen, &heads).await?;
        }
        self.batch.metrics.round_trip(shard.index, "fold", started.elapsed());
        Ok(part)
    }

    async fn ask(&self, request: &Request) -> Result<Vec<Value>, FoldError> {
        ask(&self.shard, request, self.batch.deadline, &self.batch.metrics).await
    }

    /// Epoch, number of folds, version of the functions, the vector, then the values.
    fn reading(&self, entities: &[Entity]) -> Request {
        let mut request = Request::with_room_for(5 + entities.len() / KEYS_PER_READ);
        request.command(&[b"GET", EPOCH_KEY.as_bytes()]);
        request.command(&[b"GET", FOLDS_KEY.as_bytes()]);
        functions::ask_version(&mut request);
        // The key of the vector stands twice, so that the command has a field when a batch has no partition.
        let fields = self.batch.parts.iter().map(|part| part.name.as_bytes());
        let words = [b"HMGET", VECTOR_KEY.as_bytes(), VECTOR_KEY.as_bytes()].into_iter().chain(fields);
        request.long_command(3 + self.batch.parts.len(), 0, words);
        for some in entities.chunks(KEYS_PER_READ) {
            let words = [b"MGET".as_slice()].into_iter().chain(some.iter().map(|entity| entity.key.as_slice()));
            request.long_command(some.len() + 1, some.len() * ENTITY_KEY_BYTES + 4, words);
        }
        request
    }

    /// Refuses a shard that this builder must not write, and one that misses what is before the batch. Loads the functions
    /// where they are missing or of another version.
    async fn seen(&self, answers: &mut impl Iterator<Item = Value>) -> Result<Seen, FoldError> {
        let mut next = || answers.next().unwrap_or_default();
        let (epoch, folds, version, vector) = (next(), next(), next(), next());
        self.check_epoch(self.number(&epoch)?)?;
        let folds = self.number(&folds)?;
        let stored = self.stored(&vector)?;
        let behind =
            |(part, stored): (&super::Bounds, &Option<i64>)| part.from.is_some_and(|from| stored.is_none_or(|stored| stored < from));
        if self.batch.parts.iter().zip(&stored).any(behind) {
            return Err(self.moved(&stored));
        }
        if !functions::is_current(&version) {
            self.load_functions().await?;
        }
        Ok(Seen { folds: folds.to_string(), stored })
    }

    fn check_epoch(&self, promoted_in: u64) -> Result<(), FoldError> {
        let mut guard = EpochGuard::new(Epoch(promoted_in));
        guard.admit(self.batch.epoch).map_err(|source| FoldError::Superseded { shard: self.shard.index, source })
    }

    /// A number that may not be there yet.
    fn number(&self, answer: &Value) -> Result<u64, FoldError> {
        match answer {
            Value::Nil => Ok(0),
            Value::Int(number) => Ok(number.unsigned_abs()),
            other => {
                let text = bytes_of(other).and_then(|bytes| std::str::from_utf8(bytes).ok());
                text.and_then(|text| text.parse().ok()).ok_or_else(|| self.refused(other))
            }
        }
    }

    fn stored(&self, answer: &Value) -> Result<Vec<Option<i64>>, FoldError> {
        let Value::Array(entries) = answer else { return Err(self.refused(answer)) };
        let parsed = |(part, entry): (&super::Bounds, &Value)| match bytes_of(entry) {
            None => Ok(None),
            Some(bytes) => {
                let next = std::str::from_utf8(bytes).ok().and_then(position);
                next.map(Some).ok_or_else(|| damaged(&self.shard, &part.name))
            }
        };
        self.batch.parts.iter().zip(entries.iter().skip(1)).map(parsed).collect()
    }

    fn moved(&self, stored: &[Option<i64>]) -> FoldError {
        let known = self.batch.parts.iter().zip(stored).filter_map(|(part, stored)| Some((part.partition.clone(), (*stored)?)));
        FoldError::Moved { shard: self.shard.index, stored: known.collect::<Positions>() }
    }

    async fn load_functions(&self) -> Result<(), FoldError> {
        let answer = self.ask(&functions::load()).await?.into_iter().next().unwrap_or_default();
        if bytes_of(&answer).is_none() {
            return Err(self.refused(&answer));
        }
        tracing::info!(shard = self.shard.index, version = functions::VERSION, "loaded the functions of the feature store into the shard");
        Ok(())
    }

    /// Whether the vector changes.
    fn moves(&self, seen: &Seen) -> bool {
        self.batch.parts.iter().zip(&seen.stored).any(|(part, stored)| stored.is_none_or(|stored| stored < part.next))
    }

    /// Folds what the shard has not folded yet into each value.
    fn compute(&self, entities: &[Entity], values: Vec<Vec<u8>>, seen: &Seen) -> Result<(Part, Vec<Head>), FoldError> {
        let (mut part, mut heads) = (Part::default(), Vec::with_capacity(entities.len()));
        let (mut records, mut loaded) = (Vec::new(), Vec::new());
        let config = &self.batch.config;
        for (entity, value) in entities.iter().zip(values) {
            records.clear();
            loaded.clear();
            for item in self.items(entity, seen) {
                match item {
                    What::Record(record) => records.push(*record),
                    What::Value(value) => loaded.push(*value),
                }
            }
            if records.is_empty() && loaded.is_empty() {
                continue;
            }
            let read_bytes = u32::try_from(value.len()).map_err(|_| problem(&self.shard, "holds a value of more than 4 GiB"))?;
            let additions = Additions { records: &records, values: &loaded };
            let whose = entity.whose;
            let folded = state::fold(whose.0, value, additions, self.batch.now_ms, config);
            part.counts += FoldCounts::from(&folded);
            if self.batch.wanted.binary_search(&whose).is_ok() {
                part.states.push((whose, EntityState::parse(&folded.value, config.events_max())));
            }
            if folded.changed {
                let ttl_seconds = u32::try_from(config.ttl_ms(whose.0) / 1_000).unwrap_or(u32::MAX);
                heads.push(Head { key: entity.key, read_bytes, ttl_seconds, value: folded.value });
            }
        }
        Ok((part, heads))
    }

    /// What the shard has not folded yet of an entity.
    fn items<'a>(&'a self, entity: &Entity, seen: &'a Seen) -> impl Iterator<Item = &'a What> + 'a {
        let entries = self.entries.get(entity.entries.clone()).unwrap_or_default();
        entries.iter().filter_map(move |(_, item)| {
            let item = self.batch.items.get(usize::try_from(*item).ok()?)?;
            let stored = seen.stored.get(usize::try_from(item.part).ok()?).copied().flatten();
            stored.is_none_or(|stored| stored <= item.offset).then_some(&item.what)
        })
    }

    async fn write(&self, seen: &Seen, heads: &[Head]) -> Result<(), FoldError> {
        let entries: Vec<functions::Entry<'_>> = self
            .batch
            .parts
            .iter()
            .zip(&seen.stored)
            .map(|(part, stored)| functions::Entry {
                name: &part.name,
                expected: stored.map(|stored| stored.to_string()).unwrap_or_default(),
                next: stored.map_or(part.next, |stored| stored.max(part.next)),
            })
            .collect();
        let guard = Guard { epoch: self.batch.epoch.0, folds: &seen.folds, entries: &entries };
        let answer = self.ask(&functions::fold(guard, heads)).await?.into_iter().next().unwrap_or_default();
        match functions::outcome_of(&answer) {
            Some(Outcome::Folded) => Ok(()),
            Some(Outcome::Superseded(epoch)) => {
                self.check_epoch(epoch)?;
                Err(self.refused(&answer))
            }
            Some(Outcome::Moved(stored)) => {
                Err(self.moved(&stored.iter().map(|stored| stored.as_deref().and_then(position)).collect::<Vec<_>>()))
            }
            Some(Outcome::OtherVersion(version)) => {
                Err(problem(&self.shard, &format!("functions were replaced by those of version {version}: another builder is at work")))
            }
            None => Err(self.refused(&answer)),
        }
    }

    fn refused(&self, answer: &Value) -> FoldError {
        match error_code(answer) {
            Some("OOM") => FoldError::Full { shard: self.shard.index },
            Some(_) => problem(&self.shard, &text_of(answer)),
            None => unexpected(&self.shard, answer),
        }
    }
}

/// The entities of sorted entries.
fn entities_of(entries: &[Entry]) -> Vec<Entity> {
    let mut start = 0;
    let entity = |run: &[Entry]| {
        let &(whose, _) = run.first()?;
        let range = start..start + run.len();
        start = range.end;
        Some(Entity { whose, key: entity_key(whose.0, whose.1), entries: range })
    };
    entries.chunk_by(|(one, _), (other, _)| one == other).filter_map(entity).collect()
}

/// One value for each key; an absent key has the empty value.
fn values_of(shard: &Shard, answers: impl Iterator<Item = Value>, count: usize) -> Result<Vec<Vec<u8>>, FoldError> {
    let mut values = Vec::with_capacity(count);
    for answer in answers {
        let Value::Array(some) = answer else { return Err(unexpected(shard, &answer)) };
        for value in some {
            match value {
                Value::BulkString(bytes) => values.push(bytes),
                Value::Nil => values.push(Vec::new()),
                other => return Err(unexpected(shard, &other)),
            }
        }
    }
    if values.len() == count { Ok(values) } else { Err(problem(shard, "gave another number of values than was asked for")) }
}
