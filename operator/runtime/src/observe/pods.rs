//! How many pods of each component are ready, from the cache.

use std::collections::BTreeMap;

use crds::{EffectiveRegionSpec, common::Replicas, scoring::EngineType};
use domain::{Known, Plan, RegionRole};
use operator_planner::{Component, Workload};
use serde_json::Value;

use super::Observer;
use crate::kinds::{Kind, Owner};

pub(super) fn look(
    observer: &Observer,
    owner: &Owner,
    plan: &Plan,
    effective: &EffectiveRegionSpec,
) -> BTreeMap<Component, Known<Workload>> {
    let at_least = |replicas: &Replicas| u32::try_from(replicas.min).unwrap_or(1);
    let scoring = &effective.spec.scoring;
    let mut wanted = vec![
        (Component::Decision, Kind::StatefulSet, "decision".to_owned(), at_least(&scoring.decision.replicas)),
        (Component::Builder, Kind::Deployment, "builder".to_owned(), 1),
    ];
    if scoring.inference.engine.kind == EngineType::Builtin {
        wanted.push((Component::Inference, Kind::Deployment, "inference".to_owned(), at_least(&scoring.inference.replicas)));
    }
    for entry in plan.roles.iter().filter(|entry| entry.role != RegionRole::Witness && entry.name != observer.region) {
        wanted.push((Component::Mirror(entry.name.clone()), Kind::Deployment, format!("mirror-{}", entry.name), 1));
    }
    let look = |(component, kind, suffix, wanted): (Component, Kind, String, u32)| {
        let object = observer.cache.get(kind, &owner.namespace, &format!("{}-{suffix}", owner.name));
        let ready = object.as_ref().map_or(0, |object| ready_pods(&object.data));
        (component, observer.fresh(Workload { ready, wanted }))
    };
    wanted.into_iter().map(look).collect()
}

fn ready_pods(object: &Value) -> u32 {
    let ready = object.pointer("/status/readyReplicas").and_then(Value::as_u64);
    ready.and_then(|count| u32::try_from(count).ok()).unwrap_or(0)
}
