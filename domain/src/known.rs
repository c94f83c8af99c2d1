//! Ignorance is a value: a fact that was not measured is never taken for good, and never for zero.

use serde::{Deserialize, Serialize};

/// A fact with what is known about it. Times are milliseconds of the observer's own monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum Known<T> {
    Fresh {
        value: T,
        seen_at_ms: u64,
    },
    /// Was known, and is older than the observer allows for this kind of fact.
    Stale {
        value: T,
        seen_at_ms: u64,
    },
    Unknown {
        why: String,
    },
}

impl<T> Known<T> {
    pub fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown { why: why.into() }
    }

    /// The value only if it is fresh.
    pub fn fresh(&self) -> Option<&T> {
        match self {
            Self::Fresh { value, .. } => Some(value),
            Self::Stale { .. } | Self::Unknown { .. } => None,
        }
    }

    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Known<U> {
        match self {
            Self::Fresh { value, seen_at_ms } => Known::Fresh { value: f(value), seen_at_ms },
            Self::Stale { value, seen_at_ms } => Known::Stale { value: f(value), seen_at_ms },
            Self::Unknown { why } => Known::Unknown { why },
        }
    }
}

/// How far a copy is behind its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    pub records: u64,
    pub lag_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fresh_fact_counts() {
        assert_eq!(Known::Fresh { value: 1, seen_at_ms: 5 }.fresh(), Some(&1));
        assert_eq!(Known::Stale { value: 1, seen_at_ms: 5 }.fresh(), None);
        assert_eq!(Known::<u8>::unknown("no answer").fresh(), None);
    }
}
