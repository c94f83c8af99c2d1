//! Fetching a model file: from a path, a web server, or object storage. Bounded in size and time.

use std::{path::Path, time::Duration};

use futures::StreamExt as _;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig, aws::AmazonS3Builder, http::HttpBuilder, path::Path as ObjectPath,
};

use crate::config::ModelConfig;

/// Of a whole transfer.
const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("model.uri {uri}: {problem}")]
    BadUri { uri: String, problem: &'static str },
    #[error("model {uri} cannot be read: {source}")]
    File { uri: String, source: std::io::Error },
    #[error("model.credentials_dir: {file} cannot be read: {source}")]
    Credentials { file: String, source: std::io::Error },
    #[error("model {uri} is not there: check model.uri, and that the file was uploaded to this region's storage")]
    Missing { uri: String },
    #[error("model {uri} may not be read: give the service credentials that may, or make the object readable without")]
    Denied { uri: String },
    #[error("model {uri} cannot be fetched: {source}")]
    Store { uri: String, source: object_store::Error },
    #[error("model {uri} is larger than the {bytes_max} bytes allowed: train a smaller one, or raise limits.model_bytes_max")]
    TooLarge { uri: String, bytes_max: u64 },
}

/// # Errors
/// When the model is not there, may not be read, is too large, or its store does not answer.
pub async fn fetch(model: &ModelConfig, bytes_max: u64) -> Result<Vec<u8>, FetchError> {
    let uri = model.uri.as_str();
    if let Some(path) = uri.strip_prefix("file://") {
        return read_file(uri, Path::new(path), bytes_max).await;
    }
    if let Some(rest) = uri.strip_prefix("s3://") {
        let (bucket, key) = split(uri, rest)?;
        let store = s3(model, bucket)?;
        return download(uri, &store, key, bytes_max).await;
    }
    for scheme in ["http", "https"] {
        let Some(rest) = uri.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")) else { continue };
        let (host, path) = split(uri, rest)?;
        let store = HttpBuilder::new()
            .with_url(format!("{scheme}://{host}"))
            .with_client_options(client_options())
            .with_retry(retry())
            .build()
            .map_err(|source| FetchError::Store { uri: uri.to_owned(), source })?;
        return download(uri, &store, path, bytes_max).await;
    }
    Err(bad(uri, "start it with file://, http://, https:// or s3://"))
}

fn split<'a>(uri: &str, rest: &'a str) -> Result<(&'a str, &'a str), FetchError> {
    if rest.contains(['?', '#']) {
        return Err(bad(uri, "a query or fragment is not understood"));
    }
    match rest.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => Ok((host, path)),
        _ => Err(bad(uri, "write a host or bucket, a slash, and the path of the file")),
    }
}

fn bad(uri: &str, problem: &'static str) -> FetchError {
    FetchError::BadUri { uri: uri.chars().take(200).collect(), problem }
}

fn s3(model: &ModelConfig, bucket: &str) -> Result<impl ObjectStore, FetchError> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region("us-east-1")
        .with_virtual_hosted_style_request(false)
        .with_client_options(client_options())
        .with_retry(retry());
    if let Some(endpoint) = &model.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    builder = match &model.credentials_dir {
        None => builder.with_skip_signature(true),
        Some(folder) => {
            builder.with_access_key_id(credential(folder, "accessKeyId")?).with_secret_access_key(credential(folder, "secretAccessKey")?)
        }
    };
    builder.build().map_err(|source| FetchError::Store { uri: model.uri.clone(), source })
}

fn credential(folder: &Path, name: &str) -> Result<String, FetchError> {
    let file = folder.join(name);
    let text = std::fs::read_to_string(&file).map_err(|source| FetchError::Credentials { file: file.display().to_string(), source })?;
    Ok(text.trim().to_owned())
}

fn client_options() -> ClientOptions {
    ClientOptions::new().with_allow_http(true).with_timeout(TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT)
}

/// Few attempts: the caller tries again by itself, and shows why it has to.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 1, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() }
}

