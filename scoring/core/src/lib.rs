//! What a payment means to the pipeline, computed without IO: validation, protection of personal data, event sets and
//! their windows, the feature vector, tiers, thresholds, verdicts.
//!
//! The way of a payment: [`validate::check`] turns a request into a [`validate::CheckedPayment`], [`protect::protect`]
//! turns that into an [`event::Event`] without raw personal data, the feature store records it and reads the
//! [`set::EntitySets`] of whoever took part, [`schema::FeatureSchema::assemble`] makes the vector of them, and
//! [`decide::decide`] makes a verdict of score, rules and thresholds.
//!
//! Pure: no clock, no randomness, no hash order; time and keys are arguments. Training replays events through this very
//! crate, so that a feature means the same in training and in serving.
#![forbid(unsafe_code)]

pub mod codes;
pub mod decide;
pub mod encoding;
pub mod event;
pub mod money;
pub mod protect;
pub mod schema;
pub mod set;
pub mod validate;
pub mod windows;
mod wire;

#[cfg(test)]
mod testing;

pub use wire::UnknownNumber;
