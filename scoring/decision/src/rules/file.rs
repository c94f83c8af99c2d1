//! The text of a rule file, and its limits. Pure.

use std::collections::BTreeMap;

use scoring_core::decide::{RuleAction, Verdict};
use serde::Deserialize;

pub const RULES_BYTES_MAX: usize = 256 * 1024;
pub(super) const RULES_MAX: usize = 200;
pub(super) const TESTS_MAX: usize = 50;
pub(super) const ID_LENGTH_MAX: usize = 63;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFile {
    pub(super) rules: Vec<RuleText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RuleText {
    pub(super) id: String,
    /// For people; not used.
    #[serde(default)]
    #[allow(dead_code)]
    pub(super) description: String,
    pub(super) phase: Phase,
    /// A CEL expression that is true or false.
    pub(super) when: String,
    #[serde(with = "serde_yaml::with::singleton_map")]
    pub(super) action: Action,
    /// The highest priority among the rules that fire decides.
    #[serde(default)]
    pub(super) priority: i32,
    #[serde(default)]
    pub(super) on_missing: OnMissing,
    pub(super) tests: Vec<TestText>,
}

/// Whether a rule is asked before or after the score is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    Before,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// These three outrank the score: see `scoring_core::decide`.
    Decline,
    Review,
    Approve,
    /// Adds to the score, in log-odds.
    Adjust(Adjust),
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adjust {
    pub by: f64,
}

impl Action {
    pub(super) fn of_core(self) -> RuleAction {
        match self {
            Self::Decline => RuleAction::Set(Verdict::Decline),
            Self::Review => RuleAction::Set(Verdict::Review),
            Self::Approve => RuleAction::Set(Verdict::Approve),
            Self::Adjust(Adjust { by }) => RuleAction::Adjust(by),
        }
    }
}

/// What a rule does when something that its expression needs is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum OnMissing {
    /// As if the rule did not fire.
    #[default]
    Skip,
    /// As if it fired with the action review.
    Review,
}

/// One case of a rule: what is given, and whether the expression must then be true.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestText {
    pub(super) given: Given,
    pub(super) expect: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Given {
    pub(super) amount: Option<f64>,
    pub(super) currency: String,
    pub(super) channel: String,
    pub(super) card_entry: String,
    pub(super) card_country: String,
    pub(super) ip_country: String,
    pub(super) billing_country: String,
    pub(super) merchant_id: String,
    pub(super) merchant_category: u32,
    pub(super) merchant_country: String,
    pub(super) bin8: String,
    pub(super) email_domain: String,
    pub(super) ip_prefix: String,
    pub(super) score: Option<f64>,
    pub(super) features: BTreeMap<String, f32>,
}
