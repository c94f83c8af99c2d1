//! Drills: measured, not estimated.
//!
//! A ledger client keeps every acknowledgement that it got on its own disk. Afterwards the logs of all regions are read
//! by code that shares nothing with the mirror, and the two are held against each other: what was acknowledged and is
//! absent, what is there twice, what did not reach another region.
#![forbid(unsafe_code)]

pub mod audit;
pub mod drill;
pub mod ledger;
pub mod logs;
pub mod result;
pub mod sandbox;
