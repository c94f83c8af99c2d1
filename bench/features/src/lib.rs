//! The feature store beside its peers: the same payments, recorded and read in one step, at the same rate.
//!
//! A [`Contender`](contender::Contender) is one way of keeping features in Redis. [`measure`] runs the load against it; [`burst`] is the question that flushed
//! counters answer wrongly.
#![forbid(unsafe_code)]

pub mod burst;
pub mod cases;
pub mod connection;
pub mod contender;
pub mod encoding;
pub mod feast;
pub mod flushed;
pub mod lua_counters;
pub mod measure;
pub mod ours;
pub mod ours_with_builder;
pub mod targets;
pub mod workload;
