//! What a pipeline owns in this region, as values: manifest and plan in, objects out. One file for each part.
//!
//! Pure: the same input gives the same objects, byte for byte. What an object must not say is left out, so that whoever
//! owns that field (the autoscaler the number of pods, the API server its defaults) goes on owning it.

mod builder;
mod decision;
mod features;
mod files;
mod inference;
mod mirror;
mod network;
mod plan_view;
mod pod;
mod scaling;
mod snapshots;

use crds::EffectiveRegionSpec;
use domain::{Plan, PlanView, RegionName, RegionRole};
use sha2::{Digest, Sha256};

use crate::{
    config::Images,
    kinds::{Desired, Owner},
};

pub(crate) use features::{backlog_bytes, process_count};
pub(crate) use plan_view::{PLAN_KEY, plan_view};

/// What the cluster offers, as far as objects depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ClusterFacts {
    /// It serves `custom.metrics.k8s.io`, so autoscalers may also follow the latency of requests.
    pub custom_metrics: bool,
}

/// All that objects are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BuildInput<'a> {
    pub owner: &'a Owner,
    pub region: &'a RegionName,
    pub plan: &'a Plan,
    /// What pods are told of it: Services lead to the processes that it names.
    pub view: &'a PlanView,
    /// The spec that the plan pins, as it holds in this region.
    pub effective: &'a EffectiveRegionSpec,
    pub images: &'a Images,
    pub cluster: ClusterFacts,
}

/// A value of the manifest that the API server should have refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct BuildError {
    pub field: String,
    pub problem: String,
}

impl BuildError {
    fn new(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self { field: field.into(), problem: problem.to_string() }
    }
}

/// Every object that this region should have, in the order in which they are applied. Nothing for a witness.
///
/// # Errors
/// When a value of the manifest cannot be used; then nothing is applied, and what runs stays.
pub(crate) fn objects(input: &BuildInput<'_>) -> Result<Vec<Desired>, BuildError> {
    if input.plan.role_of(input.region).is_none_or(|role| role == RegionRole::Witness) {
        return Ok(Vec::new());
    }
    let mut all = network::policies(input);
    all.extend(features::objects(input)?);
    all.extend(inference::objects(input)?);
    all.extend(builder::objects(input)?);
    all.extend(mirror::objects(input)?);
    all.extend(decision::objects(input)?);
    all.extend(snapshots::objects(input)?);
    all.sort_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
    Ok(all)
}

/// The view's object, as [`objects`] would be written beside it.
pub(crate) fn view_object(owner: &Owner, view: &PlanView) -> Result<Desired, BuildError> {
    plan_view(owner, view)
}

impl BuildInput<'_> {
    fn pipeline(&self) -> &str {
        &self.owner.name
    }

    /// `payments-decision`.
    fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.owner.name)
    }

    /// `payments-fs-g1`.
    fn store_name(&self) -> String {
        format!("{}-fs-g{}", self.owner.name, self.plan.features.generation)
    }

    /// The other regions that have a data plane, with the number that each keeps.
    fn other_regions(&self) -> impl Iterator<Item = (&RegionName, u8)> {
        let running = self.plan.roles.iter().filter(|entry| entry.role != RegionRole::Witness && &entry.name != self.region);
        running.map(|entry| (&entry.name, entry.ordinal))
    }
}

/// Identifies the configuration that pods were started with.
fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))[..16].to_owned()
}
