//! What is compared: one way of keeping the features of payments in Redis.

use anyhow::Result;
use bench::report::Figures;
use scoring_core::event::Event;

use crate::workload::Workload;

pub trait Contender: Send + Sync + 'static {
    /// Stores the workload's history as the contender takes events from a log.
    fn fill(&self, workload: &Workload) -> impl Future<Output = Result<()>> + Send;

    /// Records the payment for its five entities and reads four windows of each. Gives how many payments its card made in the last minute, this one included,
    /// as this client sees it.
    fn decide(&self, payment: &Event) -> impl Future<Output = Result<u64>> + Send;

    /// What it has to tell of itself when the load has ended.
    fn after_load(&self) -> Figures {
        Figures::new()
    }
}
