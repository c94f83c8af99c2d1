//! Taking a pipeline down: what has to be true first, and giving up what keeps the object.
//!
//! In the active region somebody has to confirm it, since payments are decided there. Volumes of write-ahead logs are
//! kept; everything else that is owned goes with the object. Other regions are not asked for anything.

use std::time::Duration;

use crds::{FraudPipeline, names};
use domain::{Plan, RegionName};
use jiff::Timestamp;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::register::PipelineKey;

/// In regions that are not active, an API server that refuses the last write keeps the object no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a deletion may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    NotAsked,
    /// It waits, and this is what to do.
    Waits(String),
    GoesOn,
}

/// Pure.
pub(crate) fn verdict(pipeline: &FraudPipeline, region: &RegionName, plan: Option<&Plan>) -> Verdict {
    if pipeline.metadata.deletion_timestamp.is_none() {
        return Verdict::NotAsked;
    }
    let Some(plan) = plan.filter(|plan| &plan.active_region == region) else { return Verdict::GoesOn };
    let confirmed: Option<u64> = pipeline.annotations().get(names::CONFIRM_DELETE_ANNOTATION).and_then(|epoch| epoch.trim().parse().ok());
    if confirmed == Some(plan.epoch.0) {
        return Verdict::GoesOn;
    }
    Verdict::Waits(format!(
        "{region} is active in epoch {epoch}, and payments are decided here. To delete the pipeline in this region: \
         kubectl annotate fraudpipeline {name} -n {namespace} --overwrite {annotation}={epoch}",
        epoch = plan.epoch,
        name = pipeline.name_any(),
        namespace = pipeline.namespace().unwrap_or_default(),
        annotation = names::CONFIRM_DELETE_ANNOTATION,
    ))
}

/// Whether the wait for a last write is over.
pub(crate) fn out_of_patience(pipeline: &FraudPipeline, now: Timestamp) -> bool {
    let asked = pipeline.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    asked.is_some_and(|asked| now.duration_since(asked).unsigned_abs() > PATIENCE && now > asked)
}

pub(crate) fn has_finalizer(pipeline: &FraudPipeline) -> bool {
    pipeline.finalizers().iter().any(|finalizer| finalizer == names::FINALIZER)
}

/// Keeps the object until the operator has let go of it.
///
/// # Errors
/// When the API server refuses it, or the object has changed since it was read.
pub(crate) async fn add_finalizer(client: &Client, key: &PipelineKey, pipeline: &FraudPipeline) -> kube::Result<()> {
    let mut finalizers = pipeline.finalizers().to_vec();
    finalizers.push(names::FINALIZER.to_owned());
    write_finalizers(client, key, pipeline, &finalizers).await
}

/// Lets the object go.
///
/// # Errors
/// When the API server refuses it, or the object has changed since it was read.
pub(crate) async fn remove_finalizer(client: &Client, key: &PipelineKey, pipeline: &FraudPipeline) -> kube::Result<()> {
    let finalizers: Vec<_> = pipeline.finalizers().iter().filter(|finalizer| *finalizer != names::FINALIZER).cloned().collect();
    match write_finalizers(client, key, pipeline, &finalizers).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        written => written,
    }
}

async fn write_finalizers(client: &Client, key: &PipelineKey, pipeline: &FraudPipeline, finalizers: &[String]) -> kube::Result<()> {
    let api: Api<FraudPipeline> = Api::namespaced(client.clone(), &key.namespace);
    // The version makes the API server refuse the write if somebody else changed the list meanwhile.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": pipeline.metadata.resource_version}});
    let parameters = PatchParams { field_manager: Some(names::FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    api.patch(&key.name, &parameters, &Patch::Merge(patch)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use operator_planner::{Observation, PlanInput, plan};

    use super::*;
    use crate::{facts, testing::example};

    fn first_plan() -> Plan {
        let spec = facts::of_spec("payments", "fraud", &example().spec).unwrap();
        let (region, seen) = (RegionName::new("us-east").unwrap(), Observation::nothing("test"));
        plan(&PlanInput { region: &region, spec: &spec, current: None, seen: &seen, newest_version: "0.1.0" }).plan.unwrap()
    }

    fn deleted(annotation: Option<&str>) -> FraudPipeline {
        let mut pipeline = example();
        pipeline.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        pipeline.metadata.annotations = annotation.map(|value| [(names::CONFIRM_DELETE_ANNOTATION.to_owned(), value.to_owned())].into());
        pipeline
    }

    fn in_region(name: &str, annotation: Option<&str>) -> Verdict {
        verdict(&deleted(annotation), &RegionName::new(name).unwrap(), Some(&first_plan()))
    }

    #[test]
    fn in_the_active_region_a_deletion_waits_until_its_epoch_is_confirmed() {
        let Verdict::Waits(why) = in_region("us-east", None) else { panic!("it did not wait") };
        assert!(why.contains("kubectl annotate fraudpipeline payments -n fraud") && why.contains("confirm-delete=1"), "{why}");
        assert!(matches!(in_region("us-east", Some("2")), Verdict::Waits(_)), "a confirmation of another epoch does not count");
        assert_eq!(in_region("us-east", Some("1")), Verdict::GoesOn);
    }

    #[test]
    fn elsewhere_and_before_a_plan_nothing_has_to_be_confirmed() {
        assert_eq!(in_region("eu-west", None), Verdict::GoesOn);
        assert_eq!(verdict(&deleted(None), &RegionName::new("us-east").unwrap(), None), Verdict::GoesOn);
        assert_eq!(verdict(&example(), &RegionName::new("us-east").unwrap(), Some(&first_plan())), Verdict::NotAsked);
    }

    #[test]
    fn patience_ends_after_a_minute() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(!out_of_patience(&deleted(None), at("2026-01-01T00:00:59Z")));
        assert!(out_of_patience(&deleted(None), at("2026-01-01T00:01:01Z")));
        assert!(!out_of_patience(&deleted(None), at("2025-01-01T00:00:00Z")));
    }
}
