//! What the first payments should not have to wait for: connections, Kafka's metadata, and the first run of the model.

use std::{sync::atomic::Ordering, time::Duration};

use scoring_features::FeatureStore;
use tokio::time::{Instant, sleep, timeout};

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
        let (store, engine, handover) = tokio::join!(
            timeout(within, self.store_connects()),
            timeout(within, self.engine_scores()),
            self.parts.handover.prepare(within)
        );
        self.warmed_up.store(true, Ordering::Relaxed);
        tracing::info!(store = store.is_ok(), engine = engine.is_ok(), handover, took_ms = started.elapsed().as_millis(), "warmed up");
    }

    async fn store_connects(&self) {
        let FeatureStore::Redis(store) = &self.parts.store else { return };
        while !store.disconnected().is_empty() {
            sleep(PAUSE).await;
        }
    }

    async fn engine_scores(&self) {
        let nothing_known = vec![f32::NAN; self.parts.full_schema.width()];
        let mut scores = 0;
        while scores < SCORES {
            match self.parts.engine.score(&nothing_known, SCORE_MAX).await {
                Ok(_) => scores += 1,
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}
