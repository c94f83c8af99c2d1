//! Decides. Given what the manifest says and what was seen, [`plan`] says what should be, [`actions`] what may be done
//! about it now, [`status`] what people are told, and [`lint`] whether a plan, whoever made it, may follow its parent.
//!
//! All four are total: "I can't" is an answer with a [`Reason`], never an error and never silence. Facts arrive as
//! `Known<T>`; what is not known is never taken for good. Whoever executes makes no choices: every action names all
//! that it needs, is safe to repeat, and is emitted only once what must come before it has been seen. So a crash
//! anywhere leads to the same actions again.
//!
//! Pure: no IO, no clock, no randomness.
#![forbid(unsafe_code)]

mod actions;
mod input;
mod lint;
mod planner;
mod report;
mod seen;
mod shards;
mod status;

pub use actions::{Action, Allowed, actions, view_of};
pub use input::{CurrentPlan, PlanInput, RegionFacts, RegionKind, SpecFacts};
pub use lint::{Finding, lint};
pub use planner::{Planned, plan};
pub use report::{PlanReport, Reason};
pub use seen::{Component, Link, Observation, SettingFault, ShardFacts, ShardRole, TopicsState, Workload};
pub use shards::process_address;
pub use status::{Condition, ConditionType, Health, MirrorState, Phase, PipelineStatus, RegionState, StatusInput, Truth, status};
