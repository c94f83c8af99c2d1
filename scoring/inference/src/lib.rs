//! The inference service: ONNX models behind the Open Inference Protocol, version 2, over gRPC and over HTTP with JSON.
//!
//! A request's way: [`grpc`] or [`rest`] translate it, [`infer`] checks it against the model in service and queues it,
//! [`pool`] runs it on a thread with a session of its own, and the answer names the model that gave it. Beside that,
//! [`follow`] keeps the model in service at what the configuration names: fetched, its digest and its feature schema
//! compared, its golden vectors scored by ONNX Runtime, warmed, and only then taken into service in one step.
#![forbid(unsafe_code)]

mod cache;
pub mod config;
mod follow;
mod grpc;
mod infer;
mod metrics;
mod models;
mod onnx;
mod pool;
mod rest;
mod serve;
mod source;

/// What the protocol's metadata calls this server.
const SERVER_NAME: &str = "fraudpipeline-inference";

pub use onnx::{OnnxRuntime, RuntimeError};
pub use serve::{Running, ServeError, run};
pub use source::{FetchError, fetch};
