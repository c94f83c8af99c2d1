//! What a payment means to the pipeline, computed without IO: validation, protection of personal data, what is kept of
//! users, cards, devices, addresses and mailboxes, windows, the feature vector, tiers, thresholds, verdicts.
//!
//! The way of a payment: [`validate::check`] turns a request into a [`validate::CheckedPayment`], [`protect::protect`]
//! turns that into an [`event::Event`] without raw personal data, the feature store appends its [`record::Record`] to the
//! values of whoever took part and reads them as [`state::EntityStates`], [`schema::FeatureSchema::assemble`] makes the
//! vector of them, and [`decide::decide`] makes a verdict of score, rules and thresholds. The builder folds logs into the
//! values by [`state::fold`]; [`freshness`] says what is known to be missing in them.
//!
//! Pure: no clock, no randomness, no hash order; time and keys are arguments. Training replays events through this very
//! crate, so that a feature means the same in training and in serving.
#![forbid(unsafe_code)]

pub mod codes;
pub mod decide;
pub mod evaluate;
pub mod event;
pub mod freshness;
pub mod heartbeat;
pub mod key;
pub mod money;
pub mod panes;
pub mod profile;
pub mod protect;
pub mod published;
pub mod record;
mod retention;
pub mod schema;
mod sketch;
pub mod slot;
pub mod state;
pub mod validate;
pub mod windows;
mod wire;

#[cfg(test)]
mod testing;

pub use wire::UnknownNumber;
