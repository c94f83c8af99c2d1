//! What a proposer must do with the answers to its `prepare`.

use std::collections::BTreeSet;

use domain::{Ballot, RegionName};

use crate::{Cell, Proposal, Voter, Voters};

/// A voter that promised, with the cell that it promised from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub voter: Voter,
    pub cell: Cell,
}

/// What comes after a prepare that a majority answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextStep {
    /// Somebody's plan was accepted and may be committed: it is proposed again, unchanged, before anything is planned.
    FinishFirst(Box<Proposal>),
    /// A child of this plan may be proposed.
    PlanFrom(Box<Proposal>),
    /// Every voter said that it holds nothing: the first plan may be proposed.
    PlanTheFirst,
}

/// Nothing may be proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMajority {
    #[error("{answered} of {voters} voters answered, {needed} are needed")]
    TooFew { answered: usize, needed: usize, voters: usize },
    #[error("no voter that answered holds a plan, and {0:?} did not answer: the first plan needs every voter to say that it is empty")]
    NotAllEmpty(Vec<RegionName>),
}

/// # Errors
/// When too few of the named voters answered. Answers of others, or of a cell with another uid, do not count.
pub fn after_prepare(voters: &Voters, answers: &[Answer]) -> Result<NextStep, NoMajority> {
    let counted: Vec<&Answer> = answers.iter().filter(|answer| voters.members.contains(&answer.voter)).collect();
    let answered: BTreeSet<&Voter> = counted.iter().map(|answer| &answer.voter).collect();
    let needed = voters.majority();
    if answered.len() < needed {
        return Err(NoMajority::TooFew { answered: answered.len(), needed, voters: voters.members.len() });
    }
    let committed = counted.iter().filter_map(|answer| answer.cell.committed.as_ref()).max_by_key(|proposal| proposal.order());
    let accepted = counted.iter().filter_map(|answer| answer.cell.accepted.as_ref()).max_by_key(|proposal| &proposal.ballot);
    match (accepted, committed) {
        (Some(accepted), committed) if committed.is_none_or(|committed| accepted.order() > committed.order()) => {
            Ok(NextStep::FinishFirst(Box::new(accepted.clone())))
        }
        (_, Some(committed)) => Ok(NextStep::PlanFrom(Box::new(committed.clone()))),
        _ => all_empty(voters, &answered),
    }
}

fn all_empty(voters: &Voters, answered: &BTreeSet<&Voter>) -> Result<NextStep, NoMajority> {
    let silent: Vec<_> = voters.members.iter().filter(|voter| !answered.contains(voter)).map(|voter| voter.region.clone()).collect();
    if silent.is_empty() { Ok(NextStep::PlanTheFirst) } else { Err(NoMajority::NotAllEmpty(silent)) }
}

/// A ballot of `region` above everything that it has seen: within its own term, or in the next one.
#[must_use]
pub fn next_ballot(seen: Option<&Ballot>, region: &RegionName) -> Ballot {
    match seen {
        None => Ballot { term: 1, region: region.clone(), seq: 0 },
        Some(seen) if &seen.region == region => Ballot { term: seen.term, region: region.clone(), seq: seen.seq.saturating_add(1) },
        Some(seen) => Ballot { term: seen.term.saturating_add(1), region: region.clone(), seq: 0 },
    }
}
