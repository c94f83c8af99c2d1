//! What the first payments should not have to wait for: connections, Kafka's metadata, and the first run of the model.

use std::{sync::atomic::Ordering, time::Duration};

use scoring_features::FeatureStore;
use tokio::time::{Instant, sleep};

use super::Pipeline;

/// Between looks at what connects in the background.
const PAUSE: Duration = Duration::from_millis(20);
/// One question to an inference service that may have been started just now.
const SCORE_MAX: Duration = Duration::from_millis(250);
/// So many answers make caches and branch predictors of both sides as they are under traffic.
const SCORES: u32 = 20;

impl Pipeline {
    /// Connects to everything and uses it once, for at most `within`. The pod is ready afterwards in any case: what does not
    /// answer by then is missing in the decisions, and they say so.
    pub async fn warm_up(&self, within: Duration) {
        let started = Instant::now();
        let until = started + within;
        let (store, freshness, engine, handover) = tokio::join!(
            self.store_connects(until),
            self.freshness_is_known(until),
            self.engine_scores(until),
            self.parts.handover.prepare(within)
        );
        self.warmed_up.store(true, Ordering::Relaxed);
        tracing::info!(store, freshness, engine, handover, took_ms = started.elapsed().as_millis(), "warmed up");
    }

    async fn store_connects(&self, until: Instant) -> bool {
        let FeatureStore::Redis(store) = &self.parts.store else { return true };
        while !store.disconnected().is_empty() {
            if Instant::now() >= until {
                return false;
            }
            sleep(PAUSE).await;
        }
        store.read_hot_list(until.saturating_duration_since(Instant::now())).await;
        true
    }

    async fn freshness_is_known(&self, until: Instant) -> bool {
        while !self.parts.freshness.is_known() {
            if Instant::now() >= until {
                return false;
            }
            sleep(PAUSE).await;
        }
        true
    }

    async fn engine_scores(&self, until: Instant) -> bool {
        let nothing_known = vec![f32::NAN; self.parts.full_schema.width()];
        let mut scores = 0;
        while scores < SCORES {
            match self.parts.engine.score(&nothing_known, SCORE_MAX).await {
                Ok(_) => scores += 1,
                Err(_) if Instant::now() >= until => return false,
                Err(_) => sleep(PAUSE).await,
            }
        }
        true
    }
}
