//! The case `lag`: how old the newest write is that a copy on the other side has, while events are recorded as decisions
//! record them. One process has both ends, so that ages come from one clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use bench::report::Figures;
use domain::HostPort;
use redis::{Pipeline, aio::MultiplexedConnection};

use crate::{figures, per_mille, stage::Stage, writer::open};

const SHARDS: u16 = 2;
const ENTITIES_PER_EVENT: u32 = 5;
const ENTITIES: u64 = 20_000;
const SLOT_BYTES: usize = 32;
const TTL_MS: u64 = 87_000_000;
const TICK: Duration = Duration::from_millis(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const WARM_UP: Duration = Duration::from_secs(1);
/// Written after each tick's events, in the same pipeline: microseconds since the start.
const MARK: &str = "e:{mark}";

pub(crate) async fn measure(events_per_s: u32, one_way: Duration, lasting: Duration) -> Result<Figures> {
    let stage = Stage::set_up(SHARDS, one_way).await?;
    let (started, stop, events) = (Instant::now(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = Load { started, stop: stop.clone(), events: events.clone(), primaries: stage.addresses(0, 0), events_per_s };
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(load.run())
    });
    tokio::time::sleep(WARM_UP).await;
    let looked = ages(&stage, started, lasting).await;
    stop.store(true, Ordering::SeqCst);
    thread.join().map_err(|_| anyhow!("the load has panicked"))??;
    let mut ages_ms = looked?;
    ensure!(!ages_ms.is_empty(), "no mark has arrived");
    ages_ms.sort_by(f64::total_cmp);
    let per_s = f64::from(u32::try_from(events.load(Ordering::SeqCst))?) / (lasting + WARM_UP).as_secs_f64();
    Ok(figures([
        ("p50_ms", per_mille(&ages_ms, 500)),
        ("p99_ms", per_mille(&ages_ms, 990)),
        ("max_ms", per_mille(&ages_ms, 1_000)),
        ("events_per_s", per_s),
        ("entities_recorded_per_s", per_s * f64::from(ENTITIES_PER_EVENT)),
        ("shards", f64::from(SHARDS)),
        ("one_way_ms", one_way.as_secs_f64() * 1_000.0),
        ("measured_s", lasting.as_secs_f64()),
    ]))
}

/// What the copies have, again and again.
async fn ages(stage: &Stage, started: Instant, lasting: Duration) -> Result<Vec<f64>> {
    let mut copies = connect(&stage.addresses(1, 1)).await?;
    let (mut ages_ms, mut ticks) = (Vec::new(), tokio::time::interval(LOOK_EVERY));
    let began = Instant::now();
    while began.elapsed() < lasting {
        ticks.tick().await;
        for copy in &mut copies {
            let mark: Option<u64> = redis::cmd("GET").arg(MARK).query_async(copy).await?;
            if let Some(mark) = mark {
                let age = started.elapsed().saturating_sub(Duration::from_micros(mark));
                ages_ms.push(age.as_secs_f64() * 1_000.0);
            }
        }
    }
    Ok(ages_ms)
}

async fn connect(addresses: &[HostPort]) -> Result<Vec<MultiplexedConnection>> {
    let mut connections = Vec::new();
    for address in addresses {
        connections.push(open(address).await?);
    }
    Ok(connections)
}

/// Records events in the primaries' own region.
struct Load {
    started: Instant,
    stop: Arc<AtomicBool>,
    events: Arc<AtomicU64>,
    primaries: Vec<HostPort>,
    events_per_s: u32,
}

impl Load {
    async fn run(self) -> Result<()> {
        let mut primaries = connect(&self.primaries).await?;
        let (mut sent, mut ticks) = (0_u64, tokio::time::interval(TICK));
        let began = Instant::now();
        while !self.stop.load(Ordering::SeqCst) {
            ticks.tick().await;
            let due = u64::try_from(began.elapsed().as_millis())?.saturating_mul(u64::from(self.events_per_s)) / 1_000;
            let mut pipes = vec![Pipeline::new(); primaries.len()];
            for _ in sent..due {
                record(&mut pipes);
            }
            self.events.fetch_add(due.saturating_sub(sent), Ordering::SeqCst);
            sent = due;
            let mark = u64::try_from(self.started.elapsed().as_micros())?;
            for pipe in &mut pipes {
                pipe.cmd("SET").arg(MARK).arg(mark).ignore();
            }
            let sending = primaries.iter_mut().zip(&pipes).map(|(primary, pipe)| pipe.exec_async(primary));
            futures::future::try_join_all(sending).await?;
        }
        Ok(())
    }
}

/// One event: a slot of each of its entities, and how long they live.
fn record(pipes: &mut [Pipeline]) {
    for _ in 0..ENTITIES_PER_EVENT {
        let entity = rand::random_range(0..ENTITIES);
        let shard = usize::try_from(entity).unwrap_or(0) % pipes.len().max(1);
        let key = [b"{u".as_slice(), &entity.to_be_bytes(), &entity.to_le_bytes(), b"}"].concat();
        let slot: [u8; SLOT_BYTES] = rand::random();
        if let Some(pipe) = pipes.get_mut(shard) {
            pipe.cmd("APPEND").arg(&key).arg(&slot).ignore().cmd("PEXPIRE").arg(&key).arg(TTL_MS).ignore();
        }
    }
}
