//! Headers of Kafka records.

use std::{fmt, str::FromStr};

/// The epoch that the producer acted on, in decimal.
pub const EPOCH: &str = "fp-epoch";
/// The region whose process produced the record first.
pub const ORIGIN: &str = "fp-origin";
/// Where a mirrored record came from: see [`Source`].
pub const SOURCE: &str = "fp-src";
/// Marks a record of an event log as a heartbeat, which is no event. Its value is the version of the heartbeat's meaning.
pub const HEARTBEAT: &str = "fp-heartbeat";

/// The coordinates of a record in the log in which it was first written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub cluster_id: String,
    pub topic_id: String,
    pub partition: i32,
    pub offset: i64,
}

/// A `fp-src` header that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header fp-src is not CLUSTER/TOPIC-ID/PARTITION/OFFSET with a partition and an offset of 0 or more")]
pub struct UnreadableSource;

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}/{}", self.cluster_id, self.topic_id, self.partition, self.offset)
    }
}

impl FromStr for Source {
    type Err = UnreadableSource;

    fn from_str(text: &str) -> Result<Self, UnreadableSource> {
        if text.len() > 200 {
            return Err(UnreadableSource);
        }
        let mut parts = text.split('/');
        let mut next = || parts.next().filter(|part| !part.is_empty()).ok_or(UnreadableSource);
        let (cluster_id, topic_id) = (next()?.to_owned(), next()?.to_owned());
        let partition: i32 = next()?.parse().map_err(|_| UnreadableSource)?;
        let offset: i64 = next()?.parse().map_err(|_| UnreadableSource)?;
        if parts.next().is_some() || partition < 0 || offset < 0 {
            return Err(UnreadableSource);
        }
        Ok(Self { cluster_id, topic_id, partition, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_reads_back_what_it_wrote() {
        let source = Source { cluster_id: "MkU3".into(), topic_id: "x_9-A".into(), partition: 3, offset: 41 };
        assert_eq!(source.to_string().parse(), Ok(source));
    }

    #[test]
    fn a_damaged_source_is_refused() {
        for bad in ["", "a/b/1", "a/b/1/2/3", "a//1/2", "a/b/-1/2", "a/b/1/-2", "a/b/x/2", &"a".repeat(300)] {
            assert_eq!(bad.parse::<Source>(), Err(UnreadableSource), "{bad}");
        }
    }
}
