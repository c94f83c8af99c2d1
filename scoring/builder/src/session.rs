//! One session: folding under one plan, until the plan changes, partitions appear, a shard goes back, or something fails.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::{PlanView, headers::Source};
use kafka::{Admin, AdminError, KafkaMetrics, rdkafka::message::Message as _};
use scoring_features::{FoldError, Folded, RedisStore};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    batch::{Batch, DeadLetter},
    clock::now_ms,
    config::{Config, Holds, Log},
    dead_letter::DeadLetters,
    decode::Decoder,
    lag::Standings,
    log::{From, LogError, Opened, open},
    measuring::Measuring,
    metrics::Metrics,
    publish::{Publisher, ToPublish},
    watermarks::Watermarks,
};

/// How often the loop comes round without records.
const IDLE: Duration = Duration::from_millis(200);
/// Between attempts to hand over what must not be lost.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// An end that was not measured for so many intervals is unknown.
const MISSED_INTERVALS_MAX: u32 = 3;
/// How long the end of a session waits for features to be acknowledged.
const PUBLISHING_MAX: Duration = Duration::from_secs(2);
/// Folded batches whose features wait to be published.
const UNPUBLISHED_MAX: usize = 2;

/// What outlives sessions.
pub(crate) struct Builder {
    pub(crate) config: Config,
    pub(crate) store: RedisStore,
    pub(crate) admin: Admin,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) dead_letters: DeadLetters,
    pub(crate) watermarks: Arc<Watermarks>,
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

impl SessionError {
    /// Whether somebody has to do something before folding can go on.
    pub(crate) fn needs_somebody(&self) -> bool {
        matches!(self, Self::Log(LogError::Gap { .. }) | Self::Store(FoldError::Vector { .. }))
    }
}

/// Why a batch was not brought to its end.
enum Undone {
    Stopped,
    Failed(FoldError),
}

impl Builder {
    pub(crate) fn set_problem(&self, problem: Option<String>) {
        *self.problem.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Older events are in no window, whosever clock it is.
    pub(crate) fn longest_ms(&self) -> i64 {
        let windows = self.store.windows();
        windows.longest().length_ms().saturating_add(windows.skew_ms())
    }

    /// Folds until `stop`; also returns, to be called again, when partitions have appeared or a shard has gone back.
    pub(crate) async fn session(&self, plan: &PlanView, stop: &CancellationToken) -> Result<(), SessionError> {
        let Some(begun) = stop.run_until_cancelled(self.begin()).await else { return Ok(()) };
        let (cluster_id, opened) = begun?;
        self.metrics.passed_over(opened.starts.values().map(|start| start.expired.max(0).unsigned_abs()).sum());
        self.note_reading(&opened, true);
        self.metrics.folding();
        let standings = self.standings(&opened);
        let measuring = Measuring::start(opened.ends, self.config.logs(), self.config.limits.lag_interval);
        let (to_publish, published) = mpsc::channel(UNPUBLISHED_MAX);
        let mut publishing = tokio::spawn(self.publisher.clone().publish_all(published, plan.epoch, self.metrics.clone()));
        let session = Session { builder: self, stop, cluster_id, batches: opened.batches, standings, measuring, to_publish };
        let ended = session.run().await;
        // What is folded is published before the next session folds on, so that an entity's features come in the order of its
        // events. A Kafka that takes nothing must not hold up a plan.
        if tokio::time::timeout(PUBLISHING_MAX, &mut publishing).await.is_err() {
            publishing.abort();
        }
        match ended {
            Err(SessionError::Store(FoldError::Moved { shard, .. })) => {
                self.metrics.moved();
                tracing::warn!(shard, "the shard stands elsewhere than expected: folding goes on from where the shards stand");
                // If another builder is folding, one of the two gets further while the other waits.
                stop.run_until_cancelled(tokio::time::sleep(RETRY_MIN)).await;
                Ok(())
            }
            other => other,
        }
    }

    /// Reading where the shards stand.
    async fn begin(&self) -> Result<(String, Opened), SessionError> {
        let folded = self.store.positions(self.config.limits.fold_timeout).await?;
        let asked_ms = self.store.read_from(self.config.limits.fold_timeout).await?;
        let cluster_id = self.admin.cluster_id().await?;
        let decoder = Decoder::new(cluster_id.clone(), self.config.logs(), folded);
        let oldest_needed_ms = now_ms().saturating_sub(self.longest_ms());
        let opened = open(&self.config, decoder, &self.kafka_metrics, From::Folded { oldest_needed_ms, asked_ms }).await?;
        Ok((cluster_id, opened))
    }

    fn standings(&self, opened: &Opened) -> Standings {
        let end_age_max = self.config.limits.lag_interval * MISSED_INTERVALS_MAX;
        let logs = self.config.logs();
        let mirrored = |topic: &str| logs.iter().any(|log| log.mirrored && log.topic == topic);
        let starts = opened.starts.iter().map(|(partition, start)| (partition.clone(), start.offset)).collect();
        Standings::starting_at(&starts, mirrored, now_ms(), i64::try_from(end_age_max.as_millis()).unwrap_or(i64::MAX))
    }

    /// Reads the logs for their heartbeats alone, while another region folds.
    pub(crate) async fn follow(&self, stop: &CancellationToken) -> Result<(), SessionError> {
        match stop.run_until_cancelled(self.hear()).await {
            Some(ended) => ended,
            None => Ok(()),
        }
    }

    /// Until there are partitions that are not read.
    async fn hear(&self) -> Result<(), SessionError> {
        let events = self.config.logs().into_iter().filter(|log| log.holds == Holds::Events).collect::<Vec<_>>();
        let decoder = Decoder::following(self.admin.cluster_id().await?, events.clone());
        let mut opened = open(&self.config, decoder, &self.kafka_metrics, From::End).await?;
        self.note_reading(&opened, false);
        let mut measuring = Measuring::start(opened.ends, events, self.config.limits.lag_interval);
        loop {
            let batch = tokio::select! {
                batch = opened.batches.recv() => batch.ok_or(LogError::Ended)??,
                () = tokio::time::sleep(IDLE) => Batch::default(),
            };
            self.metrics.unreadable_heartbeats(batch.unreadable_heartbeats);
            self.watermarks.heard(batch.heard);
            if measuring.newest().is_some_and(|(seen, _)| seen.new_partitions) {
                return Ok(());
            }
        }
    }

    fn note_reading(&self, opened: &Opened, folding: bool) {
        let logs = self.config.logs();
        let log_of = |topic: &str| -> Option<&Log> { logs.iter().find(|log| log.topic == topic && log.holds == Holds::Events) };
        self.watermarks.reading(opened.starts.iter().filter_map(|(partition, start)| {
            log_of(&partition.0).map(|log| (partition.clone(), log.origin.clone(), folding.then_some(start.offset)))
        }));
    }
}

struct Session<'a> {
    builder: &'a Builder,
    stop: &'a CancellationToken,
    cluster_id: String,
    batches: mpsc::Receiver<Result<Batch, LogError>>,
    standings: Standings,
    measuring: Measuring,
    to_publish: mpsc::Sender<ToPublish>,
}

