//! What an acceptor may do with its cell. Each rule takes the cell as it is stored and returns the cell to store.

use domain::{Ballot, Epoch, Revision};

use crate::{Cell, Proposal};

/// Why a cell stays as it is. A refusal is an answer: the proposer learns from it what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request is for voters of generation {asked}, this cell has generation {held}: read the cell and use its voters")]
    OtherVoters { asked: u64, held: u64 },
    #[error("ballot {asked} is below ballot {promised}, which is promised: prepare again with a higher ballot")]
    PromisedHigher { asked: Ballot, promised: Ballot },
    #[error("ballot {ballot} was used for another plan before: a ballot stands for one plan, use a new one")]
    BallotReused { ballot: Ballot },
    #[error(
        "epoch {epoch} revision {revision} is not newer than epoch {held_epoch} revision {held_revision}, which is committed: plan from the committed plan"
    )]
    NotNewer { epoch: Epoch, revision: Revision, held_epoch: Epoch, held_revision: Revision },
    #[error(
        "epoch {epoch} revision {revision} does not descend from the committed plan {held_sha256}: send the plans between them, or plan from the committed one"
    )]
    NotADescendant { epoch: Epoch, revision: Revision, held_sha256: String },
}

/// Promises to accept nothing below `ballot`. The same ballot again is the same promise.
///
/// # Errors
/// When a higher ballot is promised, or the voters are not those of the cell.
pub fn prepare(cell: &Cell, voters_generation: u64, ballot: &Ballot) -> Result<Cell, Refusal> {
    same_voters(cell, voters_generation)?;
    at_least_promised(cell, ballot)?;
    Ok(Cell { promised: Some(ballot.clone()), ..cell.clone() })
}

/// Accepts a plan under a ballot that is at least the one promised.
///
/// # Errors
/// When a higher ballot is promised, the ballot stands for another plan, the plan is not newer than the committed one,
/// or the voters are not those of the cell.
pub fn accept(cell: &Cell, voters_generation: u64, proposal: Proposal) -> Result<Cell, Refusal> {
    same_voters(cell, voters_generation)?;
    at_least_promised(cell, &proposal.ballot)?;
    ballot_is_new_or_same(cell, &proposal)?;
    if let Some(held) = &cell.committed
        && held.sha256() != proposal.sha256()
        && proposal.order() <= held.order()
    {
        return Err(not_newer(&proposal, held));
    }
    Ok(Cell { promised: Some(proposal.ballot.clone()), accepted: Some(proposal), ..cell.clone() })
}

/// Learns that a plan is committed. `between` holds the plans from the cell's committed one (exclusive) to this one
/// (exclusive), oldest first; a cell that missed none needs none.
///
/// # Errors
/// When the plan does not descend from the committed one, or the voters are not those of the cell. A plan that is
/// committed already is no error.
pub fn commit(cell: &Cell, voters_generation: u64, proposal: Proposal, between: &[Proposal]) -> Result<Cell, Refusal> {
    same_voters(cell, voters_generation)?;
    if let Some(held) = &cell.committed {
        if held.sha256() == proposal.sha256() {
            return Ok(cell.clone());
        }
        if proposal.order() <= held.order() {
            return Err(not_newer(&proposal, held));
        }
        if !descends(held, between, &proposal) {
            let (epoch, revision) = proposal.order();
            return Err(Refusal::NotADescendant { epoch, revision, held_sha256: held.sha256().to_owned() });
        }
    }
    let mut next = cell.clone();
    // A chosen plan counts as accepted: otherwise this cell would go on to offer an older one to proposers.
    if cell.accepted.as_ref().is_none_or(|accepted| accepted.ballot < proposal.ballot) {
        next.accepted = Some(proposal.clone());
        next.promised = Some(cell.promised.clone().map_or_else(|| proposal.ballot.clone(), |held| held.max(proposal.ballot.clone())));
    }
    next.committed = Some(proposal);
    Ok(next)
}

fn descends(held: &Proposal, between: &[Proposal], newest: &Proposal) -> bool {
    let mut parent = held;
    for next in between.iter().chain([newest]) {
        if !next.is_child_of(parent) {
            return false;
        }
        parent = next;
    }
    true
}

fn same_voters(cell: &Cell, asked: u64) -> Result<(), Refusal> {
    let held = cell.voters.generation;
    if asked == held { Ok(()) } else { Err(Refusal::OtherVoters { asked, held }) }
}

fn at_least_promised(cell: &Cell, asked: &Ballot) -> Result<(), Refusal> {
    match &cell.promised {
        Some(promised) if promised > asked => Err(Refusal::PromisedHigher { asked: asked.clone(), promised: promised.clone() }),
        _ => Ok(()),
    }
}

fn ballot_is_new_or_same(cell: &Cell, proposal: &Proposal) -> Result<(), Refusal> {
    match &cell.accepted {
        Some(accepted) if accepted.ballot == proposal.ballot && accepted.sha256() != proposal.sha256() => {
            Err(Refusal::BallotReused { ballot: proposal.ballot.clone() })
        }
        _ => Ok(()),
    }
}

fn not_newer(proposal: &Proposal, held: &Proposal) -> Refusal {
    let ((epoch, revision), (held_epoch, held_revision)) = (proposal.order(), held.order());
    Refusal::NotNewer { epoch, revision, held_epoch, held_revision }
}
