//! A slow line: what goes in comes out later, in order and complete, on every connection through it.

use std::time::Duration;

use anyhow::{Context, Result};
use domain::HostPort;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

const CHUNK_BYTES: usize = 16 << 10;
/// So many chunks are on the way at once; then the sender has to wait, as with a full window.
const CHUNKS_MAX: usize = 1_024;

/// Ends its connections when dropped.
pub struct Line {
    address: HostPort,
    accepting: JoinHandle<()>,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    frozen: bool,
    /// Connections of an earlier generation carry nothing any more.
    generation: u64,
}

/// A connection's way through the line.
#[derive(Clone)]
struct Way {
    one_way: Duration,
    state: watch::Receiver<State>,
    generation: u64,
}

struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
}

impl Line {
    /// A line to `target`, which takes `one_way` in each direction. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When loopback has no port left.
    pub async fn start(target: HostPort, one_way: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on loopback")?;
        let address = HostPort { host: "127.0.0.1".into(), port: listener.local_addr()?.port() };
        let (state, receiver) = watch::channel(State::default());
        let accepting = tokio::spawn(accept(listener, target, one_way, receiver));
        Ok(Self { address, accepting, state })
    }

    /// Nothing comes out any more, and no connection ends.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.frozen = true);
    }

    /// Everything that has waited comes out.
    pub fn thaw(&self) {
        self.state.send_modify(|state| state.frozen = false);
    }

    /// The connections that there are become half open: they carry nothing any more, and neither end is told. New ones work.
    pub fn half_open(&self) {
        self.state.send_modify(|state| state.generation = state.generation.wrapping_add(1));
    }

    /// What to connect to instead of the target.
    pub fn address(&self) -> HostPort {
        self.address.clone()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: HostPort, one_way: Duration, state: watch::Receiver<State>) {
    // Dropped with this task, and with it every connection.
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let generation = state.borrow().generation;
        connections.spawn(carry(near, target.clone(), Way { one_way, state: state.clone(), generation }));
        while connections.try_join_next().is_some() {}
    }
}

async fn carry(near: TcpStream, target: HostPort, way: Way) {
    // The handshake of TCP takes a round trip.
    tokio::time::sleep(way.one_way.saturating_mul(2)).await;
    let Ok(far) = TcpStream::connect((target.host.as_str(), target.port)).await else { return };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    tokio::join!(one_direction(near_read, far_write, way.clone()), one_direction(far_read, near_write, way));
}

async fn one_direction(from: OwnedReadHalf, to: OwnedWriteHalf, way: Way) {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    tokio::join!(take_in(from, sender, way.one_way), give_out(to, receiver, way.state, way.generation));
}

async fn take_in(mut from: OwnedReadHalf, chunks: mpsc::Sender<Chunk>, one_way: Duration) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..length).unwrap_or_default().to_vec();
        if chunks.send(Chunk { due: Instant::now() + one_way, bytes }).await.is_err() {
            return;
        }
    }
    // The end of the connection takes its time too.
    tokio::time::sleep(one_way).await;
}

async fn give_out(mut to: OwnedWriteHalf, mut chunks: mpsc::Receiver<Chunk>, mut state: watch::Receiver<State>, generation: u64) {
    while let Some(chunk) = chunks.recv().await {
        tokio::time::sleep_until(chunk.due).await;
        // An error means that the line is gone.
        if state.wait_for(|state| !state.frozen && state.generation == generation).await.is_err() {
            return;
        }
        if to.write_all(&chunk.bytes).await.is_err() {
            return;
        }
    }
    // Of a connection that is half open, the end comes out no more than the rest.
    if state.wait_for(|state| !state.frozen && state.generation == generation).await.is_ok() {
        let _ = to.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_goes_in_comes_out_later_and_in_order() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let one_way = Duration::from_millis(20);
        let line = Line::start(HostPort { host: "127.0.0.1".into(), port }, one_way).await.unwrap();
        let echo = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        });
        let mut stream = TcpStream::connect(("127.0.0.1", line.address().port)).await.unwrap();
        let sent: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let started = Instant::now();
        stream.write_all(&sent).await.unwrap();
        let mut received = vec![0; sent.len()];
        stream.read_exact(&mut received).await.unwrap();
        assert!(received == sent);
        assert!(started.elapsed() >= one_way * 2);
        drop(stream);
        echo.await.unwrap();
    }
}