impl Session<'_> {
    async fn run(mut self) -> Result<(), SessionError> {
        while !self.stop.is_cancelled() {
            let batch = tokio::select! {
                batch = self.batches.recv() => Some(batch.ok_or(LogError::Ended)??),
                () = tokio::time::sleep(IDLE) => None,
                () = self.stop.cancelled() => return Ok(()),
            };
            if let Some(batch) = batch {
                match self.finish(batch).await {
                    Ok(()) => {}
                    Err(Undone::Stopped) => return Ok(()),
                    Err(Undone::Failed(error)) => return Err(error.into()),
                }
            }
            if self.look_at_ends() {
                tracing::info!("logs have new partitions: beginning anew with them");
                return Ok(());
            }
            self.builder.metrics.lags(&self.standings, now_ms());
        }
        Ok(())
    }

    /// Brings a batch to its end.
    async fn finish(&mut self, mut batch: Batch) -> Result<(), Undone> {
        self.builder.watermarks.heard(std::mem::take(&mut batch.heard));
        self.hand_over_dead_letters(&batch).await?;
        let folded = self.fold(&batch).await?;
        let builder = self.builder;
        self.standings.folded(&batch, now_ms());
        for (partition, progress) in &batch.progress {
            builder.watermarks.folded(partition, progress.next);
        }
        builder.metrics.batch(&batch);
        builder.set_problem(None);
        let events = batch.parts.into_values().flat_map(|part| part.events).map(|(_, event)| event).collect();
        // Where features are published more slowly than they are folded, folding waits.
        let _ = self.to_publish.send(ToPublish { events, states: folded.states }).await;
        Ok(())
    }

    /// Until the shards have taken it. Meanwhile the reader goes on with the next batch, and then waits.
    async fn fold(&self, batch: &Batch) -> Result<Folded, Undone> {
        let builder = self.builder;
        let (timeout, wanted) = (builder.config.limits.fold_timeout, batch.published_entities());
        let mut pause = RETRY_MIN;
        loop {
            let problem = match builder.store.fold(&batch.parts, &wanted, now_ms(), timeout).await {
                Ok(folded) => {
                    builder.metrics.waiting(false);
                    return Ok(folded);
                }
                Err(error @ (FoldError::Full { .. } | FoldError::Shard { .. })) => error.to_string(),
                Err(error) => return Err(Undone::Failed(error)),
            };
            builder.metrics.fold_failure();
            builder.metrics.waiting(true);
            tracing::warn!(problem, "a shard does not take its part of a batch: reading is paused");
            builder.set_problem(Some(format!("reading of the logs is paused: {problem}")));
            self.pause(pause).await?;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Nothing unreadable is passed over before its bytes are safe elsewhere: the log waits.
    async fn hand_over_dead_letters(&self, batch: &Batch) -> Result<(), Undone> {
        for dead in &batch.dead {
            let coordinates = self.coordinates(dead);
            tracing::warn!(%coordinates, reason = dead.reason, "record is no event: handing it to the dead-letter topic");
            while let Err(error) = self.builder.dead_letters.hand_over(dead, &coordinates).await {
                let problem = format!(
                    "{} takes no record ({error}), and {coordinates} is unreadable: does the topic exist?",
                    self.builder.config.dead_letter_topic()
                );
                tracing::error!(problem, "folding waits");
                self.builder.set_problem(Some(problem));
                self.pause(RETRY_MAX / 4).await?;
            }
            self.builder.metrics.dead_letter();
        }
        Ok(())
    }

    /// Of a record in the log from which it was read.
    fn coordinates(&self, dead: &DeadLetter) -> Source {
        let record = &dead.record;
        Source {
            cluster_id: self.cluster_id.clone(),
            topic_id: record.topic().to_owned(),
            partition: record.partition(),
            offset: record.offset(),
        }
    }

    async fn pause(&self, pause: Duration) -> Result<(), Undone> {
        self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.ok_or(Undone::Stopped)
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
