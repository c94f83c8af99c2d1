//! What a mirror does next, decided from what it has seen.
//!
//! A mirror copies the partitions of an origin cluster into a target cluster. Records and the *position* (the next source
//! offset of a partition) are written in one transaction of the target: either both are there or neither. So a mirror that
//! ends anywhere and starts again reads its positions, seeks to them, and neither loses nor doubles a record. There is no
//! other recovery: whatever goes wrong with a transaction ends the connection, and the start repairs it.
//!
//! - [`position`]: positions as they are stored, and which of them count;
//! - [`lag`]: how far behind, in records and in time, or that it is not known;
//! - [`mirror`]: the state machine `step(event) -> effects`; all branching is there;
//! - [`state`]: what a mirror as a whole is doing, in words for people and alerts.
//!
//! Pure: no IO, no clock, no randomness.
#![forbid(unsafe_code)]

pub mod lag;
pub mod mirror;
pub mod position;
pub mod state;

pub use lag::{LagClock, PartitionLag};
pub use mirror::{Effect, Event, Mirror, Settings, StopReason};
pub use position::{Position, PositionKey, Positions};
pub use state::{LinkState, Side, Trouble};
