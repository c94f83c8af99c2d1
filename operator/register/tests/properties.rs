//! Any order, loss and repetition of calls: promises and committed plans never go back, and no two plans are committed
//! for one epoch and revision.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Ballot, Epoch, FeaturePrimaries, ModelRef, PipelineName, Plan, RegionName, RegionRole, Revision, RoleOfRegion, SlotMap, Step,
};
use operator_register::{
    Answer, Cell, NextStep, NoMajority, Proposal, Refusal, Voter, Voters, accept, after_prepare, commit, next_ballot, prepare,
};
use proptest::prelude::*;

const REGIONS: [&str; 3] = ["ap-south", "eu-west", "us-east"];

fn region(index: usize) -> RegionName {
    RegionName::new(REGIONS[index]).unwrap()
}

fn ballot(term: u64, index: usize, seq: u64) -> Ballot {
    Ballot { term, region: region(index), seq }
}

fn plan(epoch: u64, revision: u64, parent: Option<&Proposal>, cause: &str) -> Plan {
    Plan {
        pipeline: PipelineName::new("payments").unwrap(),
        namespace: "fraud".into(),
        epoch: Epoch(epoch),
        revision: Revision(revision),
        active_region: region(0),
        roles: vec![RoleOfRegion { name: region(0), role: RegionRole::Active, ordinal: 0 }],
        step: Step::Steady,
        features: FeaturePrimaries {
            region: region(0),
            generation: 1,
            slots: SlotMap::even(1).unwrap(),
            exposed: BTreeMap::new(),
            seeded_shards: BTreeSet::new(),
        },
        dns_answer: vec![],
        model: ModelRef { uri: "s3://models/a.onnx".into(), sha256: "00".into() },
        light_model: None,
        data_plane_version: "0.1.0".into(),
        holds: vec![],
        effective_spec: serde_json::json!({}),
        cause: cause.into(),
        parent: parent.map(|parent| parent.sha256().to_owned()),
    }
}

fn proposal(ballot: Ballot, epoch: u64, revision: u64, parent: Option<&Proposal>, cause: &str) -> Proposal {
    Proposal::new(ballot, plan(epoch, revision, parent, cause).to_bytes().unwrap()).unwrap()
}

fn voters(count: usize) -> Voters {
    let members = (0..count).map(|index| Voter { region: region(index), cell_uid: format!("uid-{index}") }).collect();
    Voters { generation: 1, members }
}

fn empty_cell(count: usize) -> Cell {
    Cell { voters: voters(count), ..Cell::default() }
}

#[test]
fn a_promise_to_a_higher_ballot_refuses_lower_ones_for_ever() {
    let cell = prepare(&empty_cell(1), 1, &ballot(2, 0, 0)).unwrap();
    let refused = prepare(&cell, 1, &ballot(1, 2, 9)).unwrap_err();
    assert_eq!(refused, Refusal::PromisedHigher { asked: ballot(1, 2, 9), promised: ballot(2, 0, 0) });
    assert!(accept(&cell, 1, proposal(ballot(1, 2, 9), 1, 1, None, "x")).is_err());
    assert_eq!(prepare(&cell, 1, &ballot(2, 0, 0)).unwrap(), cell, "the same ballot again is the same promise");
}

#[test]
fn a_ballot_stands_for_one_plan() {
    let cell = accept(&empty_cell(1), 1, proposal(ballot(1, 0, 0), 1, 1, None, "x")).unwrap();
    assert!(matches!(accept(&cell, 1, proposal(ballot(1, 0, 0), 1, 1, None, "y")), Err(Refusal::BallotReused { .. })));
}

#[test]
fn a_cell_that_missed_plans_learns_only_with_the_plans_between() {
    let first = proposal(ballot(1, 0, 0), 1, 1, None, "first");
    let second = proposal(ballot(1, 0, 1), 1, 2, Some(&first), "second");
    let third = proposal(ballot(1, 0, 2), 2, 1, Some(&second), "third");
    let cell = commit(&empty_cell(1), 1, first, &[]).unwrap();
    assert!(matches!(commit(&cell, 1, third.clone(), &[]), Err(Refusal::NotADescendant { .. })));
    let caught_up = commit(&cell, 1, third.clone(), std::slice::from_ref(&second)).unwrap();
    assert_eq!(caught_up.committed, Some(third));
    assert!(matches!(commit(&caught_up, 1, second, &[]), Err(Refusal::NotNewer { .. })));
}

