//! Rules of the risk team: CEL expressions before and after the score.
//!
//! A set is loaded as a whole or not at all: every expression compiles, names only known variables, stays within the
//! size limits, and passes its own tests. Then it replaces the set before it in one step; a set that does not load
//! leaves the last good one in use, and answers say so.
//!
//! [`set`], [`check`], [`facts`] and [`file`] are pure; [`watch`] reads the file.

mod check;
mod facts;
mod file;
mod set;
mod watch;

pub use facts::{Facts, FeatureNames, VARIABLES};
pub use file::{Action, Phase, RULES_BYTES_MAX};
pub use set::{Hits, RuleSet, RulesError};
pub use watch::{ActiveRules, RulesWatch};

/// The file of rules inside a ConfigMap manifest, as `kubectl apply` takes it.
pub const CONFIG_MAP_KEY: &str = "rules.yaml";
