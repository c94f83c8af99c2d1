//! Follows the `model` section of the configuration file: what it names is taken into service, and tried again until it is.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, ModelConfig},
    metrics::Metrics,
    models::{Loader, Models},
};

const POLL: Duration = Duration::from_secs(1);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps [`Models`] at what the file says.
pub(crate) struct Follower {
    pub(crate) path: PathBuf,
    pub(crate) wanted: ModelConfig,
    pub(crate) loader: Arc<Loader>,
    pub(crate) models: Arc<Models>,
    pub(crate) metrics: Metrics,
    /// The last failure that was logged, so that trying again is not logged each time.
    pub(crate) logged: Option<&'static str>,
}

impl Follower {
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut retry_after = RETRY_FIRST;
        let mut due = Instant::now();
        loop {
            if self.reread() {
                (retry_after, due) = (RETRY_FIRST, Instant::now());
            }
            if !self.models.is_in_service(&self.wanted) && Instant::now() >= due {
                tokio::select! {
                    () = self.bring_into_service() => {}
                    () = stop.cancelled() => return,
                }
                due = Instant::now() + retry_after;
                retry_after = RETRY_MAX.min(retry_after * 2);
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Whether another model is wanted than before. A file that cannot be used changes nothing.
    fn reread(&mut self) -> bool {
        let read = process::config::load::<Config>(&self.path).map_err(|error| error.to_string());
        match read.and_then(|config| config.check().map(|()| config.model).map_err(|error| error.to_string())) {
            Ok(model) if model != self.wanted => {
                self.wanted = model;
                true
            }
            Ok(_) => false,
            Err(problem) => {
                self.report(problem, "config");
                false
            }
        }
    }

    async fn bring_into_service(&mut self) {
        if self.models.go_back_to(&self.wanted) {
            return self.succeeded();
        }
        match self.loader.load(&self.wanted).await {
            Ok(model) => {
                self.models.take_into_service(Arc::new(model));
                self.succeeded();
            }
            Err(error) => {
                self.report(error.to_string(), error.reason());
                self.fall_back().await;
            }
        }
    }

    /// After a restart with the store away, the model that served before is better than none.
    async fn fall_back(&self) {
        if self.models.current().is_none()
            && let Some(model) = self.loader.load_last_good(&self.wanted).await
        {
            tracing::warn!(sha256 = model.sha256, "serving the last good model until the wanted one can be had");
            self.models.take_into_service(Arc::new(model));
            self.metrics.in_service(&self.models, &self.wanted);
        }
    }

    fn succeeded(&mut self) {
        self.logged = None;
        self.models.set_problem(None);
        self.metrics.in_service(&self.models, &self.wanted);
    }

    fn report(&mut self, problem: String, reason: &'static str) {
        self.metrics.load_failed(reason);
        if self.logged != Some(reason) {
            tracing::error!(problem, reason, "wanted model is not in service; what runs keeps running");
            self.logged = Some(reason);
        }
        self.models.set_problem(Some(problem));
        self.metrics.in_service(&self.models, &self.wanted);
    }
}
