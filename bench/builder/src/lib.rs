//! The builder as it is deployed: its own process, which reads a real broker and folds into real Redis shards.
//!
//! A run has four parts. A history is folded, which also warms everything up. Then payments come at the live rate, recorded by a decision service as always.
//! Then the builder is stopped, payments go on until a backlog has built up, and it is started again: once with a backlog that the decision service has recorded
//! too, as after an outage of the builder, and once with one that the shards do not hold at all, as after the loss of a region. In the end every card is counted.
#![forbid(unsafe_code)]

pub mod builder;
pub mod counting;
pub mod log;
pub mod run;
pub mod shards;
