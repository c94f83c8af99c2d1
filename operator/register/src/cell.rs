//! What a region has promised, accepted and knows to be committed.

use domain::{Ballot, Epoch, PlanBytes, PlanError, RegionName, Revision};

/// A voting cell. A cell that was made anew has another uid and is another voter: it has forgotten what it promised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Voter {
    pub region: RegionName,
    pub cell_uid: String,
}

/// Who votes, in which generation of voters.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Voters {
    pub generation: u64,
    pub members: Vec<Voter>,
}

impl Voters {
    /// More than half of the members, whether they answer or not.
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }
}

/// A plan under a ballot. The parts that the rules need are read once, from the plan's own bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    pub ballot: Ballot,
    plan: PlanBytes,
    epoch: Epoch,
    revision: Revision,
    parent: Option<String>,
}

impl Proposal {
    /// # Errors
    /// When the bytes are not a plan that this version understands: what cannot be read is not voted for.
    pub fn new(ballot: Ballot, plan: PlanBytes) -> Result<Self, PlanError> {
        let decoded = plan.decode()?;
        Ok(Self { ballot, plan, epoch: decoded.epoch, revision: decoded.revision, parent: decoded.parent })
    }

    /// The same plan, unchanged, proposed again under another ballot.
    #[must_use]
    pub fn with_ballot(self, ballot: Ballot) -> Self {
        Self { ballot, ..self }
    }

    pub fn plan(&self) -> &PlanBytes {
        &self.plan
    }

    pub fn sha256(&self) -> &str {
        self.plan.sha256()
    }

    /// Plans order by epoch, then revision.
    pub fn order(&self) -> (Epoch, Revision) {
        (self.epoch, self.revision)
    }

    /// Whether this plan was made from `older`, and is newer.
    pub fn is_child_of(&self, older: &Self) -> bool {
        self.parent.as_deref() == Some(older.sha256()) && self.order() > older.order()
    }
}

/// One region's part of the register.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cell {
    pub voters: Voters,
    pub promised: Option<Ballot>,
    pub accepted: Option<Proposal>,
    pub committed: Option<Proposal>,
    /// The acceptor process that may grant leases.
    pub incarnation: Option<String>,
}
