//! What every long-running process of the data plane and the operator has: configuration from a file, structured logs,
//! health and metrics over HTTP, graceful shutdown, and the plan that it follows.
#![forbid(unsafe_code)]

pub mod admin;
pub mod config;
pub mod logs;
pub mod plan;
pub mod shutdown;
