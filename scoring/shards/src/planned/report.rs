//! What a planned promotion came to.

use domain::{Epoch, HostPort};
use serde::Serialize;

/// One shard that moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub shard: u16,
    /// The primary, as we reach it.
    pub old: HostPort,
    /// Its copy, as we reach it.
    pub new: HostPort,
    /// The copy, as the old primary will reach it.
    pub new_from_old: HostPort,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedReport {
    pub epoch: Epoch,
    pub outcome: Outcome,
    /// From before the first shard was paused until after the last one was writable: by our clock, so a round trip's
    /// first half longer than it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub write_gap_ms_max: Option<f64>,
    pub shards: Vec<ShardReport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// All shards have moved, and what they moved from are copies now.
    Promoted,
    /// No shard has moved, and everything is as it was.
    Aborted,
    /// Something is left to do: each shard's problems say what.
    Unfinished,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardReport {
    pub shard: u16,
    pub old: HostPort,
    pub new: HostPort,
    pub state: ShardState,
    /// Where the old primary's stream ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    pub timings: Timings,
    /// Counted by the new primary while the old one came back.
    pub partial_resyncs: u64,
    pub full_resyncs: u64,
    /// A rule forbade it, such as a newer epoch, before anything was touched.
    pub refused: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ShardState {
    /// As it was, possibly after a pause.
    Unchanged,
    /// The old primary refuses writes, and the new one is not known to be promoted. Run it again.
    Fenced,
    /// The new primary takes writes; the old one refuses them and is not known to follow.
    Promoted,
    /// The new primary takes writes and the old one follows it.
    Rejoined,
}

/// In milliseconds, from the first command of a step to its last answer.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timings {
    pub pause_ms: f64,
    pub catch_up_ms: f64,
    pub promote_ms: f64,
    pub repoint_ms: f64,
    pub rejoin_ms: f64,
    /// From before this shard was paused until it was writable.
    pub paused_to_writable_ms: f64,
}

impl ShardReport {
    pub(crate) fn new(pair: &Pair) -> Self {
        Self {
            shard: pair.shard,
            old: pair.old.clone(),
            new: pair.new.clone(),
            state: ShardState::Unchanged,
            offset: None,
            timings: Timings::default(),
            partial_resyncs: 0,
            full_resyncs: 0,
            refused: false,
            problems: Vec::new(),
        }
    }
}

impl PlannedReport {
    /// Whether a rule forbade it, such as a newer epoch, before anything was touched.
    pub fn refused(&self) -> bool {
        self.outcome == Outcome::Aborted && self.shards.iter().any(|shard| shard.refused)
    }

    pub(crate) fn of(epoch: Epoch, shards: Vec<ShardReport>, write_gap_ms_max: Option<f64>) -> Self {
        let all = |state| shards.iter().all(|shard| shard.state == state);
        let outcome = if all(ShardState::Rejoined) {
            Outcome::Promoted
        } else if all(ShardState::Unchanged) {
            Outcome::Aborted
        } else {
            Outcome::Unfinished
        };
        Self { epoch, outcome, write_gap_ms_max, shards }
    }
}
