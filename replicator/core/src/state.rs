//! What a mirror as a whole is doing. Pure.

use std::fmt;

use serde::Serialize;

/// Which of the two clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    Source,
    Target,
}

/// What keeps a mirror from working. It tries again by itself in every case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error("{} is unreachable: {why}", side.cluster())]
    Unreachable { side: Side, why: String },
    #[error("{} refused this mirror's user: {why}", side.cluster())]
    NotAuthorised { side: Side, why: String },
    #[error("{} refused a request: {why}", side.cluster())]
    Refused { side: Side, why: String },
    #[error("another mirror of the same origin has started and taken over: {why}")]
    Fenced { why: String },
    #[error("{0}")]
    OlderPlan(domain::OlderEpoch),
    #[error("the stored positions cannot be used: {0}")]
    Positions(String),
}

impl Side {
    fn cluster(self) -> &'static str {
        match self {
            Self::Source => "the origin's Kafka",
            Self::Target => "this region's Kafka",
        }
    }
}

/// One word for status, metrics and alerts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum LinkState {
    /// Nothing has been mirrored since the process started.
    Starting,
    Mirroring,
    /// Further behind than the objective, or how far is not known.
    Lagging,
    SourceUnreachable,
    SourceNotAuthorised,
    TargetUnreachable,
    TargetNotAuthorised,
    /// Another mirror of the same origin is at work.
    Fenced,
    /// This process follows a superseded plan.
    OlderPlan,
    /// A cluster refused what this mirror asks of it.
    Refused,
    /// At least one partition was given up until someone decides; the others go on.
    PartitionStopped,
}

impl LinkState {
    pub const ALL: &'static [Self] = &[
        Self::Starting,
        Self::Mirroring,
        Self::Lagging,
        Self::SourceUnreachable,
        Self::SourceNotAuthorised,
        Self::TargetUnreachable,
        Self::TargetNotAuthorised,
        Self::Fenced,
        Self::OlderPlan,
        Self::Refused,
        Self::PartitionStopped,
    ];

    /// Whether this region does its part. What the origin does, or has lost, is shown and is not this region's fault.
    pub fn is_ready(self) -> bool {
        !matches!(
            self,
            Self::Starting | Self::TargetUnreachable | Self::TargetNotAuthorised | Self::Fenced | Self::OlderPlan | Self::Refused
        )
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<&Trouble> for LinkState {
    fn from(trouble: &Trouble) -> Self {
        match trouble {
            Trouble::Unreachable { side: Side::Source, .. } => Self::SourceUnreachable,
            Trouble::Unreachable { side: Side::Target, .. } => Self::TargetUnreachable,
            Trouble::NotAuthorised { side: Side::Source, .. } => Self::SourceNotAuthorised,
            Trouble::NotAuthorised { side: Side::Target, .. } => Self::TargetNotAuthorised,
            Trouble::Refused { .. } | Trouble::Positions(_) => Self::Refused,
            Trouble::Fenced { .. } => Self::Fenced,
            Trouble::OlderPlan(_) => Self::OlderPlan,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_origin_does_not_make_this_region_unready() {
        let unreachable = |side| Trouble::Unreachable { side, why: "no route".into() };
        assert!(LinkState::from(&unreachable(Side::Source)).is_ready());
        assert!(!LinkState::from(&unreachable(Side::Target)).is_ready());
    }

    #[test]
    fn every_state_is_in_the_list_that_metrics_show() {
        for state in [LinkState::Starting, LinkState::PartitionStopped, LinkState::OlderPlan] {
            assert!(LinkState::ALL.contains(&state));
        }
        assert_eq!(LinkState::ALL.len(), 11);
    }
}
