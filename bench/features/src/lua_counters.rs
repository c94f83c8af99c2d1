//! What teams run today: counters in buckets, one Lua script an entity that adds and sums. No identity: a retry counts twice. Tuned as well as we know: one hash
//! an entity, packed buckets in rings, four windows in three commands, all entities in one pipeline.

use anyhow::{Context, Result};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Script, pipe};
use scoring_core::event::{EntityId, EntityKind, Event};

use crate::connection;
use crate::contender::Contender;
use crate::workload::Workload;

const SCRIPT: &str = include_str!("lua_counters.lua");
const LIFE_S: u32 = 87_000;
/// A history is added in so many steps, each for several payments: more would change no bucket, and take minutes.
const HISTORY_STEPS: u64 = 24;
const CUSTOMERS_PER_PIPELINE: u64 = 20;
/// The answer holds payments and amount of 5 s, 1 min, 1 h and 24 h.
const MINUTE_PLACE: usize = 2;

pub struct LuaCounters {
    connection: MultiplexedConnection,
    script_hash: String,
}

/// An addition to the counters of one entity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addition {
    pub(crate) time_ms: i64,
    pub(crate) payments: u64,
    pub(crate) amount: i64,
}

impl LuaCounters {
    /// # Errors
    /// When Redis does not take the connection or the script.
    pub async fn connect(port: u16) -> Result<Self> {
        let mut connection = connection::connect(port).await?;
        let script_hash = Script::new(SCRIPT).prepare_invoke().load_async(&mut connection).await.context("cannot load the script")?;
        Ok(Self { connection, script_hash })
    }

    pub(crate) fn add(&self, pipeline: &mut Pipeline, (kind, id): (EntityKind, EntityId), addition: Addition) {
        let mut key = vec![b'c', b':', b'0' + u8::try_from(kind.index()).unwrap_or(u8::MAX)];
        key.extend_from_slice(&id.0);
        let time_s = addition.time_ms.div_euclid(1_000);
        pipeline.cmd("EVALSHA").arg(&self.script_hash).arg(1).arg(key).arg(time_s).arg(addition.payments).arg(addition.amount).arg(LIFE_S);
    }

    pub(crate) async fn run(&self, pipeline: &Pipeline) -> Result<Vec<Vec<i64>>> {
        Ok(pipeline.query_async(&mut self.connection.clone()).await?)
    }

    /// What the counters of the payment's entities say, after `addition`; the card's minute.
    pub(crate) async fn card_count(&self, payment: &Event, addition: Addition) -> Result<u64> {
        let mut pipeline = pipe();
        payment.entities.iter().for_each(|entity| self.add(&mut pipeline, entity, addition));
        let answers = self.run(&pipeline).await?;
        let place = payment.entities.iter().position(|(kind, _)| kind == EntityKind::Card).context("the payment has no card")?;
        let count = answers.get(place).and_then(|windows| windows.get(MINUTE_PLACE)).context("the script gave too few numbers")?;
        Ok(u64::try_from(*count)?)
    }
}

impl Contender for LuaCounters {
    async fn fill(&self, workload: &Workload) -> Result<()> {
        let steps = workload.history_events.min(HISTORY_STEPS);
        let mut pipeline = pipe();
        for customer in 0..workload.customers {
            for step in 0..steps {
                // What does not divide goes to the first steps, so that the sum is right.
                let payments = workload.history_events / steps + u64::from(step < workload.history_events % steps);
                let payment = workload.payment(customer, step, workload.history_time_ms(step, steps));
                let amount = payment.amount_base_minor().unwrap_or_default() * i64::try_from(payments)?;
                let addition = Addition { time_ms: payment.event_time_ms, payments, amount };
                payment.entities.iter().for_each(|entity| self.add(&mut pipeline, entity, addition));
            }
            if (customer + 1).is_multiple_of(CUSTOMERS_PER_PIPELINE) || customer + 1 == workload.customers {
                self.run(&pipeline).await?;
                pipeline.clear();
            }
        }
        Ok(())
    }

    fn decide(&self, payment: &Event) -> impl Future<Output = Result<u64>> + Send {
        let amount = payment.amount_base_minor().unwrap_or_default();
        self.card_count(payment, Addition { time_ms: payment.event_time_ms, payments: 1, amount })
    }
}
