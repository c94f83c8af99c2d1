//! The parts of a run, and the figures.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bench::latency::Latencies;
use bench::open_loop::{self, Load, Mark, Schedule};
use bench::process::{cpu_time, cpu_time_by_thread, resident_peak_bytes};
use bench::report::Figures;
use bench_features::ours::now_ms;
use bench_features::workload::Workload;
use futures::{StreamExt, TryStreamExt, stream};
use kafka::KafkaConfig;
use scoring_core::event::{EntityId, EntityKind, Event};
use scoring_core::state::StateConfig;
use scoring_core::windows::Windows;
use scoring_features::{FeatureMetrics, RedisConfig, RedisStore, StoreConfig};

use crate::builder::{Builder, Installation};
use crate::counting::Written;
use crate::log::{Ends, EventLog, partition_of};
use crate::shards::Shards;

const HISTORY_SPAN: Duration = Duration::from_secs(23 * 3_600);
const WARM_UP: Duration = Duration::from_secs(2);
/// Far beyond what a decision takes here.
const RECORDED_WITHIN: Duration = Duration::from_secs(2);
const RECORDED_AT_ONCE: usize = 64;
const FOLDED_WITHIN: Duration = Duration::from_secs(600);
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Finer, because a backlog is not long.
const LOOK_CLOSELY_EVERY: Duration = Duration::from_millis(5);
const IN_FLIGHT_MAX: u64 = 10_000;

#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub customers: u64,
    pub history_events: u64,
    pub live_per_s: u32,
    pub live: Duration,
    /// Of each of the two backlogs.
    pub backlog_events: u64,
}

impl Sizes {
    pub const FULL: Self =
        Self { customers: 32_768, history_events: 10, live_per_s: 5_000, live: Duration::from_secs(30), backlog_events: 300_000 };
    pub const QUICK: Self =
        Self { customers: 8_000, history_events: 10, live_per_s: 5_000, live: Duration::from_secs(5), backlog_events: 50_000 };
}

struct Stage {
    sizes: Sizes,
    workload: Arc<Workload>,
    shards: Shards,
    log: Arc<EventLog>,
    decisions: Arc<RedisStore>,
    installation: Installation,
    written: Arc<Mutex<Written>>,
    /// The number of the next payment.
    next: u64,
}

/// What a backlog holds that was written while the builder was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backlog {
    /// The decision service has recorded its payments.
    Recorded,
    /// The shards have nothing of it.
    Unknown,
}

/// # Errors
/// When a part does not come to its end.
pub async fn measure(kafka: KafkaConfig, program: &Path, sizes: Sizes) -> Result<Figures> {
    let mut stage = Stage::set_up(&kafka, program, sizes).await?;
    let mut builder = stage.installation.start()?;
    note(&format!("a history of {} events", sizes.customers * sizes.history_events));
    stage.write_history()?;
    stage.until_folded(&mut builder, &stage.log.flush()?).await?;
    note(&format!("live: {} payments a second for {:?}", sizes.live_per_s, sizes.live));
    let mut figures = stage.live(&mut builder).await?;
    let mut peak_bytes = resident_peak_bytes(builder.pid())?;
    builder.stop()?;
    for backlog in [Backlog::Recorded, Backlog::Unknown] {
        note(&format!("catching up with {} payments, {}", sizes.backlog_events, backlog.about()));
        let mut builder = stage.catch_up(backlog, &mut figures).await?;
        peak_bytes = peak_bytes.max(resident_peak_bytes(builder.pid())?);
        builder.must_run()?;
        builder.stop()?;
    }
    figures.insert("rss_mb".to_string(), peak_bytes as f64 / 1e6);
    note("counting the payments of every card");
    stage.count(&mut figures).await?;
    Ok(figures)
}

impl Backlog {
    fn about(self) -> &'static str {
        match self {
            Self::Recorded => "which decisions have recorded",
            Self::Unknown => "of which the shards know nothing",
        }
    }

    /// The harder one, without help from decisions, has the keys that are compared.
    fn prefix(self) -> &'static str {
        match self {
            Self::Recorded => "recorded_",
            Self::Unknown => "",
        }
    }
}

