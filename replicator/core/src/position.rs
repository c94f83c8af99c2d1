//! Positions as they are stored in the target: one record per source partition, compacted by key. Pure.

use std::{collections::BTreeMap, fmt, str::FromStr};

use domain::{Epoch, EpochGuard, OlderEpoch};
use serde::{Deserialize, Serialize};

/// Larger than any position that this program writes.
const BYTES_MAX: usize = 1024;

/// A source partition, whichever mirror copies it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PositionKey {
    /// Of the origin's cluster. Another cluster under the same address has other positions.
    pub cluster_id: String,
    pub topic: String,
    pub partition: i32,
}

/// A record in the positions topic that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnreadablePosition {
    #[error("key of a position is not CLUSTER/TOPIC/PARTITION")]
    Key,
    #[error("value of a position cannot be read: {0}")]
    Value(String),
}

impl fmt::Display for PositionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster_id, self.topic, self.partition)
    }
}

impl FromStr for PositionKey {
    type Err = UnreadablePosition;

    fn from_str(text: &str) -> Result<Self, UnreadablePosition> {
        let mut parts = text.split('/');
        let (Some(cluster_id), Some(topic), Some(partition), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(UnreadablePosition::Key);
        };
        let partition = partition.parse().ok().filter(|partition| *partition >= 0).ok_or(UnreadablePosition::Key)?;
        if cluster_id.is_empty() || topic.is_empty() || text.len() > BYTES_MAX {
            return Err(UnreadablePosition::Key);
        }
        Ok(Self { cluster_id: cluster_id.to_owned(), topic: topic.to_owned(), partition })
    }
}

/// How far a source partition is mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The next source offset to copy: everything below it is in the target.
    pub next: i64,
    /// The epoch that the mirror acted on.
    pub epoch: Epoch,
}

impl Position {
    /// As it is stored: JSON, so that it can be read with Kafka's own tools in the night.
    pub fn to_json(self) -> String {
        format!("{{\"next\":{},\"epoch\":{}}}", self.next, self.epoch)
    }

    /// # Errors
    /// When the bytes are not a position. Fields that later versions add are passed over.
    pub fn from_json(bytes: &[u8]) -> Result<Self, UnreadablePosition> {
        let wrong = |why: &str| UnreadablePosition::Value(why.to_owned());
        if bytes.len() > BYTES_MAX {
            return Err(wrong("it is too large"));
        }
        let position: Self = serde_json::from_slice(bytes).map_err(|error| wrong(&error.to_string()))?;
        if position.next < 0 { Err(wrong("its offset is negative")) } else { Ok(position) }
    }
}

/// All positions of one origin cluster, as read at the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Positions {
    by_partition: BTreeMap<(String, i32), Position>,
    guard: EpochGuard,
}

impl Positions {
    /// Takes in one stored position. Of two for the same partition the further one counts: positions never go back.
    pub fn insert(&mut self, key: PositionKey, position: Position) {
        let known = self.by_partition.entry((key.topic, key.partition)).or_insert(position);
        if position.next > known.next {
            *known = position;
        }
        if position.epoch > self.guard.highest() {
            self.guard = EpochGuard::new(position.epoch);
        }
    }

    pub fn get(&self, topic: &str, partition: i32) -> Option<Position> {
        self.by_partition.get(&(topic.to_owned(), partition)).copied()
    }

    pub fn len(&self) -> usize {
        self.by_partition.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_partition.is_empty()
    }

    /// # Errors
    /// When another mirror has acted on a later epoch: this one follows a superseded plan and must not write.
    pub fn admit(&self, epoch: Epoch) -> Result<(), OlderEpoch> {
        // On a copy: what this mirror is given is no evidence of what others have seen.
        let mut guard = self.guard;
        guard.admit(epoch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(partition: i32) -> PositionKey {
        PositionKey { cluster_id: "MkU3".into(), topic: "fraud.events.raw".into(), partition }
    }

    proptest! {
        #[test]
        fn a_position_reads_back_what_was_written(partition in 0..i32::MAX, next in 0..i64::MAX, epoch in any::<u64>()) {
            let position = Position { next, epoch: Epoch(epoch) };
            prop_assert_eq!(key(partition).to_string().parse(), Ok(key(partition)));
            prop_assert_eq!(Position::from_json(position.to_json().as_bytes()), Ok(position));
        }

        #[test]
        fn whatever_is_stored_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in ".{0,64}") {
            let _ = Position::from_json(&bytes);
            let _ = text.parse::<PositionKey>();
        }
    }

    #[test]
    fn damaged_records_are_refused_and_later_fields_are_passed_over() {
        for bad in ["", "a/b", "a/b/c", "a/b/-1", "/b/1", "a//1", "a/b/1/2"] {
            assert!(bad.parse::<PositionKey>().is_err(), "{bad}");
        }
        for bad in ["", "{}", "{\"next\":-1,\"epoch\":1}", "{\"next\":1}", "[1]"] {
            assert!(Position::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
        let later = Position::from_json(br#"{"next":7,"epoch":2,"leader_epoch":3}"#);
        assert_eq!(later, Ok(Position { next: 7, epoch: Epoch(2) }));
    }

    #[test]
    fn the_furthest_position_counts_in_whatever_order_they_are_read() {
        let mut positions = Positions::default();
        for (next, epoch) in [(5, 1), (9, 2), (7, 2)] {
            positions.insert(key(0), Position { next, epoch: Epoch(epoch) });
        }
        assert_eq!(positions.get("fraud.events.raw", 0).unwrap().next, 9);
        assert_eq!(positions.get("fraud.events.raw", 1), None);
    }

    #[test]
    fn a_mirror_with_an_older_plan_must_not_write() {
        let mut positions = Positions::default();
        assert!(positions.admit(Epoch(1)).is_ok());
        positions.insert(key(0), Position { next: 5, epoch: Epoch(4) });
        assert!(positions.admit(Epoch(3)).is_err());
        assert!(positions.admit(Epoch(4)).is_ok());
    }
}
