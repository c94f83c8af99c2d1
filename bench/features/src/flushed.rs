//! Counters as they are often run to spare Redis: each pod adds up its own payments and flushes them at intervals. Cheaper, and blind to what other pods have
//! not flushed; a pod adds its own pending payments to what it reads, which is the best that can be done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use redis::pipe;
use scoring_core::event::{EntityId, EntityKind, Event};
use tokio::task::JoinHandle;

use crate::contender::Contender;
use crate::lua_counters::{Addition, LuaCounters};
use crate::workload::Workload;

const FLUSH_EVERY: Duration = Duration::from_millis(100);

pub struct FlushedCounters {
    shared: Arc<Shared>,
    flusher: JoinHandle<()>,
}

struct Shared {
    counters: LuaCounters,
    pending: Mutex<BTreeMap<(EntityKind, EntityId), Addition>>,
}

impl FlushedCounters {
    /// # Errors
    /// When Redis does not take the connection.
    pub async fn connect(port: u16) -> Result<Self> {
        let shared = Arc::new(Shared { counters: LuaCounters::connect(port).await?, pending: Mutex::default() });
        let flushed = shared.clone();
        let flusher = tokio::spawn(async move {
            loop {
                tokio::time::sleep(FLUSH_EVERY).await;
                // What a failed flush held is lost, as it is in such designs.
                let _ = flushed.flush().await;
            }
        });
        Ok(Self { shared, flusher })
    }
}

impl Shared {
    async fn flush(&self) -> Result<()> {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        if pending.is_empty() {
            return Ok(());
        }
        let mut pipeline = pipe();
        pending.into_iter().for_each(|(entity, addition)| self.counters.add(&mut pipeline, entity, addition));
        self.counters.run(&pipeline).await?;
        Ok(())
    }

    /// Adds to what is pending, and gives how much is pending for the card.
    fn note(&self, payment: &Event) -> Result<u64> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for entity in payment.entities.iter() {
            let sum = pending.entry(entity).or_insert(Addition { time_ms: payment.event_time_ms, payments: 0, amount: 0 });
            sum.payments += 1;
            sum.amount += payment.amount_base_minor().unwrap_or_default();
        }
        let card = payment.entities.get(EntityKind::Card).context("the payment has no card")?;
        Ok(pending.get(&(EntityKind::Card, card)).map_or(0, |sum| sum.payments))
    }
}

impl Contender for FlushedCounters {
    fn fill(&self, workload: &Workload) -> impl Future<Output = Result<()>> + Send {
        self.shared.counters.fill(workload)
    }

    async fn decide(&self, payment: &Event) -> Result<u64> {
        let own = self.shared.note(payment)?;
        let nothing = Addition { time_ms: payment.event_time_ms, payments: 0, amount: 0 };
        Ok(own + self.shared.counters.card_count(payment, nothing).await?)
    }
}

impl Drop for FlushedCounters {
    fn drop(&mut self) {
        self.flusher.abort();
    }
}
