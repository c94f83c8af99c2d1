//! What a region runs: the spec with that region's overrides applied. Pure.

use crate::v1alpha1::{
    FraudPipelineSpec,
    common::{ContainerResources, PodTemplate, Replicas},
    region::{FeatureOverrides, RegionSpec, WorkloadOverrides},
};

/// The spec as it holds in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveRegionSpec {
    /// The region, as the manifest has it.
    pub region: RegionSpec,
    /// The spec with the region's overrides applied.
    pub spec: FraudPipelineSpec,
}

/// The manifest does not have the region that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "spec.regions has no region {name:?}, only {known}: add it to the manifest, or correct the value `region` of the operator's chart in this cluster"
)]
pub struct UnknownRegion {
    name: String,
    known: String,
}

impl FraudPipelineSpec {
    /// # Errors
    /// When the manifest has no region of that name.
    pub fn effective_for(&self, region: &str) -> Result<EffectiveRegionSpec, UnknownRegion> {
        let Some(found) = self.region(region) else {
            let known = self.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(UnknownRegion { name: region.chars().take(64).collect(), known });
        };
        let mut spec = self.clone();
        let overrides = found.overrides.clone().unwrap_or_default();
        if let Some(scoring) = overrides.scoring {
            let decision = &mut spec.scoring.decision;
            apply_workload(scoring.decision, &mut decision.replicas, &mut decision.resources, &mut decision.pod_template);
            let inference = &mut spec.scoring.inference;
            apply_workload(scoring.inference, &mut inference.replicas, &mut inference.resources, &mut inference.pod_template);
        }
        if let Some(FeatureOverrides { memory, storage_class_name }) = overrides.features {
            replace(&mut spec.features.memory, memory);
            spec.features.storage_class_name = storage_class_name.or(spec.features.storage_class_name);
        }
        Ok(EffectiveRegionSpec { region: found.clone(), spec })
    }
}

fn apply_workload(
    overrides: Option<WorkloadOverrides>,
    replicas: &mut Replicas,
    resources: &mut ContainerResources,
    pod_template: &mut PodTemplate,
) {
    // Destructured without `..`: a new override that is not applied does not compile.
    let Some(WorkloadOverrides { replicas: new_replicas, resources: new_resources, pod_template: new_template }) = overrides else {
        return;
    };
    replace(replicas, new_replicas);
    replace(resources, new_resources);
    replace(pod_template, new_template);
}

fn replace<T>(target: &mut T, new: Option<T>) {
    if let Some(new) = new {
        *target = new;
    }
}
