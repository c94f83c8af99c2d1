//! The kinds of objects that a pipeline owns, and names and labels that they share. Pure.

use crds::names;
use k8s_openapi::{
    Resource,
    api::{
        apps::v1::{Deployment, StatefulSet},
        autoscaling::v2::HorizontalPodAutoscaler,
        batch::v1::CronJob,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::core::ApiResource;
use serde_json::{Value, json};

/// In the order in which they are applied: what others refer to comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    ServiceAccount,
    ConfigMap,
    Service,
    NetworkPolicy,
    PodDisruptionBudget,
    StatefulSet,
    Deployment,
    CronJob,
    HorizontalPodAutoscaler,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Service,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::StatefulSet,
        Self::Deployment,
        Self::CronJob,
        Self::HorizontalPodAutoscaler,
    ];

    pub fn api_resource(self) -> ApiResource {
        match self {
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::NetworkPolicy => ApiResource::erase::<NetworkPolicy>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::CronJob => ApiResource::erase::<CronJob>(&()),
            Self::HorizontalPodAutoscaler => ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceAccount => ServiceAccount::KIND,
            Self::ConfigMap => ConfigMap::KIND,
            Self::Service => Service::KIND,
            Self::NetworkPolicy => NetworkPolicy::KIND,
            Self::PodDisruptionBudget => PodDisruptionBudget::KIND,
            Self::StatefulSet => StatefulSet::KIND,
            Self::Deployment => Deployment::KIND,
            Self::CronJob => CronJob::KIND,
            Self::HorizontalPodAutoscaler => HorizontalPodAutoscaler::KIND,
        }
    }
}

/// An object as it should be, ready to be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Desired {
    pub kind: Kind,
    pub name: String,
    pub value: Value,
}

/// What an owned object belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub name: String,
    pub namespace: String,
    pub uid: String,
}

impl Owner {
    fn reference(&self) -> Value {
        json!({
            "apiVersion": names::API_VERSION,
            "kind": "FraudPipeline",
            "name": self.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}

/// Part of the pipeline; the last part of its objects' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Decision,
    Inference,
    Builder,
    Mirror,
    FeatureStore,
    Snapshot,
    /// What belongs to the pipeline as a whole.
    Plan,
}

impl Part {
    /// The value of the component label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Inference => "inference",
            Self::Builder => "builder",
            Self::Mirror => "mirror",
            Self::FeatureStore => "fs",
            Self::Snapshot => "snapshot",
            Self::Plan => "plan",
        }
    }
}

/// The labels by which a part's pods are found. They never change: selectors are immutable.
pub(crate) fn selector(pipeline: &str, part: Part) -> Value {
    json!({
        names::NAME_LABEL: names::NAME_LABEL_VALUE,
        names::INSTANCE_LABEL: pipeline,
        names::COMPONENT_LABEL: part.label(),
    })
}

/// The labels of every owned object. Those of the manifest are not copied: tools that prune by label would take owned
/// objects for their own.
pub(crate) fn labels(pipeline: &str, part: Part) -> Value {
    merged(selector(pipeline, part), json!({names::MANAGED_BY_LABEL: names::MANAGED_BY_LABEL_VALUE}))
}

/// An object of `kind` with its metadata; `fields` are the rest of it.
pub(crate) fn object(owner: &Owner, kind: Kind, name: String, labels: Value, fields: Value) -> Desired {
    let resource = kind.api_resource();
    let head = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": owner.namespace, "labels": labels, "ownerReferences": [owner.reference()]},
    });
    Desired { kind, name, value: merged(head, fields) }
}

/// `first` with the members of `second` added or replaced, one level deep.
pub(crate) fn merged(first: Value, second: Value) -> Value {
    match (first, second) {
        (Value::Object(mut first), Value::Object(second)) => {
            first.extend(second);
            Value::Object(first)
        }
        (_, second) => second,
    }
}
