//! Tells the decision services how far the logs have been folded: the key `fp:fresh` of every shard.

use std::{convert::Infallible, time::Duration};

use domain::Epoch;
use prost::Message as _;
use proto::fraud::v1;
use scoring_core::published::Published;
use tokio::time::{Instant, MissedTickBehavior};

use crate::session::Builder;

/// A value outlives the windows, so that a builder that starts later knows what the one before it knew. Readers go by how
/// long it has not changed.
const LIFETIME_MARGIN: Duration = Duration::from_secs(3_600);

pub(crate) struct Announcer<'a> {
    builder: &'a Builder,
    epoch: Epoch,
}

impl<'a> Announcer<'a> {
    pub(crate) fn new(builder: &'a Builder, epoch: Epoch) -> Self {
        Self { builder, epoch }
    }

    /// For as long as it is polled.
    pub(crate) async fn announce(&self) -> Infallible {
        self.inherit().await;
        let config = &self.builder.config.freshness;
        let mut ticks = tokio::time::interval(config.publish_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.publish(config.publish_interval.max(Duration::from_millis(100))).await;
        }
    }

    async fn publish(&self, within: Duration) {
        let builder = self.builder;
        let config = &builder.config.freshness;
        let longest_ms = builder.longest_ms();
        let silence_ms_max = i64::try_from(config.silence_max.as_millis()).unwrap_or(i64::MAX);
        let valid_ms = u64::try_from(config.valid_for.as_millis()).unwrap_or(u64::MAX);
        let published = builder.watermarks.publication(self.epoch, silence_ms_max, valid_ms, longest_ms);
        let lifetime = Duration::from_millis(longest_ms.max(0).unsigned_abs()) + LIFETIME_MARGIN;
        let untold = builder.store.publish_freshness(&published.to_wire().encode_to_vec(), lifetime, Instant::now() + within).await;
        builder.metrics.ages(&builder.watermarks.ages(silence_ms_max));
        builder.metrics.untold(untold.len());
    }

    /// Nothing is published before it is known what the builder before this one knew, or that there was none.
    async fn inherit(&self) {
        let builder = self.builder;
        loop {
            let deadline = Instant::now() + builder.config.limits.fold_timeout;
            if let Some(said) = builder.store.freshness_left(deadline).await {
                let left = said.iter().filter_map(|bytes| v1::PublishedFreshness::decode(bytes.as_slice()).ok());
                let newest = left.filter_map(|wire| Published::from_wire(&wire).ok()).max_by_key(|left| (left.epoch, left.published_ms));
                builder.watermarks.inherit(newest.as_ref(), self.epoch, &builder.config.origins);
                return;
            }
            tokio::time::sleep(builder.config.freshness.publish_interval).await;
        }
    }
}
