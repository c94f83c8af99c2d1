//! The decision service: a payment comes in, and a decision goes out inside the deadline, whatever is broken.
//!
//! Start at [`pipeline`]: it is the whole way of a payment on one page. [`service`] is what gRPC and REST share;
//! [`app`] and [`standalone`] put the parts together; [`config`] is the file that the operator writes. What a payment
//! means (validation, protection, features, thresholds) is in `scoring_core`, which does no IO.
#![forbid(unsafe_code)]

pub mod app;
pub mod budget;
pub mod config;
pub mod freshness;
mod grpc;
pub mod handover;
pub mod inference;
mod inputs;
mod latency;
pub mod metrics;
pub mod model;
pub mod pipeline;
mod rest;
pub mod rules;
pub mod serve;
pub mod service;
pub mod standalone;
mod units;
