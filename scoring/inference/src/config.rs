//! The file that `--config` names: what is served, where, and within which bounds. The operator renders it; a change of its
//! `model` section takes effect without a restart. Does no IO.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use scoring_core::windows::{Window, Windows};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    pub listen: Listen,
    /// The model to serve. Followed while the process runs.
    pub model: ModelConfig,
    /// `spec.features.windows`: a model is served only if it was trained on features over these.
    #[serde(default = "windows")]
    pub windows: Vec<Window>,
    /// Verified models are kept here, so that a restart needs no object storage. Must be writable.
    pub cache_dir: PathBuf,
    #[serde(default)]
    pub runtime: Runtime,
    #[serde(default)]
    pub limits: Limits,
    /// Most time between SIGTERM and the end: requests that have begun are answered.
    #[serde(with = "domain::duration", default = "shutdown_grace")]
    pub shutdown_grace: Duration,
}

/// Where a model is, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The name by which clients ask for it.
    pub name: String,
    /// `file:///path`, `http(s)://host/path`, or `s3://bucket/key` on `endpoint`.
    pub uri: String,
    /// SHA-256 of the file in hexadecimal. Another file is not served.
    pub sha256: String,
    /// The region's object storage, for `s3://`. Absent: Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A mounted Secret with files `accessKeyId` and `secretAccessKey`. Absent: requests are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// The Open Inference Protocol over gRPC.
    pub grpc: SocketAddr,
    /// The Open Inference Protocol over HTTP and JSON.
    pub rest: SocketAddr,
    /// `/livez`, `/readyz`, `/metrics`.
    pub admin: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self { grpc: any(8081), rest: any(8082), admin: any(9090) }
    }
}

/// ONNX Runtime and the threads that run it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// The shared library. Absent: the environment variable `ORT_DYLIB_PATH`, then the usual places.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<PathBuf>,
    /// Threads that run the model, one session each. Absent: as many as there are processors to use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that wait for a thread. One more is refused at once: a late score is worth nothing.
    pub queue_max: usize,
    /// Rows of one request.
    pub rows_max: usize,
    /// Size of one request.
    pub request_bytes_max: usize,
    /// A larger model is not downloaded.
    pub model_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue_max: 1024, rows_max: 1024, request_bytes_max: 4 << 20, model_bytes_max: 256 << 20 }
    }
}

fn windows() -> Vec<Window> {
    Windows::default().lengths().to_vec()
}

fn shutdown_grace() -> Duration {
    Duration::from_secs(25)
}

/// A field with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    pub field: &'static str,
    pub problem: String,
}

impl Config {
    /// # Errors
    /// When a field has a value that cannot work.
    pub fn check(&self) -> Result<(), InvalidField> {
        self.model.check()?;
        self.feature_windows()?;
        let threads = self.runtime.threads;
        if threads.is_some_and(|threads| threads == 0 || threads > 1024) {
            return Err(invalid("runtime.threads", "must be from 1 to 1024, or absent"));
        }
        for (field, value) in [
            ("limits.queue_max", self.limits.queue_max),
            ("limits.rows_max", self.limits.rows_max),
            ("limits.request_bytes_max", self.limits.request_bytes_max),
            ("limits.model_bytes_max", usize::try_from(self.limits.model_bytes_max).unwrap_or(usize::MAX)),
        ] {
            if value == 0 {
                return Err(invalid(field, "must be at least 1"));
            }
        }
        Ok(())
    }
}

impl Config {
    /// # Errors
    /// When there are no windows, too many, or they do not rise.
    pub fn feature_windows(&self) -> Result<Windows, InvalidField> {
        let usual = Windows::default();
        let skew = Duration::from_millis(usual.skew_ms().unsigned_abs());
        Windows::new(self.windows.clone(), skew, usual.events_max()).map_err(|error| invalid("windows", &error.to_string()))
    }
}

impl ModelConfig {
    /// # Errors
    /// When a field has a value that cannot work.
    pub fn check(&self) -> Result<(), InvalidField> {
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if self.name.is_empty() || self.name.len() > 128 || !plain(&self.name) {
            return Err(invalid("model.name", "use 1 to 128 letters, digits, '-', '_' and '.'"));
        }
        if self.sha256.len() != 64 || !self.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid("model.sha256", "write the SHA-256 of the model file as 64 hexadecimal digits"));
        }
        if !["file://", "http://", "https://", "s3://"].iter().any(|scheme| self.uri.starts_with(scheme)) {
            return Err(invalid("model.uri", "start it with file://, http://, https:// or s3://"));
        }
        Ok(())
    }
}

fn invalid(field: &'static str, problem: &str) -> InvalidField {
    InvalidField { field, problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = include_str!("../tests/config.yaml");

    #[test]
    fn the_full_sample_is_read_and_written_without_loss() {
        let config: Config = serde_yaml::from_str(FULL).unwrap();
        config.check().unwrap();
        let again: Config = serde_yaml::from_str(&serde_yaml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        assert_eq!(config.model.credentials_dir, Some("/etc/fraudpipeline/model".into()));
    }

    #[test]
    fn a_wrong_value_is_refused_by_the_name_of_its_field() {
        let wrong = |change: fn(&mut Config)| {
            let mut config: Config = serde_yaml::from_str(FULL).unwrap();
            change(&mut config);
            config.check().unwrap_err().field
        };
        assert_eq!(wrong(|config| config.model.sha256 = "abc".into()), "model.sha256");
        assert_eq!(wrong(|config| config.model.uri = "models/a.onnx".into()), "model.uri");
        assert_eq!(wrong(|config| config.model.name = "a/b".into()), "model.name");
        assert_eq!(wrong(|config| config.runtime.threads = Some(0)), "runtime.threads");
        assert_eq!(wrong(|config| config.limits.queue_max = 0), "limits.queue_max");
        assert_eq!(wrong(|config| config.windows.reverse()), "windows");
    }
}
