//! An independent writer: it knows the addresses of both sides, and learns from refusals which of them takes writes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use redis_testbed::Server;

pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Writer {
    pub(crate) fn start(sides: [&Server; 2]) -> Self {
        let ports = sides.map(|side| side.address().port);
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, count) = (stop.clone(), written.clone());
        Self { stop, written, thread: std::thread::spawn(move || write(ports, &stopped, &count)) }
    }

    /// Waits until so many more writes are acknowledged.
    pub(crate) async fn goes_on(&self, count: usize) {
        let wanted = self.written.load(Ordering::SeqCst) + count;
        while self.written.load(Ordering::SeqCst) < wanted {
            assert!(!self.thread.is_finished(), "the writer has ended");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The keys of all writes that were acknowledged.
    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn write(ports: [u16; 2], stopped: &AtomicBool, written: &AtomicUsize) -> Vec<String> {
    let connect = |port| {
        let client = redis::Client::open(format!("redis://writer:writer-password@127.0.0.1:{port}")).unwrap();
        client.get_connection().unwrap()
    };
    let mut sides = ports.map(connect);
    let (mut side, mut acknowledged) = (0, Vec::new());
    for number in 0.. {
        let key = format!("e:{{w{number}}}");
        while !stopped.load(Ordering::SeqCst) {
            match redis::cmd("SET").arg(&key).arg(number).exec(&mut sides[side]) {
                Ok(()) => {
                    acknowledged.push(key);
                    written.store(acknowledged.len(), Ordering::SeqCst);
                    break;
                }
                Err(error) if matches!(error.code(), Some("READONLY" | "NOREPLICAS")) => side = 1 - side,
                Err(error) => panic!("the writer got {error}"),
            }
        }
        if stopped.load(Ordering::SeqCst) {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    acknowledged
}

/// Those that a process does not hold.
pub(crate) fn missing(acknowledged: &[String], server: &Server) -> usize {
    let mut connection = server.connection().unwrap();
    let found = acknowledged.chunks(500).map(|keys| {
        let values: Vec<Option<String>> = redis::cmd("MGET").arg(keys).query(&mut connection).unwrap();
        values.into_iter().flatten().count()
    });
    acknowledged.len() - found.sum::<usize>()
}
