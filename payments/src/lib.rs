//! Labelled card payments: a seeded generator, CSV replay, an open-loop sender, and training data as served.
//!
//! [`generate`] and [`replay`] are pure: payments come out of a seed or out of text. [`send`] does network IO and measures;
//! [`training`] replays payments in arrival order through `scoring_core`, so that training sees what serving sees;
//! [`command`] is the command line. Labels stay on this side of the wire: no message of the API has a field for them.
#![forbid(unsafe_code)]

pub mod command;
pub mod generate;
pub mod replay;
pub mod send;
pub mod training;

pub use generate::{FraudType, Generator, LabelledPayment, Population, card_number, card_number_for};
