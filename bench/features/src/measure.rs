//! One contender under load, with a Redis of its own. Beside it, on the same runtime and in the same way, PINGs: what they take is what the generator, the
//! machine and the queue in Redis add to every figure. How late the generator itself was is a figure too.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bench::open_loop::{self, Load, Mark, Outcome, Schedule};
use bench::process::cpu_time;
use bench::redis_server::RedisServer;
use bench::report::Figures;
use redis::cmd;

use crate::connection;
use crate::contender::Contender;
use crate::ours::now_ms;
use crate::workload::{ENTITIES, Workload};

const PINGS_PER_S: u32 = 200;
/// At 5,000 a second: two seconds behind, and no hope to catch up.
const IN_FLIGHT_MAX: u64 = 10_000;
/// A rate is held if this share of its decisions is answered, half of them within [`HELD_P50_MS_MAX`].
const HELD_SHARE: f64 = 0.99;
const HELD_P50_MS_MAX: f64 = 20.0;
const RATE_MIN_PER_S: u32 = 300;
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub decisions_per_s: u32,
    pub warm_up: Duration,
    pub measured: Duration,
}

impl Pace {
    fn load(self, rate_per_s: u32) -> Load {
        let schedule = Schedule { rate_per_s };
        Load { schedule, warm_up: self.warm_up, measured: self.measured, in_flight_max: IN_FLIGHT_MAX, patience: PATIENCE }
    }

    /// Decisions of a whole run.
    pub fn decisions(self) -> u64 {
        Schedule { rate_per_s: self.decisions_per_s }.within(self.warm_up + self.measured)
    }
}

/// CPU time so far, of Redis and of this process.
#[derive(Debug, Clone, Copy, Default)]
struct Cpu {
    redis: Duration,
    client: Duration,
}

/// Measures a peer at half the rate, and half of that, until it can hold it: above that, latencies only tell how long the run was. The figures say the rate.
///
/// # Errors
/// When Redis or the contender cannot be started or filled.
pub async fn measure_held<C: Contender>(connect: impl AsyncFn(u16) -> Result<C>, workload: &Workload, mut pace: Pace) -> Result<Figures> {
    loop {
        let figures = measure(&connect, workload, pace).await?;
        let held = figures["decisions_per_s"] >= HELD_SHARE * f64::from(pace.decisions_per_s) && figures["p50_ms"] <= HELD_P50_MS_MAX;
        if held || pace.decisions_per_s / 2 < RATE_MIN_PER_S {
            ensure!(figures["decisions_per_s"] > 0.0, "not one of {} decisions a second was answered", pace.decisions_per_s);
            return Ok(figures);
        }
        eprintln!("      {} decisions a second cannot be held; half of that", pace.decisions_per_s);
        pace.decisions_per_s /= 2;
    }
}

/// # Errors
/// When Redis or the contender cannot be started or filled. Decisions that fail are figures.
pub async fn measure<C: Contender>(connect: &impl AsyncFn(u16) -> Result<C>, workload: &Workload, pace: Pace) -> Result<Figures> {
    let redis = RedisServer::start(&[])?;
    let contender = Arc::new(connect(redis.port()).await?);
    let empty_bytes = redis.stored_bytes()?;
    contender.fill(workload).await.context("the history cannot be stored")?;
    let filled_bytes = redis.stored_bytes()?;
    eprintln!(
        "      {} keys of {} events filled, {} MiB; load for {:?}",
        workload.keys(),
        workload.history_events,
        (filled_bytes - empty_bytes) >> 20,
        pace.measured
    );
    let pings = ping(redis.port(), pace).await?;
    let (decisions, pings) = tokio::join!(load(contender.clone(), workload, pace, redis.pid()), pings);
    let (decisions, cpu) = decisions?;
    let mut figures = figures_of(&decisions, &pings?, cpu, pace);
    figures.extend(contender.after_load());
    let (filled, loaded) = (workload.keys() * workload.history_events, pace.decisions() * ENTITIES);
    let mut add = |key: &str, value: f64| figures.insert(key.to_string(), value);
    add("bytes_per_key", filled_bytes.saturating_sub(empty_bytes) as f64 / workload.keys() as f64);
    add("bytes_per_event", filled_bytes.saturating_sub(empty_bytes) as f64 / filled as f64);
    add("bytes_per_event_after_load", redis.stored_bytes()?.saturating_sub(empty_bytes) as f64 / (filled + loaded) as f64);
    add("events_per_key", workload.history_events as f64 + loaded as f64 / workload.keys() as f64 / 2.0);
    Ok(figures)
}

