//! An independent writer: it knows the addresses of both sides, and learns from refusals which of them takes writes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use redis_testbed::Server;

pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<String>>,
}

impl Writer {
    pub(crate) fn start(sides: [&Server; 2]) -> Self {
        let ports = sides.map(|side| side.address().port);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        Self { stop, thread: std::thread::spawn(move || write(ports, &stopped)) }
    }

    /// The keys of all writes that were acknowledged.
    pub(crate) fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

fn write(ports: [u16; 2], stopped: &AtomicBool) -> Vec<String> {
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
