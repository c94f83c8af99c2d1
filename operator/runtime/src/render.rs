//! What the operator would apply for a manifest in one region, without a cluster: for reviews and tests. Pure.

use crds::FraudPipeline;
use domain::RegionName;
use kube::ResourceExt;
use operator_planner::{Observation, PlanInput, plan, view_of};

use crate::{
    build::{self, BuildInput, ClusterFacts},
    config::Images,
    facts,
    kinds::{Desired, Owner},
};

/// Stands for the uid that the API server gives.
const NO_UID: &str = "00000000-0000-0000-0000-000000000000";

#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    #[error("the manifest is not a FraudPipeline: {0}")]
    Manifest(serde_yaml::Error),
    #[error(transparent)]
    Region(#[from] crds::UnknownRegion),
    #[error(transparent)]
    Spec(#[from] facts::InvalidSpec),
    #[error("nothing can be planned: {0}")]
    Plan(String),
    #[error("spec.{0}")]
    Build(#[from] build::BuildError),
    #[error("an object cannot be written as YAML: {0}")]
    Yaml(serde_yaml::Error),
}

/// All objects of a first plan, as YAML documents.
///
/// # Errors
/// When the manifest cannot be read, or does not have the region.
pub fn render(manifest: &str, region: &RegionName, version: &str, images: &Images) -> Result<String, RenderError> {
    let documents = objects(manifest, region, version, images)?;
    let texts: Result<Vec<_>, _> = documents.iter().map(|object| serde_yaml::to_string(&object.value)).collect();
    Ok(texts.map_err(RenderError::Yaml)?.join("---\n"))
}

/// As [`render`], as values.
///
/// # Errors
/// As [`render`].
pub fn objects(manifest: &str, region: &RegionName, version: &str, images: &Images) -> Result<Vec<Desired>, RenderError> {
    let pipeline: FraudPipeline = serde_yaml::from_str(manifest).map_err(RenderError::Manifest)?;
    let owner = Owner {
        name: pipeline.name_any(),
        namespace: pipeline.namespace().unwrap_or_else(|| "default".into()),
        uid: pipeline.uid().unwrap_or_else(|| NO_UID.into()),
    };
    let spec = facts::of_spec(&owner.name, &owner.namespace, &pipeline.spec)?;
    let effective = pipeline.spec.effective_for(region.as_str())?;
    let seen = Observation::nothing("nothing runs");
    let planned = plan(&PlanInput { region, spec: &spec, current: None, seen: &seen, newest_version: version });
    let Some(first) = planned.plan else {
        let reasons: Vec<_> = planned.report.reasons.iter().map(ToString::to_string).collect();
        return Err(RenderError::Plan(reasons.join("; ")));
    };
    let Some(view) = view_of(&first, region, &seen) else { return Ok(Vec::new()) };
    let input =
        BuildInput { owner: &owner, region, plan: &first, view: &view, effective: &effective, images, cluster: ClusterFacts::default() };
    let mut all = build::objects(&input)?;
    all.push(build::view_object(&owner, &view)?);
    Ok(all)
}
