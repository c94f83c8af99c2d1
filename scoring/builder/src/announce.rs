//! Tells the decision services how far the logs have been folded: the key `fp:fresh` of every shard.
//!
//! Runs beside the sessions and outlives them: also while nothing can be folded it is told how old the features are, or that
//! this is not known.

use std::{sync::Arc, time::Duration};

use domain::{Epoch, PlanView};
use process::plan::PlanWatch;
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::published::Published;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::session::Builder;

/// A value outlives the windows, so that a builder that starts later knows what the one before it knew. Readers go by how
/// long it has not changed.
const LIFETIME_MARGIN: Duration = Duration::from_secs(3_600);
/// How long the shards may take to answer, at least.
const WITHIN_MIN: Duration = Duration::from_millis(100);

pub(crate) struct Announcer {
    pub(crate) builder: Arc<Builder>,
    pub(crate) plan: PlanWatch,
}

impl Announcer {
    pub(crate) async fn announce_until(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.builder.config.freshness.publish_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut inherited = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let plan = self.plan.current();
            if !self.may_publish(&plan) {
                inherited = None;
                continue;
            }
            // Nothing is published before it is known what the builder before this one knew, or that there was none.
            if inherited != Some(plan.epoch) && self.inherit(plan.epoch).await {
                inherited = Some(plan.epoch);
            }
            if inherited == Some(plan.epoch) {
                self.publish(plan.epoch).await;
            }
        }
    }

    /// Once the supervisor has adopted the plan.
    fn may_publish(&self, plan: &PlanView) -> bool {
        plan.writes_features() && self.builder.store.epoch() == plan.epoch
    }

    async fn publish(&self, epoch: Epoch) {
        let builder = &self.builder;
        let config = &builder.config.freshness;
        let silence_ms_max = i64::try_from(config.silence_max.as_millis()).unwrap_or(i64::MAX);
        let valid_ms = u64::try_from(config.valid_for.as_millis()).unwrap_or(u64::MAX);
        let longest_ms = builder.longest_ms();
        let published = builder.watermarks.publication(epoch, silence_ms_max, valid_ms, longest_ms);
        let lifetime = Duration::from_millis(longest_ms.max(0).unsigned_abs()) + LIFETIME_MARGIN;
        let deadline = Instant::now() + config.publish_interval.max(WITHIN_MIN);
        let untold = builder.store.publish_freshness(&published.to_wire().encode_to_vec(), lifetime, deadline).await;
        builder.metrics.ages(&builder.watermarks.ages(silence_ms_max));
        builder.metrics.untold(untold.len());
    }

    /// Whether all shards answered.
    async fn inherit(&self, epoch: Epoch) -> bool {
        let builder = &self.builder;
        let deadline = Instant::now() + builder.config.limits.fold_timeout;
        let Some(said) = builder.store.freshness_left(deadline).await else { return false };
        let left = said.iter().filter_map(|bytes| v1::PublishedFreshness::decode(bytes.as_slice()).ok());
        let newest = left.filter_map(|wire| Published::from_wire(&wire).ok()).max_by_key(|left| (left.epoch, left.published_ms));
        builder.watermarks.inherit(newest.as_ref(), epoch, &builder.config.origins);
        true
    }
}
