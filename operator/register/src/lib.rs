//! The epoch register: one small replicated value, the plan, of which each region holds a cell.
//!
//! Three things are here, all pure: what a cell is ([`Cell`]), what an acceptor may do with its cell ([`prepare`],
//! [`accept`], [`commit`]), and what a proposer must do with the cells' answers ([`after_prepare`]). Whoever does the IO
//! reads a cell, calls a rule, writes the cell that it returns with a compare-and-swap, and answers only after that.
//!
//! Guarantees, for any order, loss and repetition of calls on one cell: a promise never goes back; a committed plan is
//! replaced only by one that descends from it (invariant I3), so committed epochs never go back (I1).
//!
//! A majority is always one of the voters that the cell names, never of those that happen to answer.
#![forbid(unsafe_code)]

mod acceptor;
mod cell;
mod proposer;

pub use acceptor::{Refusal, accept, commit, prepare};
pub use cell::{Cell, Proposal, Voter, Voters};
pub use proposer::{Answer, NextStep, NoMajority, after_prepare, next_ballot};
