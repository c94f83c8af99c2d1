//! The model in service: loading a candidate, proving it, and taking it into service in one step. A bad model never
//! replaces a good one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use arc_swap::ArcSwapOption;
use scoring_core::{schema::FeatureSchema, windows::Windows};
use scoring_model::{Manifest, ModelError, ModelKind, ModelPackage};

use crate::{
    cache::ModelCache,
    config::ModelConfig,
    onnx::{OnnxRuntime, OnnxSession},
    source::{FetchError, fetch},
};

/// A model that passed all checks, with a session for each thread.
pub(crate) struct LoadedModel {
    /// The name by which clients ask for it.
    pub(crate) name: String,
    pub(crate) manifest: Manifest,
    pub(crate) sha256: String,
    sessions: Vec<Mutex<OnnxSession>>,
}

impl LoadedModel {
    #[cfg(test)]
    pub(crate) fn without_sessions(manifest: Manifest) -> Self {
        Self { name: manifest.name.clone(), manifest, sha256: String::new(), sessions: vec![] }
    }

    pub(crate) fn features(&self) -> usize {
        self.manifest.features.len()
    }

    /// Runs on the calling thread. `thread` is the number of the worker; each has a session of its own, so nobody waits.
    pub(crate) fn score(&self, thread: usize, rows: &[f32]) -> Result<Vec<f32>, String> {
        let session = self.sessions.get(thread).ok_or("there is no session for this thread")?;
        let mut session = locked(session);
        // A defect in native code's wrapper must not take the worker with it.
        catch_unwind(AssertUnwindSafe(|| session.score(rows, self.features()))).unwrap_or_else(|_| Err("the engine panicked".into()))
    }
}

/// Why a candidate is not in service.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("ONNX Runtime refused the model: {0}")]
    Engine(String),
}

impl LoadError {
    /// For counting; a short fixed list.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(_) => "fetch",
            Self::Model(ModelError::OtherDigest { .. }) => "digest",
            Self::Model(ModelError::OtherSchema { .. } | ModelError::GroupNeverMasked { .. }) => "schema",
            Self::Model(ModelError::GoldenDiffers { .. }) => "golden",
            Self::Model(_) => "package",
            Self::Engine(_) => "engine",
        }
    }
}

/// Makes candidates: fetches, verifies, proves, warms.
pub(crate) struct Loader {
    pub(crate) runtime: OnnxRuntime,
    pub(crate) windows: Windows,
    pub(crate) cache: ModelCache,
    pub(crate) threads: usize,
    pub(crate) rows_max: usize,
    pub(crate) bytes_max: u64,
}

impl Loader {
    /// From this pod's folder if it is there, else from its store.
    pub(crate) async fn load(self: &Arc<Self>, wanted: &ModelConfig) -> Result<LoadedModel, LoadError> {
        if let Some(bytes) = self.cached(&wanted.sha256).await {
            match self.build(wanted.clone(), bytes).await {
                Ok(model) => return Ok(model),
                // Such as a damaged file: the store has the true one.
                Err(error) => tracing::warn!(%error, "cached model is not usable, fetching it"),
            }
        }
        let bytes = fetch(wanted, self.bytes_max).await?;
        self.build(wanted.clone(), bytes).await
    }

    /// The model that was last in service in this pod, when the wanted one cannot be had.
    pub(crate) async fn load_last_good(self: &Arc<Self>, wanted: &ModelConfig) -> Option<LoadedModel> {
        let sha256 = self.cache.last_good()?;
        let bytes = self.cached(&sha256).await?;
        let last = ModelConfig { sha256, ..wanted.clone() };
        self.build(last, bytes).await.inspect_err(|error| tracing::warn!(%error, "last good model is not usable")).ok()
    }

    async fn cached(self: &Arc<Self>, sha256: &str) -> Option<Vec<u8>> {
        let (loader, sha256) = (self.clone(), sha256.to_owned());
        tokio::task::spawn_blocking(move || loader.cache.read(&sha256, loader.bytes_max)).await.ok()?
    }

