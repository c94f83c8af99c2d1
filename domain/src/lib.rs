//! Nouns shared by every part: regions, epochs, ballots, plans, shards, lag, known and unknown facts, invariants.
//!
//! Pure: no IO, no clock, no randomness, no hash order. Everything that acts carries an [`Epoch`]; everything that
//! receives keeps an [`EpochGuard`] and refuses what is older than the highest it has seen.
#![forbid(unsafe_code)]

pub mod duration;
mod epoch;
pub mod headers;
mod invariant;
mod known;
mod names;
mod plan;
mod slots;
pub mod topics;

pub use epoch::{Ballot, Epoch, EpochGuard, OlderEpoch, Revision};
pub use invariant::InvariantId;
pub use known::{Known, Lag};
pub use names::{ANY_FEATURE_STORE_NAME, InvalidName, PipelineName, RegionName, feature_store_name};
pub use plan::{
    FeaturePrimaries, HostPort, ModelRef, Plan, PlanBytes, PlanError, PlanView, RegionRole, RoleOfRegion, ShardAddress, Step,
    canonical_json,
};
pub use slots::{SLOTS, SlotMap, SlotMapError, SlotRange, slot_of};
