//! Does what the planner allows. Makes no choices: each action is tried, one's failure keeps none of the others back.

use std::{collections::BTreeSet, sync::Arc};

use crds::EffectiveRegionSpec;
use domain::{Epoch, HostPort, Plan, RegionName};
use feature_shards::{Change, ShardClient};
use futures::future::join_all;
use kube::Client;
use operator_planner::{Action, view_of};

use crate::{
    apply::{Applied, Applier},
    build::{self, BuildInput, ClusterFacts},
    config::Images,
    kinds::{Kind, Owner},
    metrics::Metrics,
    observe::{Topics, operator_password},
};

/// What was done, and what was tried in vain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub applied: Applied,
    /// Actions of the plan that were carried out, in words.
    pub actions: Vec<(&'static str, String)>,
    pub failures: Vec<String>,
}

pub(crate) struct Executor {
    pub client: Client,
    pub applier: Applier,
    pub topics: Arc<Topics>,
    pub region: RegionName,
    pub cluster: ClusterFacts,
    pub metrics: Metrics,
}

impl Executor {
    /// Applies the owned objects, then carries out the actions. The plan goes to the pods first: the objects that follow
    /// refer to it.
    pub(crate) async fn run(
        &self,
        owner: &Owner,
        plan: &Plan,
        effective: &EffectiveRegionSpec,
        images: &Images,
        actions: &[Action],
    ) -> Done {
        let mut done = Done::default();
        let (views, rest): (Vec<_>, Vec<_>) = actions.iter().partition(|action| matches!(action, Action::EnsurePlanView(_)));
        for action in views {
            self.note(action, self.write_view(owner, action).await, &mut done);
        }
        done.applied = self.objects(owner, plan, effective, images).await;
        done.failures.extend(done.applied.failures.iter().cloned());
        let outcomes = join_all(rest.iter().map(|action| self.act(owner, plan, effective, action))).await;
        for (action, outcome) in rest.into_iter().zip(outcomes) {
            self.note(action, outcome, &mut done);
        }
        done
    }

    fn note(&self, action: &Action, outcome: Result<String, String>, done: &mut Done) {
        self.metrics.acted(action.name(), outcome.is_ok());
        match outcome {
            Ok(what) => {
                tracing::info!(action = action.name(), "{what}");
                done.actions.push((action.name(), what));
            }
            Err(why) => {
                tracing::warn!(action = action.name(), "{why}");
                done.failures.push(format!("{}: {why}", action.name()));
            }
        }
    }

    async fn objects(&self, owner: &Owner, plan: &Plan, effective: &EffectiveRegionSpec, images: &Images) -> Applied {
        let input = BuildInput { owner, region: &self.region, plan, effective, images, cluster: self.cluster };
        let objects = match build::objects(&input) {
            Ok(objects) => objects,
            Err(error) => return Applied { changed: vec![], failures: vec![format!("spec.{error}")] },
        };
        let mut applied = self.applier.apply_all(owner, &objects).await;
        let mut wanted: BTreeSet<(Kind, String)> = objects.into_iter().map(|object| (object.kind, object.name)).collect();
        wanted.insert((Kind::ConfigMap, format!("{}-plan", owner.name)));
        let pruned = self.applier.prune(owner, &wanted).await;
        applied.changed.extend(pruned.changed);
        applied.failures.extend(pruned.failures);
        applied
    }

    async fn write_view(&self, owner: &Owner, action: &Action) -> Result<String, String> {
        let Action::EnsurePlanView(view) = action else { return Err("it is not about the plan's view".into()) };
        let object = build::view_object(owner, view).map_err(|error| error.to_string())?;
        let applied = self.applier.apply_all(owner, &[object]).await;
        match applied.failures.into_iter().next() {
            Some(failure) => Err(failure),
            None => Ok(format!("pods are given epoch {} revision {}", view.epoch, view.revision)),
        }
    }

    async fn act(&self, owner: &Owner, plan: &Plan, effective: &EffectiveRegionSpec, action: &Action) -> Result<String, String> {
        match action {
            Action::EnsurePlanView(_) => self.write_view(owner, action).await,
            Action::EnsureTopics => {
                let made = self.topics.ensure(&owner.namespace, &effective.spec, &effective.region).await;
                made.map(|()| "topics are there".to_owned()).map_err(|error| error.to_string())
            }
            Action::MakePrimary { shard, epoch } => {
                self.change(owner, plan, *shard, &Change::Primary, *epoch).await?;
                Ok(format!("shard {shard} is the primary of epoch {epoch}"))
            }
            Action::FollowRemote { shard, upstream, epoch } => {
                self.change(owner, plan, *shard, &Change::Follow(upstream.clone()), *epoch).await?;
                Ok(format!("shard {shard} follows {upstream}"))
            }
            Action::HoldCopy { shard, epoch } => {
                self.change(owner, plan, *shard, &Change::Hold, *epoch).await?;
                Ok(format!("shard {shard} holds its copy for {}", plan.active_region))
            }
        }
    }

    async fn change(&self, owner: &Owner, plan: &Plan, shard: u16, change: &Change, epoch: Epoch) -> Result<(), String> {
        let address = self.address(plan, shard).ok_or_else(|| format!("the plan has no shard {shard} here"))?;
        let client = ShardClient::new(operator_password(&self.client, owner).await?);
        client.change(&address, change, epoch).await.map_err(|error| error.to_string())
    }

    fn address(&self, plan: &Plan, shard: u16) -> Option<HostPort> {
        view_of(plan, &self.region)?.shards.into_iter().find(|found| found.shard == shard).map(|found| found.primary)
    }
}
