//! Logs and how far they have been folded. No IO.

use std::{collections::BTreeMap, fmt, str::FromStr};

use scoring_core::{event::Event, profile::ProfileRecord};

/// A partition of a log, by names that no other log has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPartition {
    pub cluster_id: String,
    /// What identifies the topic in its cluster.
    pub topic: String,
    pub partition: i32,
}

impl fmt::Display for LogPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.cluster_id, self.topic, self.partition)
    }
}

impl FromStr for LogPartition {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '/');
        let (cluster_id, topic, partition) = (parts.next().ok_or(())?, parts.next().ok_or(())?, parts.next().ok_or(())?);
        let partition = partition.parse().map_err(|_| ())?;
        Ok(Self { cluster_id: cluster_id.to_owned(), topic: topic.to_owned(), partition })
    }
}

/// The next offset to fold of each log partition.
pub type Positions = BTreeMap<LogPartition, i64>;

/// What is to be folded of one partition: everything in it from `from` up to `next`.
///
/// Each shard takes the events that it has not folded yet, by their offsets: a part may be folded again, and shards may stand
/// at different positions.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LogPart {
    /// Where the part begins: a shard that has not folded up to here has gone back, and would miss what is before. `None`
    /// where nothing before it is needed, as at the beginning of a log; then a shard may not know the partition at all.
    pub from: Option<i64>,
    /// The offset behind the part's last record.
    pub next: i64,
    /// With their offsets, in any order.
    pub events: Vec<(i64, Event)>,
    /// What batch jobs say of users and cards, with offsets.
    pub profiles: Vec<(i64, ProfileRecord)>,
}

/// A batch. Offsets are those of the log in which a record was first written: a mirrored record stands under its origin.
pub type LogParts = BTreeMap<LogPartition, LogPart>;

/// Up to where all have folded. A partition that one of them does not know is left out, because that one needs all of it.
pub(crate) fn minimum(vectors: Vec<Positions>) -> Positions {
    let mut vectors = vectors.into_iter();
    let Some(first) = vectors.next() else { return Positions::new() };
    vectors.fold(first, |least, vector| {
        least.into_iter().filter_map(|(partition, next)| vector.get(&partition).map(|other| (partition, next.min(*other)))).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(entries: &[(&str, i64)]) -> Positions {
        entries.iter().map(|(partition, next)| (partition.parse().unwrap(), *next)).collect()
    }

    #[test]
    fn a_partition_is_resumed_where_the_shard_that_is_furthest_behind_stands() {
        let vectors = vec![positions(&[("c/t/0", 10), ("c/t/1", 5)]), positions(&[("c/t/0", 7), ("c/t/1", 9)])];
        assert_eq!(minimum(vectors), positions(&[("c/t/0", 7), ("c/t/1", 5)]));
        assert_eq!(minimum(vec![positions(&[("c/t/0", 10)]), positions(&[])]), positions(&[]));
    }

    #[test]
    fn a_log_partition_reads_back_and_damage_is_refused() {
        let partition = LogPartition { cluster_id: "MkU3".into(), topic: "fraud.events.raw".into(), partition: 3 };
        assert_eq!(partition.to_string().parse(), Ok(partition));
        for bad in ["", "a/b", "a/b/c", "a/b/1/2"] {
            assert_eq!(bad.parse::<LogPartition>(), Err(()), "{bad}");
        }
    }
}