impl Stage {
    async fn set_up(kafka: &KafkaConfig, program: &Path, sizes: Sizes) -> Result<Self> {
        let shards = Shards::start().await?;
        let plan = shards.plan()?;
        let windows = Windows::default();
        let config = StoreConfig { state: StateConfig::fitting(&windows), windows, redis: RedisConfig::default() };
        let decisions = RedisStore::start(config, FeatureMetrics::default(), &plan)?;
        let give_up = Instant::now() + CONNECTED_WITHIN;
        while !decisions.disconnected().is_empty() {
            ensure!(Instant::now() < give_up, "the shards take no connections");
            tokio::time::sleep(LOOK_CLOSELY_EVERY).await;
        }
        Ok(Self {
            sizes,
            workload: Arc::new(Workload::new(sizes.customers, sizes.history_events, HISTORY_SPAN, now_ms())?),
            log: Arc::new(EventLog::create(kafka, &plan.region).await?),
            decisions: Arc::new(decisions),
            installation: Installation::new(program, kafka, &plan)?,
            written: Arc::new(Mutex::new(Written::nothing(sizes.customers))),
            shards,
            next: 0,
        })
    }

    /// In the order of time, so that all customers come by turns.
    fn write_history(&self) -> Result<()> {
        for n in 0..self.sizes.history_events {
            for customer in 0..self.sizes.customers {
                let time_ms = self.workload.history_time_ms(n, self.sizes.history_events);
                self.log.write(&self.workload.payment(customer, n, time_ms), partition_of(customer))?;
                note_written(&self.written, customer);
            }
        }
        Ok(())
    }

