//! The product's own client, while a builder folds the same events behind the decisions, as often as the real one does. It has a thread and connections of its
//! own: what it costs the decisions is what it costs Redis and the machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bench::report::Figures;
use scoring_core::event::Event;

use crate::contender::Contender;
use crate::ours::{Ours, now_ms};
use crate::workload::Workload;

/// The builder's defaults, `limits.batch_records_max` and `limits.batch_wait`.
const EVENTS_PER_BATCH: usize = 500;
const FOLD_EVERY: Duration = Duration::from_millis(10);

pub struct OursWithBuilder {
    ours: Ours,
    log: Arc<Log>,
    builder: Option<JoinHandle<()>>,
}

/// What decisions have written and nobody has folded.
#[derive(Default)]
struct Log {
    state: Mutex<State>,
    ends: AtomicBool,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// Taken out, and not folded yet.
    under_way: usize,
    broken: Option<String>,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_batch(&self) -> Vec<Event> {
        let mut state = self.lock();
        let count = state.events.len().min(EVENTS_PER_BATCH);
        state.under_way = count;
        state.events.drain(..count).collect()
    }
}

impl OursWithBuilder {
    /// # Errors
    /// When the store is not connected in time, or there is no thread.
    pub async fn connect(port: u16) -> Result<Self> {
        let (ours, log) = (Ours::connect(port).await?, Arc::new(Log::default()));
        let its_log = log.clone();
        // Connected on the builder's own runtime, which serves its connections.
        let folded = ours.position();
        let builder = std::thread::Builder::new().name("builder".to_string()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let ended = runtime.context("cannot start a runtime").and_then(|runtime| runtime.block_on(build(port, folded, &its_log)));
            if let Err(error) = ended {
                its_log.lock().broken = Some(format!("{error:#}"));
            }
        });
        Ok(Self { ours, log, builder: Some(builder.context("cannot start a thread")?) })
    }
}

async fn build(port: u16, folded: Arc<Mutex<i64>>, log: &Log) -> Result<()> {
    let ours = Ours::connect_at(port, folded).await?;
    while !log.ends.load(Ordering::Relaxed) {
        let batch = log.take_batch();
        ours.fold(&batch, now_ms()).await?;
        let full = batch.len() == EVENTS_PER_BATCH;
        log.lock().under_way = 0;
        if !full {
            tokio::time::sleep(FOLD_EVERY).await;
        }
    }
    Ok(())
}

impl Contender for OursWithBuilder {
    fn fill(&self, workload: &Workload) -> impl Future<Output = Result<()>> + Send {
        self.ours.fill(workload)
    }

    async fn decide(&self, payment: &Event) -> Result<u64> {
        let count = self.ours.decide(payment).await?;
        let mut log = self.log.lock();
        if let Some(why) = &log.broken {
            bail!("the builder stopped: {why}");
        }
        log.events.push(payment.clone());
        Ok(count)
    }

    /// A builder that falls behind would cost too little.
    fn after_load(&self) -> Figures {
        let state = self.log.lock();
        Figures::from([("unfolded_events".to_string(), (state.events.len() + state.under_way) as f64)])
    }
}

impl Drop for OursWithBuilder {
    fn drop(&mut self) {
        self.log.ends.store(true, Ordering::Relaxed);
        if let Some(builder) = self.builder.take() {
            // A panic has been printed.
            let _ = builder.join();
        }
    }
}
