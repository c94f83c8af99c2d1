//! The mirror at work: one origin's topics into this region's Kafka, exactly once.
//!
//! [`supervisor`] keeps one [`link`] connected and tries again when it ends; a link is a thread that polls the
//! [`source`], lets `replicator_core` decide, and carries out what it decided with the [`sink`], whose transactions hold
//! records and positions together. Beside it, [`topics`] keeps the mirrored topics like the origin's, and [`measure`]
//! reads the ends of the origin's log, so that lag is known or known to be unknown.
//!
//! A mirrored record keeps partition, key, value, headers and timestamp, and gets the header `fp-src`. Its topic is named
//! there by name: librdkafka's safe interface gives no topic ids, so a topic that was deleted and made anew with at
//! least as many records is not recognised as another one (issue 6).
#![forbid(unsafe_code)]

pub mod config;
mod link;
mod measure;
mod metrics;
mod positions;
mod sink;
mod source;
mod supervisor;
mod topics;
mod trouble;
mod view;

pub use supervisor::{RunError, run};
