//! Real Redis processes on loopback, and a slow line between them: for tests and benches only.
#![forbid(unsafe_code)]

mod line;
mod server;

pub use line::Line;
pub use server::{Server, free_port};
