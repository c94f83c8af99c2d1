//! One pass over one pipeline, on one page: observe, validate, plan, commit, execute, report. Each stage says whether it
//! does IO; what a stage decided is a value that the next one takes.
//!
//! A pass may be cut off anywhere: nothing that it knew is kept but caches, and the next one sees the same world and
//! derives the same actions.

use std::{sync::Arc, time::Duration};

use crds::{EffectiveRegionSpec, FraudPipeline, FraudPipelineSpec, FraudPipelineStatus};
use domain::Known;
use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{
        controller::Action as Requeue,
        events::{Event, EventType, Recorder},
        reflector::Store,
    },
};
use operator_planner::{
    Allowed, CurrentPlan, Observation, PlanInput, PlanReport, Planned, SpecFacts, StatusInput, TopicsState, actions, lint, plan, status,
    view_of,
};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    config::OperatorConfig,
    deletion::{self, Verdict},
    error::Error,
    execute::{Done, Executor, Work},
    kinds::Owner,
    metrics::Metrics,
    observe::Observer,
    register::{PipelineKey, Register},
    report::{self, Write, WriteLimit},
    validate::{self, Refused},
};

/// After something was done: what it has led to is to be seen, and what comes next to be done.
const AT_ONCE: Duration = Duration::from_millis(250);
/// While something is under way that no watch tells of (replication, topics).
const SOON: Duration = Duration::from_secs(2);
/// While all is well: Redis and Kafka are looked at this often.
const CALM: Duration = Duration::from_secs(10);

/// What passes share.
pub(crate) struct Context<R> {
    pub client: Client,
    pub config: OperatorConfig,
    pub register: R,
    pub observer: Observer,
    pub executor: Executor,
    pub pipelines: Store<FraudPipeline>,
    pub recorder: Recorder,
    pub limit: WriteLimit,
    pub metrics: Metrics,
}

/// # Errors
/// When a stage could not be done; the pass is repeated later.
pub(crate) async fn reconcile<R: Register>(pipeline: Arc<FraudPipeline>, context: Arc<Context<R>>) -> Result<Requeue, Error> {
    let started = Instant::now();
    let result = Pass::new(&pipeline, &context).run().await;
    let name = match &result {
        Ok(_) => "ok",
        Err(error) if error.is_race() => "raced",
        Err(error) => {
            context.metrics.stage_failed(error.stage());
            "failed"
        }
    };
    context.metrics.reconciled(name, started.elapsed());
    result
}

struct Pass<'a, R> {
    pipeline: &'a FraudPipeline,
    context: &'a Context<R>,
    key: PipelineKey,
    owner: Owner,
}

/// What a pass found and did, for the report.
struct Outcome {
    current: Option<CurrentPlan>,
    seen: Observation,
    report: PlanReport,
    allowed: Allowed,
    done: Done,
    refused: Option<Refused>,
    waits: Option<String>,
}

impl<'a, R: Register> Pass<'a, R> {
    fn new(pipeline: &'a FraudPipeline, context: &'a Context<R>) -> Self {
        let key = PipelineKey { namespace: pipeline.namespace().unwrap_or_default(), name: pipeline.name_any() };
        let owner = Owner { name: key.name.clone(), namespace: key.namespace.clone(), uid: pipeline.uid().unwrap_or_default() };
        Self { pipeline, context, key, owner }
    }

    async fn run(&self) -> Result<Requeue, Error> {
        // Observe (IO): what is committed, what the manifest refers to, what runs.
        let committed = self.context.register.committed(&self.key).await.map_err(Error::ObservePlan)?;
        let waits = match deletion::verdict(self.pipeline, &self.context.config.region, committed.as_ref().map(|current| &current.plan)) {
            Verdict::GoesOn => return self.take_down().await,
            Verdict::Waits(why) => Some(why),
            Verdict::NotAsked => None,
        };
        let references = validate::references(&self.key.name, self.context.config.region.as_str(), &self.pipeline.spec);
        let inputs = self.context.observer.inputs(&self.key.namespace, &references).await?;
        let (effective, seen) = self.observe(committed.as_ref()).await?;

        // Validate (pure): may this manifest be run here?
        let accepted = validate::pipeline(self.pipeline, &self.context.config, &inputs, &self.context.pipelines.state());

        // Plan (pure): what should be. A manifest that is not accepted changes nothing.
        let planned = match (&accepted, &waits) {
            (Ok(spec), None) => self.plan(spec, committed.as_ref(), &seen)?,
            _ => Planned { plan: committed.as_ref().map(|current| current.plan.clone()), report: PlanReport::default() },
        };

        // Commit (IO): before anything is done.
        let (current, effective) = self.commit(committed, effective, &planned).await?;

        // Execute (IO): what the committed plan allows now, and nothing else.
        let (allowed, done) = self.execute(current.as_ref(), effective.as_ref(), &seen).await?;

        // Report (IO): status, if it differs; events for what changed.
        self.report(Outcome { current, seen, report: planned.report, allowed, done, refused: accepted.err(), waits }).await
    }