/// Memory alone, of a history of one event a key.
///
/// # Errors
/// When Redis or the contender cannot be started or filled.
pub async fn bytes_per_key_at_one<C: Contender>(connect: impl AsyncFn(u16) -> Result<C>, customers: u64) -> Result<f64> {
    let redis = RedisServer::start(&[])?;
    let contender = connect(redis.port()).await?;
    let empty_bytes = redis.stored_bytes()?;
    let workload = Workload::new(customers, 1, Duration::from_secs(600), now_ms())?;
    contender.fill(&workload).await.context("the history cannot be stored")?;
    Ok(redis.stored_bytes()?.saturating_sub(empty_bytes) as f64 / workload.keys() as f64)
}

async fn load<C: Contender>(contender: Arc<C>, workload: &Workload, pace: Pace, redis_pid: u32) -> Result<(Outcome, Cpu)> {
    let workload = Arc::new(workload.clone());
    let (mut began, mut ended) = (Cpu::default(), Cpu::default());
    let mark = |mark: Mark| {
        let now = Cpu { redis: cpu_time(redis_pid)?, client: cpu_time(std::process::id())? };
        match mark {
            Mark::WarmedUp => began = now,
            Mark::AllSent => ended = now,
        }
        Ok(())
    };
    let request = move |index| {
        let (contender, workload) = (contender.clone(), workload.clone());
        async move { contender.decide(&workload.load(index, now_ms())).await.map(drop) }
    };
    let outcome = open_loop::run(pace.load(pace.decisions_per_s), request, mark).await?;
    Ok((outcome, Cpu { redis: ended.redis.saturating_sub(began.redis), client: ended.client.saturating_sub(began.client) }))
}

async fn ping(port: u16, pace: Pace) -> Result<impl Future<Output = Result<Outcome>>> {
    let connection = connection::connect(port).await?;
    let request = move |_| {
        let mut connection = connection.clone();
        async move {
            cmd("PING").query_async::<()>(&mut connection).await?;
            Ok(())
        }
    };
    Ok(open_loop::run(pace.load(PINGS_PER_S), request, |_| Ok(())))
}

fn figures_of(decisions: &Outcome, pings: &Outcome, cpu: Cpu, pace: Pace) -> Figures {
    // Where nothing came to an end, the whole cost is that of one.
    let done = (decisions.answered + decisions.failed).max(1) as f64;
    let us_per_decision = |cpu: Duration| cpu.as_secs_f64() * 1e6 / done;
    let list = [
        ("p50_ms", decisions.latencies.p50_ms()),
        ("p99_ms", decisions.latencies.p99_ms()),
        ("max_ms", decisions.latencies.max_ms()),
        ("ping_p50_ms", pings.latencies.p50_ms()),
        ("ping_p99_ms", pings.latencies.p99_ms()),
        ("generator_late_p50_ms", decisions.generator_late.p50_ms()),
        ("generator_late_p99_ms", decisions.generator_late.p99_ms()),
        ("redis_cpu_us_per_entity", us_per_decision(cpu.redis) / ENTITIES as f64),
        ("redis_cpu_us_per_decision", us_per_decision(cpu.redis)),
        ("client_cpu_us_per_decision", us_per_decision(cpu.client)),
        ("decisions_per_s", decisions.answered as f64 / pace.measured.as_secs_f64()),
        ("failed_decisions", decisions.failed as f64),
        ("unanswered_decisions", decisions.unanswered as f64),
        ("measured_s", pace.measured.as_secs_f64()),
    ];
    list.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

#[cfg(test)]
mod tests {
    use bench::latency::Latencies;

    use super::*;

    #[test]
    fn cost_is_shared_among_all_decisions_that_came_to_an_end() {
        let mut latencies = Latencies::new().unwrap();
        (0..1_000).for_each(|_| latencies.record(Duration::from_millis(1)));
        let outcome = Outcome { generator_late: latencies.clone(), latencies, answered: 990, failed: 10, unanswered: 0 };
        let cpu = Cpu { redis: Duration::from_millis(100), client: Duration::from_millis(50) };
        let pace = Pace { decisions_per_s: 500, warm_up: Duration::ZERO, measured: Duration::from_secs(2) };
        let figures = figures_of(&outcome, &outcome, cpu, pace);
        assert_eq!(
            (figures["redis_cpu_us_per_entity"], figures["client_cpu_us_per_decision"], figures["decisions_per_s"]),
            (20.0, 50.0, 495.0)
        );
        assert_eq!(pace.decisions(), 1_000);
    }
}
