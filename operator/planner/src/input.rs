//! What the manifest says, as far as the plan depends on it, and the plan that is committed.

use domain::{HostPort, ModelRef, PipelineName, Plan, RegionName};

/// What a region is for, by the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegionKind {
    DataPlane,
    Witness,
}

/// One region of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionFacts {
    pub name: RegionName,
    pub kind: RegionKind,
    /// The lowest is active when none is yet. Witnesses have none.
    pub preference: Option<u32>,
    /// How the other regions reach this region's shards, by shard.
    pub exposed: Vec<HostPort>,
    /// Addresses of this region's front door.
    pub ingress: Vec<String>,
}

/// An accepted manifest: everything in it has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecFacts {
    pub pipeline: PipelineName,
    pub namespace: String,
    /// In the canonical order, so that regions whose manifests list them differently make the same plan.
    pub regions: Vec<RegionFacts>,
    pub shards: u16,
    pub model: ModelRef,
    pub light_model: Option<ModelRef>,
    /// The version that the manifest asks for, if it asks for one.
    pub version: Option<String>,
    /// The canonical spec, which the plan pins.
    pub effective: serde_json::Value,
}

/// The committed plan with its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentPlan {
    pub plan: Plan,
    pub sha256: String,
}

/// All that [`crate::plan`] looks at.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// The region that plans.
    pub region: &'a RegionName,
    pub spec: &'a SpecFacts,
    pub current: Option<&'a CurrentPlan>,
    pub seen: &'a crate::Observation,
    /// The newest data-plane version that this operator has images for; a first plan uses it if the manifest names none.
    pub newest_version: &'a str,
}
