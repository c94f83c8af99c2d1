//! Measures the ends of the logs beside the session, so that a slow answer delays no event.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle};

use crate::{
    clock::now_ms,
    config::Log,
    log::{Ends, Seen},
};

type Measurement = Option<(Arc<Seen>, i64)>;

/// Ends with its owner.
pub(crate) struct Measuring {
    newest: watch::Receiver<Measurement>,
    task: JoinHandle<()>,
}

impl Measuring {
    pub(crate) fn start(ends: Ends, logs: Vec<Log>, interval: Duration) -> Self {
        let (sender, newest) = watch::channel(None);
        let task = tokio::spawn(async move {
            loop {
                match ends.measure(logs.clone()).await {
                    Ok(seen) => drop(sender.send_replace(Some((Arc::new(seen), now_ms())))),
                    Err(error) => tracing::warn!(%error, "the ends of the logs could not be measured: lag is unknown"),
                }
                tokio::time::sleep(interval).await;
            }
        });
        Self { newest, task }
    }

    /// What was measured since the last call, and when.
    pub(crate) fn newest(&mut self) -> Measurement {
        if !self.newest.has_changed().unwrap_or(false) {
            return None;
        }
        self.newest.borrow_and_update().clone()
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        self.task.abort();
    }
}
