//! Looks. Whatever cannot be learnt is unknown, with the reason; looking at a pipeline never fails as a whole.

mod inputs;
mod pods;
mod pulse;
mod shards;
mod topics;

use std::{sync::Arc, time::Instant};

use crds::EffectiveRegionSpec;
use domain::{HostPort, Known, Plan, PlanView, RegionName, RegionRole};
use feature_shards::{RedisUsers, WantedSettings};
use kube::Client;
use operator_planner::{Observation, process_address};

use crate::{
    build::{PLAN_KEY, backlog_bytes, process_count},
    cache::Cache,
    kinds::{Kind, Owner},
    metrics::Metrics,
};

pub(crate) use inputs::{InputError, ShardCredentials, shard_credentials};
use pulse::Guest;
pub(crate) use pulse::Pulse;
pub(crate) use topics::Topics;

/// Looks at everything that a pipeline has in this region.
pub(crate) struct Observer {
    client: Client,
    cache: Cache,
    region: RegionName,
    topics: Arc<Topics>,
    pulse: Arc<Pulse>,
    metrics: Metrics,
    started: Instant,
}

impl Observer {
    pub(crate) fn new(client: Client, cache: Cache, region: RegionName, topics: Arc<Topics>, pulse: Arc<Pulse>, metrics: Metrics) -> Self {
        Self { client, cache, region, topics, pulse, metrics, started: Instant::now() }
    }

    /// What exists of all that a manifest refers to.
    ///
    /// # Errors
    /// When the API server does not answer: then nothing is decided about the manifest.
    pub(crate) async fn inputs(
        &self,
        namespace: &str,
        references: &crate::validate::References<'_>,
    ) -> Result<crate::validate::Inputs, InputError> {
        inputs::look(&self.client, namespace, references).await
    }

    /// What the committed plan has become so far. `effective` is the spec that the plan pins.
    pub(crate) async fn pipeline(&self, owner: &Owner, plan: &Plan, effective: &EffectiveRegionSpec) -> Observation {
        if plan.role_of(&self.region).is_none_or(|role| role == RegionRole::Witness) {
            return Observation::nothing("this region runs nothing");
        }
        let view = self.view(owner);
        let addresses = addresses(plan, effective, view.fresh().and_then(Option::as_ref));
        let credentials = inputs::shard_credentials(&self.client, owner).await;
        if let Ok(credentials) = &credentials {
            let users = credentials.users.clone().unwrap_or_else(|why| {
                tracing::warn!(pipeline = owner.name, "the shards keep the users that they have: {why}");
                RedisUsers::default()
            });
            let guest = Guest { client: credentials.client(&self.region), users, wanted: wanted_settings(effective) };
            self.pulse.watch(owner, guest, addresses.concat());
        }
        let ((shards, copies), topics) = tokio::join!(
            shards::look(self, plan, &addresses, credentials),
            self.topics.look(&owner.namespace, &effective.spec, &effective.region, self.now_ms())
        );
        self.metrics.shards(&owner.namespace, &owner.name, &shards::role_names(&shards));
        let components = pods::look(self, owner, plan, effective);
        Observation { view, topics, shards, copies, components, faults: self.pulse.faults(owner) }
    }

    /// A pipeline that is taken down is not looked at any more.
    pub(crate) fn forget(&self, owner: &Owner) {
        self.pulse.forget(owner);
    }

    /// What there is before a plan: nothing, but perhaps a view that pods read.
    pub(crate) fn before_a_plan(&self, owner: &Owner) -> Observation {
        Observation { view: self.view(owner), ..Observation::nothing("there was no plan yet") }
    }

    fn view(&self, owner: &Owner) -> Known<Option<PlanView>> {
        let Some(object) = self.cache.get(Kind::ConfigMap, &owner.namespace, &format!("{}-plan", owner.name)) else {
            return self.fresh(None);
        };
        let text = object.data.pointer(&format!("/data/{PLAN_KEY}")).and_then(serde_json::Value::as_str).unwrap_or_default();
        // What cannot be read cannot be followed by pods either: it is written anew.
        self.fresh(serde_yaml::from_str(text).ok())
    }

    fn fresh<T>(&self, value: T) -> Known<T> {
        Known::Fresh { value, seen_at_ms: self.now_ms() }
    }

    /// On this process's own clock.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

fn wanted_settings(effective: &EffectiveRegionSpec) -> WantedSettings {
    match effective.spec.features.memory.to_units() {
        Ok(memory) => WantedSettings { backlog_bytes_min: backlog_bytes(memory), ..WantedSettings::default() },
        // Then no object is made of it either, and that is told.
        Err(_) => WantedSettings::default(),
    }
}

/// This region's processes, by shard.
fn addresses(plan: &Plan, effective: &EffectiveRegionSpec, view: Option<&PlanView>) -> Vec<Vec<HostPort>> {
    let of_shard = |shard: u16| {
        let processes = process_count(&effective.spec, view.and_then(|view| view.shard(shard)));
        (0..processes).map(|process| process_address(plan, shard, process)).collect()
    };
    (0..plan.features.slots.shards()).map(of_shard).collect()
}
