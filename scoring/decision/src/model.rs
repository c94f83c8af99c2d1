//! Models that are evaluated in this process: the light one, and the full one with `engine: InProcess`.
//!
//! A file is used only after its digest, its feature schema and its golden vectors agree; see `scoring_model`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use scoring_core::schema::FeatureSchema;
use scoring_inference::config::ModelConfig;
use scoring_model::{ModelError, ModelPackage, TreeEnsemble};
use tokio_util::sync::CancellationToken;

use crate::config::ModelSource;

/// A model that is evaluated in this process and is larger than this is the wrong one.
const BYTES_MAX: u64 = 64 << 20;
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(15);

/// A tree ensemble that passed every check.
#[derive(Debug)]
pub struct NativeModel {
    trees: TreeEnsemble,
    pub digest: String,
}

impl NativeModel {
    /// # Errors
    /// When the bytes are not the wanted model, do not fit the features, or score their golden vectors otherwise.
    pub fn load(bytes: &[u8], sha256: Option<&str>, schema: &FeatureSchema) -> Result<Self, ModelError> {
        let package = ModelPackage::parse(bytes)?;
        if let Some(expected) = sha256 {
            package.check_sha256(expected)?;
        }
        package.check_schema(schema)?;
        let trees = package.tree_ensemble()?;
        package.verify_golden(|row| trees.score(row))?;
        Ok(Self { trees, digest: package.sha256().to_owned() })
    }

    pub fn score(&self, vector: &[f32]) -> f64 {
        f64::from(self.trees.score(vector))
    }
}

impl ModelSource {
    /// As the inference service knows it, whose way of fetching is used here too.
    fn as_config(&self) -> ModelConfig {
        ModelConfig {
            name: String::new(),
            uri: self.uri.clone(),
            sha256: self.sha256.clone(),
            endpoint: self.endpoint.clone(),
            credentials_dir: self.credentials_dir.clone(),
        }
    }
}

/// A model that may still be on its way.
#[derive(Debug, Clone, Default)]
pub struct ModelSlot {
    model: Arc<ArcSwapOption<NativeModel>>,
    problem: Arc<Mutex<Option<String>>>,
}

impl ModelSlot {
    pub fn loaded(model: NativeModel) -> Self {
        let slot = Self::default();
        slot.model.store(Some(Arc::new(model)));
        slot
    }

    /// Fetches and loads in the background, again and again until it works or `stop`.
    pub fn fetch(source: ModelSource, schema: Arc<FeatureSchema>, stop: CancellationToken) -> Self {
        let slot = Self::default();
        let filled = slot.clone();
        tokio::spawn(async move {
            let mut wait = RETRY_FIRST;
            while let Err(problem) = filled.attempt(&source, &schema).await {
                tracing::warn!(uri = source.uri, problem, retry_after = ?wait, "model is not loaded");
                *filled.problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(problem);
                tokio::select! {
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_MAX),
                    () = stop.cancelled() => return,
                }
            }
        });
        slot
    }

    async fn attempt(&self, source: &ModelSource, schema: &Arc<FeatureSchema>) -> Result<(), String> {
        let bytes = scoring_inference::fetch(&source.as_config(), BYTES_MAX).await.map_err(|error| error.to_string())?;
        let (sha256, schema) = (source.sha256.clone(), schema.clone());
        // Golden vectors and trees take a while: not on a thread that answers requests.
        let loading = tokio::task::spawn_blocking(move || NativeModel::load(&bytes, Some(&sha256), &schema));
        let model = loading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tracing::info!(uri = source.uri, digest = model.digest, "model loaded");
        self.model.store(Some(Arc::new(model)));
        Ok(())
    }

    pub fn get(&self) -> Option<Arc<NativeModel>> {
        self.model.load_full()
    }

    /// Why there is no model yet.
    pub fn problem(&self) -> Option<String> {
        if self.model.load().is_some() {
            return None;
        }
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(problem.unwrap_or_else(|| "still being fetched".into()))
    }
}

#[cfg(test)]
mod tests {
    use scoring_core::windows::Windows;
    use sha2::{Digest as _, Sha256};

    use super::*;

    const LIGHT: &[u8] = include_bytes!("../../../models/light.onnx");

    fn schema() -> Arc<FeatureSchema> {
        Arc::new(FeatureSchema::light(&Windows::default()))
    }

    #[test]
    fn only_the_wanted_file_that_fits_the_features_is_loaded() {
        let digest = hex::encode(Sha256::digest(LIGHT));
        let model = NativeModel::load(LIGHT, Some(&digest), &schema()).unwrap();
        assert_eq!(model.digest, digest);
        let other_digest = NativeModel::load(LIGHT, Some(&"0".repeat(64)), &schema()).unwrap_err().to_string();
        assert!(other_digest.contains("SHA-256"), "{other_digest}");
        let full = FeatureSchema::full(&Windows::default());
        assert!(NativeModel::load(LIGHT, None, &full).unwrap_err().to_string().contains("feature schema"));
        assert!(NativeModel::load(b"not a model", None, &schema()).is_err());
    }

    #[tokio::test]
    async fn a_model_that_appears_later_is_loaded_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("light.onnx");
        let source = ModelSource {
            uri: format!("file://{}", path.display()),
            sha256: hex::encode(Sha256::digest(LIGHT)),
            endpoint: None,
            credentials_dir: None,
        };
        let slot = ModelSlot::fetch(source, schema(), CancellationToken::new());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(slot.get().is_none() && slot.problem().unwrap().contains("light.onnx"), "{:?}", slot.problem());
        std::fs::write(&path, LIGHT).unwrap();
        for _ in 0..100 {
            if slot.get().is_some() {
                assert_eq!(slot.problem(), None);
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{:?}", slot.problem());
    }
}