#[test]
fn a_cell_of_other_voters_abstains() {
    let refused = prepare(&empty_cell(1), 2, &ballot(9, 0, 0)).unwrap_err();
    assert_eq!(refused, Refusal::OtherVoters { asked: 2, held: 1 });
}

#[test]
fn a_majority_is_one_of_the_named_voters_and_not_of_those_who_answer() {
    let answer = |index: usize, uid: &str| Answer { voter: Voter { region: region(index), cell_uid: uid.into() }, cell: empty_cell(3) };
    let stranger = answer(1, "uid-of-a-new-cell");
    let twice = [answer(0, "uid-0"), answer(0, "uid-0"), stranger];
    assert_eq!(after_prepare(&voters(3), &twice), Err(NoMajority::TooFew { answered: 1, needed: 2, voters: 3 }));
}

#[test]
fn the_first_plan_needs_every_voter_to_be_empty() {
    let answers: Vec<_> = voters(3).members.into_iter().map(|voter| Answer { voter, cell: empty_cell(3) }).collect();
    assert_eq!(after_prepare(&voters(3), &answers[..2]), Err(NoMajority::NotAllEmpty(vec![region(2)])));
    assert_eq!(after_prepare(&voters(3), &answers), Ok(NextStep::PlanTheFirst));
}

#[test]
fn an_accepted_plan_is_finished_before_a_child_is_planned() {
    let first = proposal(ballot(1, 0, 0), 1, 1, None, "first");
    let mut answers: Vec<_> = voters(3).members.into_iter().map(|voter| Answer { voter, cell: empty_cell(3) }).collect();
    answers[1].cell = accept(&answers[1].cell, 1, first.clone()).unwrap();
    assert_eq!(after_prepare(&voters(3), &answers), Ok(NextStep::FinishFirst(Box::new(first.clone()))));
    answers[1].cell = commit(&answers[1].cell, 1, first.clone(), &[]).unwrap();
    assert_eq!(after_prepare(&voters(3), &answers), Ok(NextStep::PlanFrom(Box::new(first))));
}

#[test]
fn a_new_ballot_is_above_what_was_seen() {
    let seen = ballot(3, 2, 7);
    assert!(next_ballot(Some(&seen), &region(0)) > seen);
    assert_eq!(next_ballot(Some(&seen), &region(2)), ballot(3, 2, 8));
}

/// A call on one cell with arguments from a small world, so that collisions happen.
#[derive(Debug, Clone)]
enum Call {
    Prepare { term: u64, from: usize },
    Accept { term: u64, from: usize, plan: usize },
    Commit { term: u64, from: usize, plan: usize },
}

fn call() -> impl Strategy<Value = Call> {
    let who = (1..4u64, 0..3usize, 0..6usize);
    (0..3u8, who).prop_map(|(kind, (term, from, plan))| match kind {
        0 => Call::Prepare { term, from },
        1 => Call::Accept { term, from, plan },
        _ => Call::Commit { term, from, plan },
    })
}

/// A family of plans: two first ones, children of each, and a grandchild with a new epoch.
fn family() -> Vec<Proposal> {
    let under = |epoch, revision, parent: Option<&Proposal>, cause: &str| proposal(ballot(1, 0, 0), epoch, revision, parent, cause);
    let (a, b) = (under(1, 1, None, "a"), under(1, 1, None, "b"));
    let (aa, ab, ba) = (under(1, 2, Some(&a), "aa"), under(1, 2, Some(&a), "ab"), under(1, 2, Some(&b), "ba"));
    let aaa = under(2, 1, Some(&aa), "aaa");
    vec![a, b, aa, ab, ba, aaa]
}

