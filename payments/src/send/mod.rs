//! The sender: payments go out when they are due, whatever became of the earlier ones (open loop), so that a slow service
//! cannot slow down its own measurement. Latency counts from when a payment was due.

pub mod histogram;
pub mod ledger;
mod open_loop;
pub mod quality;
mod record;
pub mod tally;
mod target;

pub use open_loop::{Due, Pace, send};
pub use record::Recorder;
pub use tally::{Progress, Summary};
pub use target::{Target, TargetOptions};
