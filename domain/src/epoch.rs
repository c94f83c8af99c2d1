//! Fencing numbers: epochs, revisions and ballots.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::RegionName;

/// Rises by one with each change of the active region. Never a Kubernetes generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of the first plan of a pipeline.
    pub const FIRST: Self = Self(1);

    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Rises by one with any change of the plan inside an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Orders proposals for the register: by term, then region, then sequence number within that region.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ballot {
    pub term: u64,
    pub region: RegionName,
    pub seq: u64,
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.term, self.region, self.seq)
    }
}

/// What a receiver answers to a sender that acts on an epoch which has been superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "epoch {given} is older than epoch {highest}, which has been seen here: the sender acts on a superseded plan and must read the current one"
)]
pub struct OlderEpoch {
    pub given: Epoch,
    pub highest: Epoch,
}

/// The highest epoch that a receiver has seen (invariant I2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EpochGuard {
    highest: Epoch,
}

impl EpochGuard {
    pub fn new(highest: Epoch) -> Self {
        Self { highest }
    }

    pub fn highest(&self) -> Epoch {
        self.highest
    }

    /// Accepts the same or a higher epoch, and remembers it.
    ///
    /// # Errors
    /// When `given` is lower than the highest epoch seen.
    pub fn admit(&mut self, given: Epoch) -> Result<(), OlderEpoch> {
        if given < self.highest {
            return Err(OlderEpoch { given, highest: self.highest });
        }
        self.highest = given;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_has_seen_an_epoch_refuses_every_lower_one() {
        let mut guard = EpochGuard::default();
        guard.admit(Epoch(3)).unwrap();
        guard.admit(Epoch(3)).unwrap();
        assert_eq!(guard.admit(Epoch(2)), Err(OlderEpoch { given: Epoch(2), highest: Epoch(3) }));
        guard.admit(Epoch(4)).unwrap();
        assert_eq!(guard.highest(), Epoch(4));
    }

    #[test]
    fn ballots_order_by_term_before_region() {
        let ballot = |term, region: &str, seq| Ballot { term, region: RegionName::new(region).unwrap(), seq };
        assert!(ballot(2, "ap", 0) > ballot(1, "us", 9));
        assert!(ballot(2, "us", 0) > ballot(2, "ap", 9));
    }
}
