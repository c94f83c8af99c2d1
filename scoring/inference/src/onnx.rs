//! ONNX Runtime: finding its shared library, and sessions that score rows. The only file that calls `ort`.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ort::{
    environment::Environment,
    logging::LogLevel,
    session::{Session, builder::PrepackedWeights},
    value::TensorRef,
};
use scoring_model::{INPUT_NAME, OUTPUT_NAME};

const NAME: &str = "libonnxruntime.so";
const USUAL_FOLDERS: &[&str] =
    &["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib", "/usr/local/lib", "/opt/onnxruntime/lib"];

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error(
        "ONNX Runtime was not found. Install 1.{minor} or newer for this machine (its release archive and its Python wheel both contain {NAME}) and name that file in runtime.library or the environment variable ORT_DYLIB_PATH. Looked at: {looked_at}",
        minor = ort::MINOR_VERSION
    )]
    NotFound { looked_at: String },
    #[error("ONNX Runtime at {} cannot be used: {why}. Install 1.{minor} or newer", path.display(), minor = ort::MINOR_VERSION)]
    Unusable { path: PathBuf, why: String },
}

/// The loaded library. There is one in a process: the first path that was loaded stays.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
    path: PathBuf,
}

impl OnnxRuntime {
    /// Loads the library named in the configuration, or by `ORT_DYLIB_PATH`, or from the usual places.
    ///
    /// # Errors
    /// When it is not there or too old; the message says what to install.
    pub fn load(configured: Option<&Path>) -> Result<Self, RuntimeError> {
        // The library allows one environment in a process.
        static LOADED: Mutex<Option<OnnxRuntime>> = Mutex::new(None);
        let path = find(configured)?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*loaded {
            return Ok(runtime.clone());
        }
        let runtime = Self::open(path)?;
        *loaded = Some(runtime.clone());
        Ok(runtime)
    }

    fn open(path: PathBuf) -> Result<Self, RuntimeError> {
        let unusable = |why: String| RuntimeError::Unusable { path: path.clone(), why };
        let builder = ort::init_from(&path).map_err(|error| unusable(error.to_string()))?;
        let builder = builder.with_name("fraudpipeline").with_telemetry(false).with_logger(Arc::new(log));
        let environment = builder.build().map_err(|error| unusable(error.to_string()))?;
        Ok(Self { environment, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As many sessions of one model as there are threads. They share the weights.
    pub(crate) fn sessions(&self, model: &[u8], count: usize) -> Result<Vec<Mutex<OnnxSession>>, String> {
        let weights = PrepackedWeights::new();
        (0..count).map(|_| self.session(model, &weights).map(Mutex::new)).collect()
    }

    fn session(&self, model: &[u8], weights: &PrepackedWeights) -> Result<OnnxSession, String> {
        // One thread runs one session: threads inside a session, and their spinning, only take processors from the others.
        let session = Session::builder(&self.environment)
            .map_err(text)?
            .with_intra_threads(1)
            .map_err(text)?
            .with_inter_threads(1)
            .map_err(text)?
            .with_intra_op_spinning(false)
            .map_err(text)?
            .with_inter_op_spinning(false)
            .map_err(text)?
            .with_prepacked_weights(weights)
            .map_err(text)?
            .commit_from_memory(model)
            .map_err(text)?;
        Ok(OnnxSession { session })
    }
}

fn text<T>(error: ort::Error<T>) -> String {
    error.to_string()
}

fn find(configured: Option<&Path>) -> Result<PathBuf, RuntimeError> {
    let named =
        configured.map(Path::to_owned).or_else(|| std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from));
    // What was named explicitly is meant: no other library takes its place.
    let candidates = match named {
        Some(path) => vec![path],
        None => USUAL_FOLDERS.iter().map(|folder| Path::new(folder).join(NAME)).collect(),
    };
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let looked_at: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        RuntimeError::NotFound { looked_at: looked_at.join(", ") }
    })
}

fn log(level: LogLevel, category: &str, _id: &str, _location: &str, message: &str) {
    match level {
        LogLevel::Verbose | LogLevel::Info => tracing::debug!(category, "onnxruntime: {message}"),
        LogLevel::Warning => tracing::warn!(category, "onnxruntime: {message}"),
        LogLevel::Error | LogLevel::Fatal => tracing::error!(category, "onnxruntime: {message}"),
    }
}

/// One model, ready to run on one thread at a time.
pub(crate) struct OnnxSession {
    session: Session,
}

impl OnnxSession {
    /// Scores row-major `rows` of `features` columns: one score per row, in their order.
    pub(crate) fn score(&mut self, rows: &[f32], features: usize) -> Result<Vec<f32>, String> {
        let count = rows.len() / features;
        let input = TensorRef::from_array_view(([count, features], rows)).map_err(text)?;
        let outputs = self.session.run(ort::inputs![INPUT_NAME => input]).map_err(text)?;
        let output = outputs.get(OUTPUT_NAME).ok_or_else(|| format!("the model gave no output {OUTPUT_NAME}"))?;
        let (_, scores) = output.try_extract_tensor::<f32>().map_err(text)?;
        if scores.len() != count {
            return Err(format!("the model gave {} scores for {count} rows", scores.len()));
        }
        Ok(scores.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_answered_with_what_to_install() {
        let Err(error) = OnnxRuntime::load(Some(Path::new("/does/not/exist.so"))) else { panic!("loaded nothing") };
        let text = error.to_string();
        assert!(text.contains("runtime.library") && text.contains("/does/not/exist.so") && text.contains("Install 1."), "{text}");
    }

    #[test]
    fn a_file_that_is_no_library_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Err(error) = OnnxRuntime::load(Some(file.path())) else { panic!("loaded an empty file") };
        assert!(error.to_string().contains("cannot be used"), "{error}");
    }
}
