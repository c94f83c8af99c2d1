//! What was seen. Not atomic: each fact was true at some moment, and none is assumed to be true still.

use std::collections::BTreeMap;

use domain::{Epoch, HostPort, Known, PlanView, RegionName};

/// One Redis process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardFacts {
    pub role: ShardRole,
    /// The epoch written in it: none before it has been a primary, or a copy of one.
    pub epoch: Option<Epoch>,
    /// Whether it holds anything beside the epoch.
    pub holds_data: bool,
    /// How far it is in the stream of writes.
    pub offset: u64,
}

/// What a Redis process does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardRole {
    /// As every process starts: a replica of an address where nothing listens. Refuses writes and gives no copies.
    Nowhere,
    /// Takes writes.
    Primary,
    /// Takes no writes and gives copies: its data are being saved for the active region.
    Held,
    Following {
        upstream: HostPort,
        link: Link,
    },
}

impl ShardRole {
    /// In one bounded word, for metrics and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nowhere => "nowhere",
            Self::Primary => "primary",
            Self::Held => "held",
            Self::Following { .. } => "following",
        }
    }
}

/// A replica's connection to what it follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    Up,
    /// A full copy is under way.
    Syncing,
    Down,
}

/// The pipeline's topics in this region's Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicsState {
    Ready,
    /// These are missing or have too few partitions.
    Missing(Vec<String>),
    /// As `Missing`, and the manifest leaves the topics to the platform.
    MissingUnmanaged(Vec<String>),
}

/// A set of pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    Decision,
    Inference,
    Builder,
    /// The mirror of one other region's topics.
    Mirror(RegionName),
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decision => f.write_str("decision"),
            Self::Inference => f.write_str("inference"),
            Self::Builder => f.write_str("builder"),
            Self::Mirror(origin) => write!(f, "mirror of {origin}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workload {
    pub ready: u32,
    /// The fewest pods with which the component does its work.
    pub wanted: u32,
}

impl Workload {
    pub fn is_ready(self) -> bool {
        self.ready >= self.wanted
    }
}

/// All that one pass saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The plan view that this region's pods read; `None` if there is none.
    pub view: Known<Option<PlanView>>,
    pub topics: Known<TopicsState>,
    /// This region's shards, by index. A shard that is not in the list is unknown.
    pub shards: Vec<Known<ShardFacts>>,
    /// The other regions' copies of the shards, by index. Looked at only while a shard of this region is not settled;
    /// what was not looked at is unknown.
    pub copies: BTreeMap<RegionName, Vec<Known<ShardFacts>>>,
    pub components: BTreeMap<Component, Known<Workload>>,
}

impl Observation {
    /// Nothing was seen yet.
    pub fn nothing(why: &str) -> Self {
        Self {
            view: Known::unknown(why),
            topics: Known::unknown(why),
            shards: Vec::new(),
            copies: BTreeMap::new(),
            components: BTreeMap::new(),
        }
    }

    pub(crate) fn shard(&self, shard: u16) -> Result<&ShardFacts, String> {
        known(self.shards.get(usize::from(shard)))
    }

    pub(crate) fn copy(&self, region: &RegionName, shard: u16) -> Result<&ShardFacts, String> {
        known(self.copies.get(region).and_then(|copies| copies.get(usize::from(shard))))
    }
}

/// A fact that is fresh, or why there is none.
fn known<T>(fact: Option<&Known<T>>) -> Result<&T, String> {
    match fact {
        Some(Known::Fresh { value, .. }) => Ok(value),
        Some(Known::Stale { .. }) => Err("not seen lately".into()),
        Some(Known::Unknown { why }) => Err(why.clone()),
        None => Err("not looked at".into()),
    }
}
