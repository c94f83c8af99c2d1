//! The ConfigMap from which this region's pods read the plan. Not part of any pod template: pods reload it.

use domain::PlanView;
use serde_json::json;

use super::BuildError;
use crate::kinds::{Desired, Kind, Owner, Part, labels, object};

/// The key of the ConfigMap, and so the name of the file.
pub(crate) const PLAN_KEY: &str = "plan.yaml";

/// # Errors
/// Never for views that this program made.
pub(crate) fn plan_view(owner: &Owner, view: &PlanView) -> Result<Desired, BuildError> {
    let text = serde_yaml::to_string(view).map_err(|error| BuildError::new("plan", error))?;
    let name = format!("{}-plan", owner.name);
    Ok(object(owner, Kind::ConfigMap, name, labels(&owner.name, Part::Plan), json!({"data": {PLAN_KEY: text}})))
}
