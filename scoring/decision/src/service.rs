//! What gRPC and REST share: one way into the pipeline.

use std::{sync::Arc, time::Duration};

use proto::fraud::v1::{DecideRequest, DecideResponse};
use scoring_core::validate::Problems;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::pipeline::Pipeline;

/// Why a request gets an error and no decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Invalid(Problems),
    #[error("the request is too large: at most {bytes_max} bytes are read")]
    TooLarge { bytes_max: usize },
    /// A panic of ours; the log has it.
    #[error("the decision failed: it is a fault of the service; retry with the same id")]
    Internal,
}

pub struct Service {
    pipeline: Arc<Pipeline>,
    tasks: TaskTracker,
}

impl Service {
    pub fn new(pipeline: Arc<Pipeline>) -> Self {
        Self { pipeline, tasks: TaskTracker::new() }
    }

    pub fn request_bytes_max(&self) -> usize {
        self.pipeline.settings().request_bytes_max
    }

    /// Decides in a task of its own: a client that goes away leaves no half-recorded payment behind, and a fault in one
    /// decision harms no other.
    ///
    /// # Errors
    /// Only when the request is not valid, or the service is at fault. A valid request gets a decision.
    pub async fn decide(&self, request: DecideRequest, client_limit: Option<Duration>) -> Result<DecideResponse, Refusal> {
        let accepted_at = Instant::now();
        let pipeline = self.pipeline.clone();
        let task = self.tasks.spawn(async move { pipeline.decide(request, accepted_at, client_limit).await });
        match task.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%error, "a decision ended with a panic");
                self.refused("internal");
                Err(Refusal::Internal)
            }
        }
    }

    /// Counts a request that was refused before it came here.
    pub fn refused(&self, reason: &'static str) {
        self.pipeline.refused(reason);
    }

    /// Waits for decisions under way; gives how many are still open at the time limit.
    pub async fn drain(&self, until: Instant) -> usize {
        self.tasks.close();
        // A timeout is not an error here: the count says what is left.
        let _ = tokio::time::timeout_at(until, self.tasks.wait()).await;
        self.tasks.len()
    }
}