async fn download(uri: &str, store: &impl ObjectStore, path: &str, bytes_max: u64) -> Result<Vec<u8>, FetchError> {
    let failed = |source| match source {
        object_store::Error::NotFound { .. } => FetchError::Missing { uri: uri.to_owned() },
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            FetchError::Denied { uri: uri.to_owned() }
        }
        source => FetchError::Store { uri: uri.to_owned(), source },
    };
    let too_large = || FetchError::TooLarge { uri: uri.to_owned(), bytes_max };
    let path = ObjectPath::from_url_path(path).map_err(|_| bad(uri, "its path is not a path of an object"))?;
    let found = store.get(&path).await.map_err(failed)?;
    if found.meta.size > bytes_max {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut parts = found.into_stream();
    while let Some(part) = parts.next().await {
        let part = part.map_err(failed)?;
        // The announced size is the server's word only.
        if bytes.len() as u64 + part.len() as u64 > bytes_max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

async fn read_file(uri: &str, path: &Path, bytes_max: u64) -> Result<Vec<u8>, FetchError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => FetchError::Missing { uri: uri.to_owned() },
        std::io::ErrorKind::PermissionDenied => FetchError::Denied { uri: uri.to_owned() },
        _ => FetchError::File { uri: uri.to_owned(), source },
    };
    if tokio::fs::metadata(path).await.map_err(failed)?.len() > bytes_max {
        return Err(FetchError::TooLarge { uri: uri.to_owned(), bytes_max });
    }
    tokio::fs::read(path).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::StatusCode, routing::get};

    use super::*;

    fn model(uri: String, endpoint: Option<String>) -> ModelConfig {
        ModelConfig { name: "fraud".into(), uri, sha256: "0".repeat(64), endpoint, credentials_dir: None }
    }

    /// An object store as far as reading goes: one object, and a path that may not be read.
    async fn store() -> String {
        let app = Router::new()
            .route("/models/fraud/a.onnx", get(|| async { "model" }))
            .route("/models/secret.onnx", get(|| async { StatusCode::FORBIDDEN }))
            .route(
                "/models/endless.onnx",
                get(|| async { Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![0_u8; 1024]))) }),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn the_same_file_is_fetched_from_disk_web_and_object_storage() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.onnx"), "model").unwrap();
        let url = store().await;
        for source in [
            model(format!("file://{}/a.onnx", folder.path().display()), None),
            model(format!("{url}/models/fraud/a.onnx"), None),
            model("s3://models/fraud/a.onnx".into(), Some(url.clone())),
        ] {
            assert_eq!(fetch(&source, 100).await.unwrap(), b"model", "{}", source.uri);
            assert!(matches!(fetch(&source, 4).await, Err(FetchError::TooLarge { .. })), "{}", source.uri);
        }
    }

    #[tokio::test]
    async fn what_went_wrong_is_told_apart() {
        let url = store().await;
        let s3 = |uri: &str| model(uri.into(), Some(url.clone()));
        assert!(matches!(fetch(&s3("s3://models/absent.onnx"), 100).await, Err(FetchError::Missing { .. })));
        assert!(matches!(fetch(&s3("s3://models/secret.onnx"), 100).await, Err(FetchError::Denied { .. })));
        assert!(matches!(fetch(&s3("s3://models"), 100).await, Err(FetchError::BadUri { .. })));
        assert!(matches!(fetch(&model("file:///does/not/exist".into(), None), 100).await, Err(FetchError::Missing { .. })));
        let gone = model("s3://models/a.onnx".into(), Some("http://127.0.0.1:1".into()));
        assert!(matches!(fetch(&gone, 100).await, Err(FetchError::Store { .. })));
    }

    #[tokio::test]
    async fn a_file_without_an_end_is_given_up_at_the_limit() {
        let url = store().await;
        let result = fetch(&model("s3://models/endless.onnx".into(), Some(url)), 10_000).await;
        // Without a length the client may refuse it at once.
        assert!(matches!(result, Err(FetchError::TooLarge { .. } | FetchError::Store { .. })), "{result:?}");
    }
}