    async fn observe(&self, committed: Option<&CurrentPlan>) -> Result<(Option<EffectiveRegionSpec>, Observation), Error> {
        let Some(current) = committed else { return Ok((None, self.context.observer.before_a_plan(&self.owner))) };
        let Some(effective) = self.effective(current)? else {
            return Ok((None, Observation::nothing("the plan does not have this region")));
        };
        let seen = self.context.observer.pipeline(&self.owner, &current.plan, &effective).await;
        Ok((Some(effective), seen))
    }

    /// The spec that the plan pins, as it holds in this region.
    fn effective(&self, current: &CurrentPlan) -> Result<Option<EffectiveRegionSpec>, Error> {
        let spec: FraudPipelineSpec = serde_json::from_value(current.plan.effective_spec.clone())
            .map_err(|error| Error::Unusable(format!("its spec cannot be read by this version of the operator: {error}")))?;
        Ok(spec.effective_for(self.context.config.region.as_str()).ok())
    }

    fn plan(&self, spec: &SpecFacts, committed: Option<&CurrentPlan>, seen: &Observation) -> Result<Planned, Error> {
        let planned = plan(&PlanInput {
            region: &self.context.config.region,
            spec,
            current: committed,
            seen,
            newest_version: self.context.config.newest_version(),
        });
        let parent = committed.map(|current| &current.plan);
        let Some(next) = planned.plan.as_ref().filter(|next| Some(*next) != parent) else { return Ok(planned) };
        let findings = lint(next, parent);
        if findings.is_empty() {
            return Ok(planned);
        }
        findings.iter().for_each(|finding| self.context.metrics.invariant(finding.invariant));
        Err(Error::Plan(findings))
    }

    async fn commit(
        &self,
        committed: Option<CurrentPlan>,
        effective: Option<EffectiveRegionSpec>,
        planned: &Planned,
    ) -> Result<(Option<CurrentPlan>, Option<EffectiveRegionSpec>), Error> {
        let Some(next) = planned.plan.as_ref().filter(|next| Some(*next) != committed.as_ref().map(|current| &current.plan)) else {
            return Ok((committed, effective));
        };
        if !deletion::has_finalizer(self.pipeline) {
            deletion::add_finalizer(&self.context.client, &self.key, self.pipeline).await.map_err(Error::Finalizer)?;
        }
        let current = self.context.register.commit(&self.key, next).await.map_err(Error::Commit)?;
        tracing::info!(pipeline = self.key.name, epoch = next.epoch.0, revision = next.revision.0, cause = next.cause, "committed a plan");
        self.tell(EventType::Normal, "Plan", "PlanCommitted", &format!("epoch {} revision {}: {}", next.epoch, next.revision, next.cause))
            .await;
        let effective = self.effective(&current)?;
        Ok((Some(current), effective))
    }

    async fn execute(
        &self,
        current: Option<&CurrentPlan>,
        effective: Option<&EffectiveRegionSpec>,
        seen: &Observation,
    ) -> Result<(Allowed, Done), Error> {
        let (Some(current), Some(effective)) = (current, effective) else { return Ok((Allowed::default(), Done::default())) };
        let plan = &current.plan;
        self.context.metrics.plan(&self.key.namespace, &self.key.name, plan.epoch.0, plan.revision.0);
        let images = self.context.config.images(&plan.data_plane_version).ok_or_else(|| {
            let (version, known) = (&plan.data_plane_version, self.context.config.known_versions());
            Error::Unusable(format!(
                "it has data-plane version {version}, and this operator has images of {known}: add that version to the chart's values"
            ))
        })?;
        let allowed = actions(plan, &self.context.config.region, seen);
        let view = view_of(plan, &self.context.config.region, seen);
        let work = Work { owner: &self.owner, plan, view: view.as_ref(), effective, images };
        let done = self.context.executor.run(&work, &allowed.actions).await;
        for (name, what) in done.actions.iter().filter(|(name, _)| !matches!(*name, "EnsurePlanView" | "EnsureTopics")) {
            self.tell(EventType::Normal, "Execute", name, what).await;
        }
        Ok((allowed, done))
    }