    async fn until_folded(&self, builder: &mut Builder, ends: &Ends) -> Result<()> {
        let give_up = Instant::now() + FOLDED_WITHIN;
        while !is_folded(&self.shards.folded().await?, ends) {
            builder.must_run()?;
            ensure!(Instant::now() < give_up, "the builder has not folded the log within {FOLDED_WITHIN:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    async fn live(&mut self, builder: &mut Builder) -> Result<Figures> {
        let schedule = Schedule { rate_per_s: self.sizes.live_per_s };
        let load = Load { schedule, warm_up: WARM_UP, measured: self.sizes.live, in_flight_max: IN_FLIGHT_MAX, patience: RECORDED_WITHIN };
        let (mut began, mut ended) = (Costs::default(), Costs::default());
        let (pid, redis) = (builder.pid(), self.shards.pids().collect::<Vec<_>>());
        let mark = |mark: Mark| {
            let now = Costs::now(pid, &redis)?;
            match mark {
                Mark::WarmedUp => began = now,
                Mark::AllSent => ended = now,
            }
            Ok(())
        };
        let first = self.next;
        self.next += schedule.within(load.warm_up + load.measured);
        self.log.watch(true);
        let loading = open_loop::run(load, |index| self.decide(first + index), mark);
        let (outcome, delays) = tokio::join!(loading, self.watch(WARM_UP + self.sizes.live));
        self.log.watch(false);
        let (outcome, delays) = (outcome?, delays?);
        builder.must_run()?;
        ensure!(outcome.failed + outcome.unanswered == 0, "{} payments were not recorded", outcome.failed + outcome.unanswered);
        self.until_folded(builder, &self.log.flush()?).await?;
        let events = outcome.answered as f64;
        let cpu = ended.since(&began);
        Ok(figures(&[
            ("live_payments_per_s", events / self.sizes.live.as_secs_f64()),
            ("live_cpu_us_per_event", cpu.builder.as_secs_f64() * 1e6 / events),
            ("live_redis_cpu_us_per_event", cpu.redis.as_secs_f64() * 1e6 / events),
            ("live_unfolded_age_p50_ms", delays.p50_ms()),
            ("live_unfolded_age_p99_ms", delays.p99_ms()),
            ("live_unfolded_age_max_ms", delays.max_ms()),
        ]))
    }

    /// A payment of the load: recorded, and written to the log.
    fn decide(&self, number: u64) -> impl Future<Output = Result<()>> + Send + 'static {
        let (workload, decisions, log, written) = (self.workload.clone(), self.decisions.clone(), self.log.clone(), self.written.clone());
        async move {
            let event = workload.load(number, now_ms());
            let read = decisions.record_and_read(&event, (Instant::now() + RECORDED_WITHIN).into()).await;
            let customer = workload.customer_of_load(number);
            log.write(&event, partition_of(customer))?;
            note_written(&written, customer);
            ensure!(read.recorded, "a payment was not recorded");
            Ok(())
        }
    }

    /// How old the oldest event was that was not folded, each time one looks.
    async fn watch(&self, length: Duration) -> Result<Latencies> {
        let (began, mut ages) = (Instant::now(), Latencies::new()?);
        while began.elapsed() < length {
            tokio::time::sleep(LOOK_EVERY).await;
            let folded = self.shards.folded().await?;
            if began.elapsed() > WARM_UP {
                ages.record(self.log.oldest_unfolded(&folded).unwrap_or_default());
            }
        }
        Ok(ages)
    }

    /// Starts a builder on a backlog and waits until it is folded; what it costs until the first batch is in is its start.
    async fn catch_up(&mut self, backlog: Backlog, figures: &mut Figures) -> Result<Builder> {
        // Heartbeats that the builder wrote last stand behind the last payment.
        let before = self.log.ends().await?;
        self.write_backlog(backlog).await?;
        let ends = self.log.flush()?;
        let started = Instant::now();
        let mut builder = self.installation.start()?;
        let first = self.until_moved(&mut builder, &before, &ends, 1).await?;
        let start_s = started.elapsed().as_secs_f64();
        let (began, costs_before, threads_before) = (Instant::now(), self.costs(&builder)?, cpu_time_by_thread(builder.pid())?);
        let folded = self.until_moved(&mut builder, &before, &ends, u64::MAX).await? - first;
        let (took, cost) = (began.elapsed(), self.costs(&builder)?.since(&costs_before));
        ensure!(folded > 0, "the backlog was folded before one could look: make it larger");
        let (events, cpu_s) = (folded as f64, cost.builder.as_secs_f64());
        let per_event_us = |cpu: Duration| cpu.as_secs_f64() * 1e6 / events;
        let mut add = |key: &str, value: f64| figures.insert(format!("{}{key}", backlog.prefix()), value);
        add("events_per_cpu_s", events / cpu_s);
        add("catch_up_ratio", events / took.as_secs_f64() / f64::from(self.sizes.live_per_s));
        add("catch_up_events_per_s", events / took.as_secs_f64());
        add("catch_up_redis_cpu_us_per_event", per_event_us(cost.redis));
        add("start_s", start_s);
        for (thread, cpu) in cpu_time_by_thread(builder.pid())? {
            let cpu = cpu.saturating_sub(threads_before.get(&thread).copied().unwrap_or_default());
            if cpu.as_secs_f64() * 100.0 > cpu_s {
                add(&format!("thread_{}_cpu_us_per_event", plain(&thread)), per_event_us(cpu));
            }
        }
        Ok(builder)
    }

    fn costs(&self, builder: &Builder) -> Result<Costs> {
        Costs::now(builder.pid(), &self.shards.pids().collect::<Vec<_>>())
    }

    /// As much as the live rate brings in the time that ends now.
    async fn write_backlog(&mut self, backlog: Backlog) -> Result<()> {
        let (first, count) = (self.next, self.sizes.backlog_events);
        self.next += count;
        let length_ms = i64::try_from(Schedule { rate_per_s: self.sizes.live_per_s }.due(count).as_millis())?;
        let began_ms = now_ms() - length_ms;
        let events: Vec<(u64, Event)> = (0..count)
            .map(|n| {
                let time_ms = began_ms + length_ms * i64::try_from(n).unwrap_or_default() / i64::try_from(count).unwrap_or(1);
                (self.workload.customer_of_load(first + n), self.workload.load(first + n, time_ms))
            })
            .collect();
        if backlog == Backlog::Recorded {
            self.record(&events).await?;
        }
        for (customer, event) in &events {
            self.log.write(event, partition_of(*customer))?;
            note_written(&self.written, *customer);
        }
        Ok(())
    }

    /// As a decision service does, without writing to the log.
    async fn record(&self, events: &[(u64, Event)]) -> Result<()> {
        let decisions = &self.decisions;
        let record = |event| async move {
            let read = decisions.record_and_read(event, (Instant::now() + RECORDED_WITHIN).into()).await;
            if read.recorded { Ok(()) } else { bail!("a payment was not recorded") }
        };
        let recording = stream::iter(events.iter().map(|(_, event)| record(event)));
        recording.buffer_unordered(RECORDED_AT_ONCE).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    /// Waits until so many events of the log between `before` and `ends` are folded, or all of them, and gives how many are.
    async fn until_moved(&self, builder: &mut Builder, before: &Ends, ends: &Ends, wanted: u64) -> Result<u64> {
        let (all, give_up) = (between(before, ends, ends), Instant::now() + FOLDED_WITHIN);
        loop {
            let folded = between(before, &self.shards.folded().await?, ends);
            if folded >= wanted.min(all) {
                return Ok(folded);
            }
            builder.must_run()?;
            ensure!(Instant::now() < give_up, "the builder has folded {folded} of {all} events within {FOLDED_WITHIN:?}");
            tokio::time::sleep(LOOK_CLOSELY_EVERY).await;
        }
    }

    async fn count(&self, figures: &mut Figures) -> Result<()> {
        let card = |customer| self.workload.payment(customer, 0, 0).entities.get(EntityKind::Card).context("a payment has no card");
        let cards = (0..self.sizes.customers).map(card).collect::<Result<Vec<EntityId>>>()?;
        let found = self.shards.payments(&cards).await?;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let (lost, double) = written.compare(&found);
        let list = [("events_written", written.total()), ("events_lost", lost), ("events_double", double)];
        figures.extend(list.map(|(key, value)| (key.to_string(), value as f64)));
        Ok(())
    }
}

/// Processor time so far.
#[derive(Debug, Clone, Copy, Default)]
struct Costs {
    builder: Duration,
    /// Of all shards.
    redis: Duration,
}

impl Costs {
    fn now(builder: u32, redis: &[u32]) -> Result<Self> {
        let redis = redis.iter().map(|pid| cpu_time(*pid)).sum::<Result<Duration>>()?;
        Ok(Self { builder: cpu_time(builder)?, redis })
    }

    fn since(&self, before: &Self) -> Self {
        Self { builder: self.builder.saturating_sub(before.builder), redis: self.redis.saturating_sub(before.redis) }
    }
}

fn is_folded(folded: &Ends, ends: &Ends) -> bool {
    ends.iter().all(|(partition, end)| folded.get(partition).is_some_and(|next| next >= end))
}

/// How many offsets lie behind `before` and are folded, heartbeats behind `ends` left out.
fn between(before: &Ends, folded: &Ends, ends: &Ends) -> u64 {
    let of = |(partition, end): (&i32, &i64)| {
        let at = |positions: &Ends| positions.get(partition).copied().unwrap_or_default();
        u64::try_from(at(folded).min(*end) - at(before)).unwrap_or_default()
    };
    ends.iter().map(of).sum()
}

fn note_written(written: &Mutex<Written>, customer: u64) {
    written.lock().unwrap_or_else(PoisonError::into_inner).note(customer);
}

/// A thread's name as a part of a key.
fn plain(thread: &str) -> String {
    thread.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

fn figures(list: &[(&str, f64)]) -> Figures {
    list.iter().map(|(key, value)| ((*key).to_string(), *value)).collect::<BTreeMap<_, _>>()
}

fn note(what: &str) {
    eprintln!("   builder: {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_what_lies_in_the_backlog_and_no_heartbeats_behind_it() {
        let (before, ends) = (Ends::from([(0, 100), (1, 50)]), Ends::from([(0, 200), (1, 150)]));
        assert_eq!(between(&before, &before, &ends), 0);
        assert_eq!(between(&before, &Ends::from([(0, 120), (1, 40)]), &ends), 20);
        assert_eq!(between(&before, &Ends::from([(0, 999), (1, 999)]), &ends), 200);
        assert!(is_folded(&Ends::from([(0, 200), (1, 151)]), &ends) && !is_folded(&Ends::from([(0, 200)]), &ends));
    }

    #[test]
    fn names_of_threads_become_parts_of_keys() {
        assert_eq!(plain("rdk:broker-1"), "rdk_broker_1");
    }
}