proptest! {
    #[test]
    fn no_order_of_calls_takes_a_cell_back(calls in prop::collection::vec(call(), 1..40)) {
        let family = family();
        let under = |term: u64, from: usize, plan: usize| family[plan].clone().with_ballot(ballot(term, from, 0));
        let mut cell = empty_cell(1);
        for call in calls {
            let next = match call {
                Call::Prepare { term, from } => prepare(&cell, 1, &ballot(term, from, 0)),
                Call::Accept { term, from, plan } => accept(&cell, 1, under(term, from, plan)),
                Call::Commit { term, from, plan } => commit(&cell, 1, under(term, from, plan), &[]),
            };
            let Ok(next) = next else { continue };
            prop_assert!(next.promised >= cell.promised, "a promise went back");
            let ballot_of = |held: &Option<Proposal>| held.as_ref().map(|held| held.ballot.clone());
            prop_assert!(ballot_of(&next.accepted) >= ballot_of(&cell.accepted), "an acceptance went back");
            if let (Some(before), Some(after)) = (&cell.committed, &next.committed) {
                prop_assert!(before.sha256() == after.sha256() || after.is_child_of(before), "I3: not a descendant");
                prop_assert!(after.order() >= before.order(), "I1: an epoch went back");
            } else {
                prop_assert!(cell.committed.is_none(), "a committed plan was forgotten");
            }
            cell = next;
        }
    }

    /// Three cells, proposers that are cut off anywhere: each round reaches any subset of cells in each of its phases.
    #[test]
    fn rounds_that_are_cut_off_anywhere_never_commit_two_plans_for_one_place(
        rounds in prop::collection::vec((0..3usize, 0..8u8, 0..8u8, 0..8u8, any::<bool>()), 1..30)
    ) {
        let mut cells: Vec<Cell> = (0..3).map(|_| empty_cell(3)).collect();
        let mut chosen: BTreeMap<(Epoch, Revision), String> = BTreeMap::new();
        for (number, (from, prepared, accepted, committed, new_epoch)) in rounds.into_iter().enumerate() {
            let reached = |mask: u8, index: usize| mask & (1 << index) != 0;
            let highest = cells.iter().filter_map(|cell| cell.promised.clone()).max();
            let ballot = next_ballot(highest.as_ref(), &region(from));
            let mut answers = Vec::new();
            for index in (0..3).filter(|index| reached(prepared, *index)) {
                if let Ok(next) = prepare(&cells[index], 1, &ballot) {
                    cells[index] = next.clone();
                    answers.push(Answer { voter: voters(3).members[index].clone(), cell: next });
                }
            }
            let proposal = match after_prepare(&voters(3), &answers) {
                Ok(NextStep::FinishFirst(older)) => older.with_ballot(ballot.clone()),
                Ok(NextStep::PlanFrom(parent)) => {
                    let (epoch, revision) = parent.order();
                    let (epoch, revision) = if new_epoch { (epoch.next().0, 1) } else { (epoch.0, revision.next().0) };
                    proposal(ballot.clone(), epoch, revision, Some(&parent), &format!("round {number}"))
                }
                Ok(NextStep::PlanTheFirst) => proposal(ballot.clone(), 1, 1, None, &format!("round {number}")),
                Err(_) => continue,
            };
            let mut votes = 0;
            for index in (0..3).filter(|index| reached(accepted, *index)) {
                if let Ok(next) = accept(&cells[index], 1, proposal.clone()) {
                    cells[index] = next;
                    votes += 1;
                }
            }
            if votes < voters(3).majority() {
                continue;
            }
            let place = chosen.entry(proposal.order()).or_insert_with(|| proposal.sha256().to_owned());
            prop_assert_eq!(place.as_str(), proposal.sha256(), "I1: two plans were committed for one epoch and revision");
            for index in (0..3).filter(|index| reached(committed, *index)) {
                if let Ok(next) = commit(&cells[index], 1, proposal.clone(), &[]) {
                    cells[index] = next;
                }
            }
        }
    }
}