    async fn report(&self, outcome: Outcome) -> Result<Requeue, Error> {
        let told = status(&StatusInput {
            region: &self.context.config.region,
            plan: outcome.current.as_ref().map(|current| &current.plan),
            report: &outcome.report,
            allowed: &outcome.allowed,
            seen: &outcome.seen,
            refused: outcome.refused.as_ref().map(|refused| (refused.reason, refused.message.clone())),
            failures: &outcome.done.failures,
            applied: !outcome.done.applied.changed.is_empty(),
            deletion: self.pipeline.metadata.deletion_timestamp.as_ref().map(|_| outcome.waits.clone()),
        });
        let digest = outcome.current.as_ref().and_then(|current| spec_digest(&current.plan.effective_spec));
        let after =
            report::status_of(self.pipeline, &self.context.config.region, outcome.current.as_ref(), &told, digest, Timestamp::now());
        let calm = match is_settled(&outcome) {
            _ if outcome.done.did_more_than_topics() => AT_ONCE,
            true => CALM,
            false => SOON,
        };
        match self.context.limit.judge(&self.key, self.pipeline.status.as_ref(), &after, Instant::now()) {
            Write::NotNeeded => Ok(Requeue::requeue(calm)),
            Write::Later(left) => {
                self.context.metrics.status_deferred();
                Ok(Requeue::requeue(left.min(calm)))
            }
            Write::Now => {
                self.write_status(&after).await.map_err(Error::Report)?;
                self.context.limit.written(&self.key, Instant::now());
                for change in report::transitions(self.pipeline.status.as_ref(), &after) {
                    let kind = if change.warns { EventType::Warning } else { EventType::Normal };
                    self.tell(kind, &change.condition, &change.reason, &change.message).await;
                }
                Ok(Requeue::requeue(calm))
            }
        }
    }

    async fn write_status(&self, status: &FraudPipelineStatus) -> kube::Result<()> {
        let api: Api<FraudPipeline> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        let patch = json!({"apiVersion": crds::names::API_VERSION, "kind": "FraudPipeline", "status": status});
        let parameters = PatchParams::apply(crds::names::FIELD_MANAGER).force();
        api.patch_status(&self.key.name, &parameters, &Patch::Apply(patch)).await.map(drop)
    }

    /// An event; one that cannot be written is only logged.
    async fn tell(&self, type_: EventType, action: &str, reason: &str, note: &str) {
        let note: String = note.chars().take(1000).collect();
        let event = Event { type_, reason: reason.to_owned(), note: Some(note), action: action.to_owned(), secondary: None };
        if let Err(error) = self.context.recorder.publish(&event, &self.pipeline.object_ref(&())).await {
            tracing::warn!(%error, reason, "an event could not be written");
        }
    }

    /// Gives up the register's cell, then the object. What it owns goes with it.
    async fn take_down(&self) -> Result<Requeue, Error> {
        if !deletion::has_finalizer(self.pipeline) {
            return Ok(Requeue::await_change());
        }
        if let Err(error) = self.context.register.forget(&self.key).await {
            if !deletion::out_of_patience(self.pipeline, Timestamp::now()) {
                return Err(Error::Delete(error));
            }
            tracing::warn!(%error, "the RegionPlan stays behind");
        }
        self.tell(
            EventType::Normal,
            "Delete",
            "Deleted",
            "the pipeline is taken down in this region; volumes of write-ahead logs are kept",
        )
        .await;
        deletion::remove_finalizer(&self.context.client, &self.key, self.pipeline).await.map_err(Error::Finalizer)?;
        self.context.limit.forget(&self.key);
        self.context.executor.applier.forget(&self.owner);
        self.context.observer.forget(&self.owner);
        self.context.metrics.forget(&self.key.namespace, &self.key.name);
        Ok(Requeue::await_change())
    }
}

fn spec_digest(effective: &serde_json::Value) -> Option<String> {
    serde_json::from_value::<FraudPipelineSpec>(effective.clone()).ok()?.digest().ok()
}

/// Whether nothing is under way that no watch would tell of.
fn is_settled(outcome: &Outcome) -> bool {
    let topics_ready = matches!(&outcome.seen.topics, Known::Fresh { value: TopicsState::Ready, .. });
    let nothing_done = outcome.allowed.actions.is_empty() && outcome.done.failures.is_empty();
    outcome.current.is_none() || (nothing_done && outcome.allowed.blocked.is_empty() && topics_ready)
}
