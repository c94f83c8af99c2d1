//! Does what the planner allows. Makes no choices: each action is tried, one's failure keeps none of the others back.

use std::{collections::BTreeSet, sync::Arc};

use crds::EffectiveRegionSpec;
use domain::{Epoch, Plan, PlanView, RegionName};
use feature_shards::Change;
use futures::future::join_all;
use kube::Client;
use operator_planner::{Action, process_address};

use crate::{
    apply::{Applied, Applier},
    build::{self, BuildInput, ClusterFacts},
    config::Images,
    kinds::{Kind, Owner},
    metrics::Metrics,
    observe::{Topics, shard_credentials},
};

/// What was done, and what was tried in vain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Done {
    pub applied: Applied,
    /// Actions of the plan that were carried out, in words.
    pub actions: Vec<(&'static str, String)>,
    pub failures: Vec<String>,
}

impl Done {
    /// Whether something was done of which the next pass sees the effect at once.
    pub(crate) fn did_more_than_topics(&self) -> bool {
        self.actions.iter().any(|(name, _)| *name != "EnsureTopics")
    }
}

/// What is being carried out.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    pub owner: &'a Owner,
    pub plan: &'a Plan,
    /// What pods are told of it; nothing where none run.
    pub view: Option<&'a PlanView>,
    /// The spec that the plan pins, as it holds in this region.
    pub effective: &'a EffectiveRegionSpec,
    pub images: &'a Images,
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
    pub(crate) async fn run(&self, work: &Work<'_>, actions: &[Action]) -> Done {
        let Work { owner, plan, effective, .. } = *work;
        let mut done = Done::default();
        let (views, rest): (Vec<_>, Vec<_>) = actions.iter().partition(|action| matches!(action, Action::EnsurePlanView(_)));
        for action in views {
            self.note(action, self.write_view(owner, action).await, &mut done);
        }
        done.applied = self.objects(work).await;
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

    async fn objects(&self, work: &Work<'_>) -> Applied {
        let Work { owner, plan, view, effective, images } = *work;
        let input = |view| BuildInput { owner, region: &self.region, plan, view, effective, images, cluster: self.cluster };
        let objects = match view.map_or(Ok(Vec::new()), |view| build::objects(&input(view))) {
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
            Action::MakePrimary { shard, process, epoch } => {
                self.change(owner, plan, (*shard, *process), &Change::Primary, *epoch).await?;
                Ok(format!("process {process} of shard {shard} is the primary of epoch {epoch}"))
            }
            Action::FollowRemote { shard, process, upstream, epoch } => {
                self.change(owner, plan, (*shard, *process), &Change::Follow(upstream.clone()), *epoch).await?;
                Ok(format!("process {process} of shard {shard} follows {upstream}"))
            }
            Action::FollowLocal { shard, process, leader, epoch } => {
                let upstream = process_address(plan, *shard, *leader);
                self.change(owner, plan, (*shard, *process), &Change::Follow(upstream), *epoch).await?;
                Ok(format!("process {process} of shard {shard} follows process {leader}"))
            }
            Action::HoldCopy { shard, process, epoch } => {
                self.change(owner, plan, (*shard, *process), &Change::Hold, *epoch).await?;
                Ok(format!("process {process} of shard {shard} holds its copy for {}", plan.active_region))
            }
            Action::RequireReplicas { shard, process, replicas, epoch } => {
                self.change(owner, plan, (*shard, *process), &Change::Require(*replicas), *epoch).await?;
                Ok(format!("process {process} of shard {shard} takes writes with {replicas} replicas or more"))
            }
        }
    }

    async fn change(&self, owner: &Owner, plan: &Plan, (shard, process): (u16, u16), change: &Change, epoch: Epoch) -> Result<(), String> {
        let address = process_address(plan, shard, process);
        let client = shard_credentials(&self.client, owner).await?.client(&self.region);
        client.change(&address, change, epoch).await.map_err(|error| error.to_string())
    }
}
