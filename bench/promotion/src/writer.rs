//! The independent writer: a thread with its own connections, in region 0, which writes at a constant rate whatever
//! happens, and learns from refusals which region takes the writes of a shard. A write is tried until it is acknowledged.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use domain::HostPort;
use futures::future::try_join_all;
use redis::{AsyncConnectionConfig, Client, RedisError, ServerErrorKind, aio::MultiplexedConnection};
use tokio::{sync::oneshot, task::LocalSet};

const TICK: Duration = Duration::from_millis(5);
/// Before a refused write is tried again.
const PATIENCE: Duration = Duration::from_millis(1);

/// A write that Redis has acknowledged: its shard and its number there.
pub(crate) type Acknowledged = (u16, u64);

pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    gaps: Arc<Mutex<Vec<Gap>>>,
    thread: JoinHandle<Result<Vec<Acknowledged>>>,
}

/// The acknowledgements of a shard.
#[derive(Clone, Copy, Default)]
struct Gap {
    last: Option<Instant>,
    longest: Duration,
}

impl Writer {
    /// Returns when it has its connections. `sides`: the shards of each region, as they are reached from the writer's.
    pub(crate) async fn start(sides: [Vec<HostPort>; 2], writes_per_s: u32) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let gaps = Arc::new(Mutex::new(vec![Gap::default(); sides[0].len()]));
        let shared = (stop.clone(), gaps.clone());
        let (ready, is_ready) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, async move {
                let shards = connect(&sides).await?;
                let _ = ready.send(());
                run(shards, writes_per_s, shared.0, shared.1).await
            })
        });
        let writer = Self { stop, gaps, thread };
        match is_ready.await {
            Ok(()) => Ok(writer),
            Err(_) => writer.stop().and_then(|_| Err(anyhow!("the writer ended before it had begun"))),
        }
    }

    /// The longest time that any shard was without an acknowledgement since this was last asked; one that has not ended
    /// counts too.
    pub(crate) fn longest_gap(&self) -> Duration {
        let now = Instant::now();
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |gap: &mut Gap| std::mem::take(&mut gap.longest).max(gap.last.map_or(Duration::ZERO, |last| now.duration_since(last)));
        gaps.iter_mut().map(take).max().unwrap_or_default()
    }

    pub(crate) fn stop(self) -> Result<Vec<Acknowledged>> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the writer has panicked"))?
    }
}

pub(crate) fn key((shard, number): Acknowledged) -> String {
    format!("e:{{w{shard}-{number}}}")
}

struct Shard {
    index: u16,
    sides: [MultiplexedConnection; 2],
    /// Where the last write was not refused.
    side: Cell<usize>,
}

/// What all writes share.
struct Shared {
    gaps: Arc<Mutex<Vec<Gap>>>,
    acknowledged: RefCell<Vec<Acknowledged>>,
    failed: RefCell<Option<RedisError>>,
}

async fn run(shards: Vec<Rc<Shard>>, writes_per_s: u32, stop: Arc<AtomicBool>, gaps: Arc<Mutex<Vec<Gap>>>) -> Result<Vec<Acknowledged>> {
    let shared = Rc::new(Shared { gaps, acknowledged: RefCell::default(), failed: RefCell::default() });
    let started = Instant::now();
    let (mut sent, mut under_way) = (0_u64, tokio::task::JoinSet::new());
    let mut ticks = tokio::time::interval(TICK);
    while !stop.load(Ordering::SeqCst) && shared.failed.borrow().is_none() {
        ticks.tick().await;
        let due = u64::try_from(started.elapsed().as_millis())?.saturating_mul(u64::from(writes_per_s)) / 1_000;
        while sent < due {
            let turn = usize::try_from(sent)? % shards.len();
            let number = sent / u64::try_from(shards.len())?;
            under_way.spawn_local(write(shards[turn].clone(), number, shared.clone()));
            sent += 1;
        }
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    match shared.failed.take() {
        Some(error) => Err(error).context("the writer got an error that is no refusal"),
        None => Ok(shared.acknowledged.take()),
    }
}

async fn connect(sides: &[Vec<HostPort>; 2]) -> Result<Vec<Rc<Shard>>> {
    let first = try_join_all(sides[0].iter().map(open)).await?;
    let second = try_join_all(sides[1].iter().map(open)).await?;
    let shard = |(index, (first, second))| Rc::new(Shard { index, sides: [first, second], side: Cell::new(0) });
    Ok((0..).zip(first.into_iter().zip(second)).map(shard).collect())
}

pub(crate) async fn open(address: &HostPort) -> Result<MultiplexedConnection> {
    // One that waits for long is no failure: it counts in the gap.
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(20)));
    Ok(Client::open((address.host.as_str(), address.port))?.get_multiplexed_async_connection_with_config(&config).await?)
}

async fn write(shard: Rc<Shard>, number: u64, shared: Rc<Shared>) {
    let write = (shard.index, number);
    loop {
        let side = shard.side.get();
        let mut connection = shard.sides[side].clone();
        match redis::cmd("SET").arg(key(write)).arg(number).exec_async(&mut connection).await {
            Ok(()) => return shared.note(&shard, write),
            // Others may have changed the side meanwhile.
            Err(error) if is_refusal(&error) && shard.side.get() == side => shard.side.set(1 - side),
            Err(error) if is_refusal(&error) => {}
            Err(error) => {
                *shared.failed.borrow_mut() = Some(error);
                return;
            }
        }
        tokio::time::sleep(PATIENCE).await;
    }
}

/// A replica, or an old primary that has been sealed.
fn is_refusal(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::Server(ServerErrorKind::ReadOnly) || error.code() == Some("NOREPLICAS")
}

impl Shared {
    fn note(&self, shard: &Shard, write: Acknowledged) {
        self.acknowledged.borrow_mut().push(write);
        let now = Instant::now();
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gap) = gaps.get_mut(usize::from(shard.index)) {
            gap.longest = gap.longest.max(gap.last.map_or(Duration::ZERO, |last| now.duration_since(last)));
            gap.last = Some(now);
        }
    }
}