    async fn build(self: &Arc<Self>, wanted: ModelConfig, bytes: Vec<u8>) -> Result<LoadedModel, LoadError> {
        let loader = self.clone();
        let built = tokio::task::spawn_blocking(move || loader.prove(&wanted, &bytes)).await;
        built.unwrap_or_else(|_| Err(LoadError::Engine("loading it panicked".into())))
    }

    /// Everything that must hold before a model serves, the cheapest first. Then it is kept on disk.
    fn prove(&self, wanted: &ModelConfig, bytes: &[u8]) -> Result<LoadedModel, LoadError> {
        let package = ModelPackage::parse(bytes)?;
        package.check_sha256(&wanted.sha256)?;
        package.check_schema(&match package.manifest().kind {
            ModelKind::Full => FeatureSchema::full(&self.windows),
            ModelKind::Light => FeatureSchema::light(&self.windows),
        })?;
        let sessions = self.runtime.sessions(bytes, self.threads).map_err(LoadError::Engine)?;
        let model =
            LoadedModel { name: wanted.name.clone(), manifest: package.manifest().clone(), sha256: package.sha256().to_owned(), sessions };
        self.check_golden(&package, &model)?;
        self.warm(&model)?;
        if let Err(error) = self.cache.keep(&model.sha256, bytes) {
            tracing::warn!(%error, "model cannot be kept in cache_dir: a restart will need its store");
        }
        Ok(model)
    }

    fn check_golden(&self, package: &ModelPackage, model: &LoadedModel) -> Result<(), LoadError> {
        let mut failure = None;
        let compared = package.verify_golden(|row| match model.score(0, row) {
            Ok(scores) => scores.first().copied().unwrap_or(f32::NAN),
            Err(error) => {
                failure = Some(error);
                f32::NAN
            }
        });
        match failure {
            Some(error) => Err(LoadError::Engine(error)),
            None => Ok(compared?),
        }
    }

    /// The first runs of a session allocate; no caller should wait for that.
    fn warm(&self, model: &LoadedModel) -> Result<(), LoadError> {
        let row: Vec<f32> = model.manifest.golden.first().map(scoring_model::GoldenVector::row).unwrap_or_default();
        for thread in 0..self.threads {
            for rows in [1, 9, self.rows_max.min(64)] {
                model.score(thread, &row.repeat(rows)).map_err(LoadError::Engine)?;
            }
        }
        Ok(())
    }
}

/// The model in service, the one before it, and why the wanted one is not in service.
#[derive(Default)]
pub(crate) struct Models {
    current: ArcSwapOption<LoadedModel>,
    /// Stays loaded, so that going back takes no time and no store.
    previous: Mutex<Option<Arc<LoadedModel>>>,
    problem: Mutex<Option<String>>,
}

impl Models {
    pub(crate) fn current(&self) -> Option<Arc<LoadedModel>> {
        self.current.load_full()
    }

    pub(crate) fn take_into_service(&self, model: Arc<LoadedModel>) {
        tracing::info!(name = model.name, version = model.manifest.version, sha256 = model.sha256, "model taken into service");
        let replaced = self.current.swap(Some(model));
        *locked(&self.previous) = replaced;
    }

    /// Goes back to the model that was in service before, if that is the one wanted.
    pub(crate) fn go_back_to(&self, wanted: &ModelConfig) -> bool {
        let previous = locked(&self.previous).clone();
        let Some(model) = previous.filter(|model| model.name == wanted.name && model.sha256.eq_ignore_ascii_case(&wanted.sha256)) else {
            return false;
        };
        self.take_into_service(model);
        true
    }

    pub(crate) fn is_in_service(&self, wanted: &ModelConfig) -> bool {
        self.current().is_some_and(|model| model.name == wanted.name && model.sha256.eq_ignore_ascii_case(&wanted.sha256))
    }

    pub(crate) fn set_problem(&self, problem: Option<String>) {
        *locked(&self.problem) = problem;
    }

    pub(crate) fn problem(&self) -> Option<String> {
        locked(&self.problem).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
