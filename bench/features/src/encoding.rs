//! The two encodings between which ADR 006 decides, as bare Redis commands: what the encoding itself costs, without anybody's client code around it.

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Value, cmd, pipe};
use scoring_core::event::{EntityId, EntityKind, Event};

use crate::connection;
use crate::contender::Contender;
use crate::workload::Workload;

const SLOT_BYTES: usize = 32;
const LIFE_MS: i64 = 87_000_000;
const LONGEST_WINDOW_MS: i64 = 86_400_000;
const SKEW_MS: i64 = 500;
const COMMANDS_PER_PIPELINE: usize = 500;

/// How one entity's events are added and read.
pub trait Encoding: Send + Sync + 'static {
    /// Adds one event and reads all of the entity's; the last command is the read.
    fn record_and_read(key: &[u8], event: &Event) -> Vec<Cmd>;

    /// Stores a history at once, as a builder does.
    fn store(key: &[u8], history: &[Event]) -> Vec<Cmd>;

    /// How many events an answer holds.
    fn count(answer: &Value) -> Option<usize>;
}

/// One member an event, scored with its time. The member holds the time too: an answer without scores is half as long to parse, which is kinder to this encoding
/// than the six bytes that a shorter member would save.
pub struct SortedSet;

impl Encoding for SortedSet {
    fn record_and_read(key: &[u8], event: &Event) -> Vec<Cmd> {
        let time_ms = event.event_time_ms;
        let (mut add, mut read) = (cmd("ZADD"), cmd("ZRANGE"));
        add.arg(key).arg("LT").arg(time_ms).arg(&bytes_of(event)[..]);
        read.arg(key).arg(time_ms + SKEW_MS).arg(format!("({}", time_ms - LONGEST_WINDOW_MS)).arg("BYSCORE").arg("REV");
        vec![add, expire(key), read]
    }

    fn store(key: &[u8], history: &[Event]) -> Vec<Cmd> {
        let mut add = cmd("ZADD");
        add.arg(key).arg("LT");
        for event in history {
            add.arg(event.event_time_ms).arg(&bytes_of(event)[..]);
        }
        vec![add, expire(key)]
    }

    fn count(answer: &Value) -> Option<usize> {
        if let Value::Array(members) = answer { Some(members.len()) } else { None }
    }
}

/// Slots of fixed length, appended to one string.
pub struct StringOfSlots;

impl Encoding for StringOfSlots {
    fn record_and_read(key: &[u8], event: &Event) -> Vec<Cmd> {
        let (mut append, mut read) = (cmd("APPEND"), cmd("GETEX"));
        append.arg(key).arg(&bytes_of(event)[..]);
        read.arg(key).arg("PX").arg(LIFE_MS);
        vec![append, read]
    }

    fn store(key: &[u8], history: &[Event]) -> Vec<Cmd> {
        let mut set = cmd("SET");
        set.arg(key).arg(history.iter().flat_map(bytes_of).collect::<Vec<u8>>()).arg("PX").arg(LIFE_MS);
        vec![set]
    }

    fn count(answer: &Value) -> Option<usize> {
        if let Value::BulkString(value) = answer { Some(value.len() / SLOT_BYTES) } else { None }
    }
}

/// A slot that is as long and as unlike others as a real one: the identity, then the time, then the identity again in place of the rest.
fn bytes_of(event: &Event) -> [u8; SLOT_BYTES] {
    let (identity, time) = (event.identity().0, event.event_time_ms.to_be_bytes());
    std::array::from_fn(|n| match n {
        0..16 => identity[n],
        16..24 => time[n - 16],
        _ => identity[n - 24] ^ 0x55,
    })
}

fn expire(key: &[u8]) -> Cmd {
    let mut expire = cmd("PEXPIRE");
    expire.arg(key).arg(LIFE_MS);
    expire
}

fn key_of((kind, id): (EntityKind, EntityId)) -> Vec<u8> {
    let letter = kind.name().as_bytes().first().copied().unwrap_or_default();
    [&[b'{', letter][..], &id.0, b"}"].concat()
}

/// An encoding with a connection.
pub struct Raw<E> {
    connection: MultiplexedConnection,
    encoding: std::marker::PhantomData<E>,
}

impl<E: Encoding> Raw<E> {
    /// # Errors
    /// When Redis does not take the connection.
    pub async fn connect(port: u16) -> Result<Self> {
        Ok(Self { connection: connection::connect(port).await?, encoding: std::marker::PhantomData })
    }

    async fn run(&self, pipeline: &Pipeline) -> Result<Vec<Value>> {
        Ok(pipeline.query_async(&mut self.connection.clone()).await?)
    }
}

impl<E: Encoding> Contender for Raw<E> {
    async fn fill(&self, workload: &Workload) -> Result<()> {
        let mut pipeline = pipe();
        for customer in 0..workload.customers {
            let history: Vec<Event> = workload.history(customer).collect();
            // All entities of a customer have the same history.
            let entities = history.first().map(|event| event.entities).unwrap_or_default();
            for entity in entities.iter() {
                for command in E::store(&key_of(entity), &history) {
                    pipeline.add_command(command);
                }
            }
            if pipeline.len() >= COMMANDS_PER_PIPELINE || customer + 1 == workload.customers {
                self.run(&pipeline).await?;
                pipeline.clear();
            }
        }
        Ok(())
    }

    async fn decide(&self, payment: &Event) -> Result<u64> {
        let (mut pipeline, mut reads) = (pipe(), Vec::new());
        for (kind, id) in payment.entities.iter() {
            for command in E::record_and_read(&key_of((kind, id)), payment) {
                pipeline.add_command(command);
            }
            reads.push((kind, pipeline.len() - 1));
        }
        let answers = self.run(&pipeline).await?;
        let mut card_count = None;
        for (kind, place) in reads {
            let count = answers.get(place).and_then(E::count).context("a read has no events")?;
            if kind == EntityKind::Card {
                card_count = Some(count);
            }
        }
        let Some(count) = card_count else { bail!("the payment has no card") };
        Ok(u64::try_from(count)?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn slots_of_different_payments_differ_in_their_identity() {
        let workload = Workload::new(2, 2, Duration::from_secs(2), 1_700_000_000_000).unwrap();
        let slots: std::collections::BTreeSet<_> =
            (0..2).flat_map(|c| workload.history(c).map(|e| bytes_of(&e)).collect::<Vec<_>>()).collect();
        assert_eq!(slots.len(), 4);
        assert_eq!(key_of((EntityKind::Card, EntityId([1; 16]))).len(), 19);
    }

    #[test]
    fn answers_tell_how_many_events_they_hold() {
        assert_eq!(StringOfSlots::count(&Value::BulkString(vec![0; 96])), Some(3));
        assert_eq!(SortedSet::count(&Value::Array(vec![Value::Nil; 2])), Some(2));
        assert_eq!(SortedSet::count(&Value::Okay), None);
    }
}
