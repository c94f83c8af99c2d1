//! Kafka topic names of a pipeline. Mirrored topics are prefixed by the region of origin, so no log has two writers.

use crate::RegionName;

/// The topics that a pipeline writes in its own region, by suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// Every event, as accepted first.
    EventsRaw,
    /// Features as the builder folded them.
    Features,
    /// Decisions with the feature vector as served.
    Decisions,
    /// What turned out to be fraud, as far as it has been reported.
    Labels,
    /// Values loaded in batches.
    Profiles,
}

impl Topic {
    /// All topics that are mirrored between regions.
    pub const MIRRORED: &'static [Self] = &[Self::EventsRaw, Self::Features, Self::Decisions, Self::Labels, Self::Profiles];

    fn suffix(self) -> &'static str {
        match self {
            Self::EventsRaw => "events.raw",
            Self::Features => "features",
            Self::Decisions => "decisions",
            Self::Labels => "labels",
            Self::Profiles => "profiles",
        }
    }

    /// `fraud.events.raw` for the prefix `fraud`.
    pub fn local(self, prefix: &str) -> String {
        format!("{prefix}.{}", self.suffix())
    }

    /// `us-east.fraud.events.raw`: the copy, in another region, of what `origin` wrote.
    pub fn mirrored_from(self, origin: &RegionName, prefix: &str) -> String {
        mirrored_name(origin, &self.local(prefix))
    }
}

/// The name that a topic of `origin` has in every other region.
pub fn mirrored_name(origin: &RegionName, topic: &str) -> String {
    format!("{origin}.{topic}")
}

/// Where mirrors keep the next source offset per source partition; written inside the mirror's transactions.
pub fn mirror_positions(prefix: &str) -> String {
    format!("{prefix}.mirror.positions")
}

/// Where mirrors keep the exact map from source to target offsets.
pub fn mirror_runs(prefix: &str) -> String {
    format!("{prefix}.mirror.runs")
}

/// Where records go that no reader can understand, with their bytes as they were.
pub fn dead_letters(prefix: &str) -> String {
    format!("{prefix}.events.dead-letter")
}
