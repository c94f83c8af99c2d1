//! What ends a pass early: one variant for each stage. That something has to wait is no error; it is in the report.

use operator_planner::Finding;

use crate::{observe::InputError, register::RegisterError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("observe: {0}")]
    ObservePlan(RegisterError),
    #[error("observe: {0}")]
    ObserveInputs(#[from] InputError),
    #[error("plan: the plan would be wrong and is not committed: {}", .0.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>().join("; "))]
    Plan(Vec<Finding>),
    #[error("plan: the committed plan cannot be carried out: {0}")]
    Unusable(String),
    #[error("commit: {0}")]
    Commit(RegisterError),
    #[error("report: {0}")]
    Report(kube::Error),
    #[error("delete: {0}")]
    Delete(RegisterError),
    #[error("finalizer: {0}")]
    Finalizer(kube::Error),
}

impl Error {
    /// The stage, for metrics and events.
    pub(crate) fn stage(&self) -> &'static str {
        match self {
            Self::ObservePlan(_) | Self::ObserveInputs(_) => "observe",
            Self::Plan(_) | Self::Unusable(_) => "plan",
            Self::Commit(_) => "commit",
            Self::Report(_) => "report",
            Self::Delete(_) | Self::Finalizer(_) => "delete",
        }
    }

    /// Whether only two writers met, which the next pass settles.
    pub(crate) fn is_race(&self) -> bool {
        matches!(self, Self::ObservePlan(RegisterError::Raced) | Self::Commit(RegisterError::Raced | RegisterError::NotFromCommitted))
    }
}

/// An error with its causes, on one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // Some errors quote their cause already.
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}
