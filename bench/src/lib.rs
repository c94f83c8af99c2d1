//! What all benchmarks share. A benchmark is a program that `cargo xtask bench NAME` builds in the release profile; it measures ours and its peers under the
//! same load and writes `target/bench/NAME.json`, whose keys other programs rely on.
#![forbid(unsafe_code)]

pub mod latency;
pub mod machine;
pub mod metronome;
pub mod open_loop;
pub mod process;
pub mod redis_server;
pub mod report;
pub mod table;
pub mod target;
