//! One session: folding under one plan, until the plan changes, partitions appear, or something fails.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use domain::PlanView;
use kafka::{Admin, AdminError, KafkaMetrics};
use scoring_features::{FoldError, RedisStore};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, Reader},
    config::Config,
    dead_letter::DeadLetters,
    lag::Standings,
    log::{Ends, LogError, Logs, Seen},
    metrics::Metrics,
    publish::Publisher,
};

/// How often the loop comes round without records.
const IDLE: Duration = Duration::from_millis(200);
/// Between attempts to hand over what must not be lost.
const RETRY: Duration = Duration::from_millis(500);
/// An end that was not measured for so many intervals is unknown.
const MISSED_INTERVALS_MAX: u32 = 3;

/// What outlives sessions.
pub(crate) struct Builder {
    pub(crate) config: Config,
    pub(crate) store: RedisStore,
    pub(crate) admin: Admin,
    pub(crate) publisher: Publisher,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) metrics: Metrics,
    pub(crate) kafka_metrics: KafkaMetrics,
    /// Why nothing is folded although it should be; empty when all is well.
    pub(crate) problem: Mutex<Option<String>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("feature store: {0}")]
    Store(#[from] FoldError),
    #[error("logs: {0}")]
    Log(#[from] LogError),
    #[error("Kafka: {0}")]
    Kafka(#[from] AdminError),
}

/// Wall-clock milliseconds: event times are compared with them.
pub(crate) fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

impl Builder {
    pub(crate) fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Folds until `stop`; also returns, to be called again, when partitions have appeared.
    pub(crate) async fn session(&self, plan: &PlanView, stop: &CancellationToken) -> Result<(), SessionError> {
        let folded = self.store.positions(self.config.limits.fold_timeout).await?;
        let cluster_id = self.admin.cluster_id().await?;
        let reader = Reader::new(cluster_id, &self.config.logs(), folded);
        let (oldest_needed_ms, _) = self.store.windows().reach(now_ms());
        let logs = Logs::open(&self.config, &reader, &self.kafka_metrics, &self.metrics, oldest_needed_ms).await?;
        let interval = self.config.limits.lag_interval;
        let end_age_ms_max = i64::try_from((interval * MISSED_INTERVALS_MAX).as_millis()).unwrap_or(i64::MAX);
        let mirrored = self.config.logs().into_iter().filter(|log| log.mirrored).map(|log| log.topic).collect::<Vec<_>>();
        let transactional = |topic: &str| mirrored.iter().any(|mirror| mirror == topic);
        let standings = Standings::starting_at(&logs.starts, transactional, now_ms(), end_age_ms_max);
        let measuring = Measuring::start(logs.ends()?, &self.config, interval);
        self.metrics.folding();
        Session { builder: self, plan, stop, logs, reader, standings, measuring }.run().await
    }
}

struct Session<'a> {
    builder: &'a Builder,
    plan: &'a PlanView,
    stop: &'a CancellationToken,
    logs: Logs,
    reader: Reader,
    standings: Standings,
    measuring: Measuring,
}

impl Session<'_> {
    async fn run(mut self) -> Result<(), SessionError> {
        let limits = &self.builder.config.limits;
        while !self.stop.is_cancelled() {
            let records = tokio::select! {
                records = self.logs.next(limits.batch_records_max, limits.batch_wait, IDLE) => records?,
                () = self.stop.cancelled() => return Ok(()),
            };
            let mut batch = Batch::default();
            for record in records {
                self.reader.take(record, now_ms(), &mut batch);
            }
            if !batch.is_empty() && !self.finish(&batch).await? {
                return Ok(());
            }
            if self.look_at_ends() {
                tracing::info!("logs have new partitions: beginning anew with them");
                return Ok(());
            }
            self.builder.metrics.lags(&self.standings, now_ms());
        }
        Ok(())
    }

    /// Brings a batch to its end; `false` when `stop` came before its events were in all shards.
    async fn finish(&mut self, batch: &Batch) -> Result<bool, SessionError> {
        if !self.hand_over_dead_letters(batch).await {
            return Ok(false);
        }
        let builder = self.builder;
        let (timeout, wanted) = (builder.config.limits.fold_timeout, batch.published_entities());
        let folded = builder.store.fold(&batch.events, &batch.positions, &wanted, now_ms(), timeout).await;
        // A session that begins anew reads the batch again: what a shard did take of it changes nothing.
        let folded = folded.inspect_err(|_| builder.metrics.fold_failure())?;
        self.reader.folded(batch);
        self.standings.folded(batch, now_ms());
        builder.metrics.batch(batch.events.len(), batch.already_folded);
        builder.set_problem(None);
        let unpublished = builder.publisher.publish(&batch.events, &folded.sets, self.plan.epoch).await;
        if unpublished > 0 {
            builder.metrics.unpublished(unpublished);
            tracing::warn!(unpublished, "feature updates were not acknowledged by Kafka; they can be recomputed from the events");
        }
        Ok(true)
    }

    /// Nothing unreadable is passed over before its bytes are safe elsewhere: the log waits.
    async fn hand_over_dead_letters(&self, batch: &Batch) -> bool {
        for dead in &batch.dead {
            let coordinates = self.reader.coordinates(&dead.record);
            tracing::warn!(%coordinates, reason = dead.reason, "record is no event: handing it to the dead-letter topic");
            while let Err(error) = self.builder.dead_letters.hand_over(dead, &coordinates).await {
                let problem = format!(
                    "{} takes no record ({error}), and {coordinates} is unreadable: does the topic exist?",
                    self.builder.config.dead_letter_topic()
                );
                tracing::error!(problem, "folding waits");
                self.builder.set_problem(Some(problem));
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = self.stop.cancelled() => return false,
                }
            }
            self.builder.metrics.dead_letter();
        }
        true
    }

    /// Takes in the last measurement, if there is a new one; says whether there are partitions that are not read.
    fn look_at_ends(&mut self) -> bool {
        let Some((seen, measured_ms)) = self.measuring.newest() else { return false };
        self.standings.measured(&seen.ends, measured_ms);
        // Reading goes on without trouble: whatever was wrong is over.
        self.builder.set_problem(None);
        seen.new_partitions
    }
}

type Measurement = Option<(Arc<Seen>, i64)>;

/// Measures the ends of the logs beside the loop, so that a slow answer delays no event.
struct Measuring {
    newest: watch::Receiver<Measurement>,
    task: JoinHandle<()>,
}

impl Measuring {
    fn start(ends: Ends, config: &Config, interval: Duration) -> Self {
        let (sender, newest) = watch::channel(None);
        let logs = config.logs();
        let task = tokio::spawn(async move {
            loop {
                match ends.measure(logs.clone()).await {
                    Ok(seen) => drop(sender.send_replace(Some((Arc::new(seen), now_ms())))),
                    Err(error) => tracing::warn!(%error, "the ends of the logs could not be measured: lag is unknown"),
                }
                tokio::time::sleep(interval).await;
            }
        });
        Self { newest, task }
    }

    /// What was measured since the last call.
    fn newest(&mut self) -> Measurement {
        if !self.newest.has_changed().unwrap_or(false) {
            return None;
        }
        self.newest.borrow_and_update().clone()
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        self.task.abort();
    }
}
