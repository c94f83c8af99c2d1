//! Where snapshots are: a bucket or a folder. `PIPELINE/REGION/ID/shard-0000.rdb` …, and `manifest.json` last.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt as _, WriteMultipart, aws::AmazonS3Builder, local::LocalFileSystem,
    path::Path as ObjectPath,
};

use crate::SnapshotError;

/// Of one request; a piece is one.
const REQUEST_WITHIN: Duration = Duration::from_secs(120);
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Of what is written or read at once. An upload has at most 10,000 pieces, so a shard may have 160 GB.
const PIECE_BYTES: usize = 16 << 20;
/// Pieces in memory for each shard.
const PIECES_AT_ONCE: usize = 2;
/// No manifest is longer.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// How storage is reached.
#[derive(Debug, Clone, Default)]
pub struct StorageConfig {
    /// `s3://BUCKET/PREFIX` or `file:///FOLDER`.
    pub uri: String,
    /// Of S3-compatible storage; without it that of AWS.
    pub endpoint: Option<String>,
    /// Folder with the files accessKeyId and secretAccessKey; without it what AWS' own tools read from the environment.
    pub credentials_dir: Option<PathBuf>,
    /// Of the bucket; without it what the environment says, else us-east-1.
    pub region: Option<String>,
}

/// Clones are the same storage.
#[derive(Clone)]
pub struct Storage {
    store: Arc<dyn ObjectStore>,
    prefix: ObjectPath,
    /// Where this is no bucket.
    folder: Option<PathBuf>,
}

impl Storage {
    /// Reads credentials; asks the storage nothing yet.
    ///
    /// # Errors
    /// When the configuration cannot work.
    pub fn open(config: &StorageConfig) -> Result<Self, SnapshotError> {
        if let Some(folder) = config.uri.strip_prefix("file://") {
            return Self::folder(config, Path::new(folder));
        }
        let Some(rest) = config.uri.strip_prefix("s3://") else {
            return Err(bad(config, "start it with s3:// or file://"));
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() || rest.contains(['?', '#', '@']) {
            return Err(bad(config, "write s3://, the name of the bucket, a slash, and the start of the keys"));
        }
        let prefix = ObjectPath::parse(prefix.trim_end_matches('/')).map_err(|error| bad(config, &error.to_string()))?;
        Ok(Self { store: Arc::new(s3(config, bucket)?), prefix, folder: None })
    }

    fn folder(config: &StorageConfig, folder: &Path) -> Result<Self, SnapshotError> {
        if !folder.is_absolute() {
            return Err(bad(config, "write file:// and an absolute path, as in file:///var/snapshots"));
        }
        let store = LocalFileSystem::new_with_prefix(folder)
            .map_err(|error| bad(config, &format!("{error}. Make the folder, or mount the volume")))?;
        Ok(Self { store: Arc::new(store.with_fsync(true)), prefix: ObjectPath::default(), folder: Some(folder.to_owned()) })
    }

    fn path(&self, name: &str) -> ObjectPath {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }

    /// Names one level below, without what is before them.
    pub(crate) async fn names(&self, below: &str) -> Result<Vec<String>, SnapshotError> {
        let path = self.path(below);
        let found =
            self.store.list_with_delimiter(Some(&path)).await.map_err(SnapshotError::storage(format!("{path}/ cannot be listed")))?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    /// A short object; `None` when it is not there.
    pub(crate) async fn small(&self, name: &str) -> Result<Option<Bytes>, SnapshotError> {
        let path = self.path(name);
        let failed = || SnapshotError::storage(format!("{path} cannot be read"));
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed()(error)),
        };
        if found.meta.size > SMALL_BYTES_MAX {
            return Err(SnapshotError::Damaged { object: path.to_string(), problem: format!("it has {} bytes", found.meta.size) });
        }
        found.bytes().await.map(Some).map_err(failed())
    }

    pub(crate) async fn put_small(&self, name: &str, bytes: Vec<u8>) -> Result<(), SnapshotError> {
        let path = self.path(name);
        self.store.put(&path, bytes.into()).await.map(drop).map_err(SnapshotError::storage(format!("{path} cannot be written")))
    }

    pub(crate) async fn size(&self, name: &str) -> Result<u64, SnapshotError> {
        let path = self.path(name);
        self.store.head(&path).await.map(|meta| meta.size).map_err(SnapshotError::storage(format!("{path} cannot be read")))
    }

    /// An object whose size is known, piece by piece.
    pub(crate) fn pieces(&self, name: &str, size: u64) -> impl Stream<Item = Result<Bytes, SnapshotError>> + Send + 'static {
        let (store, path) = (self.store.clone(), self.path(name));
        let piece = PIECE_BYTES as u64;
        let starts = (0..size.div_ceil(piece)).map(move |number| number * piece);
        let fetch = move |start: u64| {
            let (store, path) = (store.clone(), path.clone());
            async move {
                let failed = SnapshotError::storage(format!("{path} cannot be read"));
                store.get_range(&path, start..(start + piece).min(size)).await.map_err(failed)
            }
        };
        stream::iter(starts).map(fetch).buffered(PIECES_AT_ONCE)
    }

    /// Begins an object that is there only once it is finished.
    pub(crate) async fn upload(&self, name: &str) -> Result<Upload, SnapshotError> {
        let path = self.path(name);
        let upload = self.store.put_multipart(&path).await.map_err(SnapshotError::storage(format!("{path} cannot be written")))?;
        Ok(Upload { parts: WriteMultipart::new_with_chunk_size(upload, PIECE_BYTES), path })
    }

    /// Deletes what is below, the object `first` before all others.
    pub(crate) async fn delete_all(&self, below: &str, first: &str) -> Result<(), SnapshotError> {
        let path = self.path(below);
        let failed = || SnapshotError::storage(format!("{path}/ cannot be deleted"));
        let mut found: Vec<ObjectMeta> = self.store.list(Some(&path)).try_collect().await.map_err(failed())?;
        found.sort_by_key(|meta| meta.location.filename() != Some(first));
        for meta in found {
            match self.store.delete(&meta.location).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(failed()(error)),
            }
        }
        self.remove_folder(below).await.map_err(|error| failed()(object_store::Error::Generic { store: "folder", source: error.into() }))
    }

    /// With the folder itself, and what writers that were killed have left in it: neither is an object.
    async fn remove_folder(&self, below: &str) -> std::io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        match tokio::fs::remove_dir_all(folder.join(below)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// An object on its way. Dropped unfinished, it is not there.
pub(crate) struct Upload {
    parts: WriteMultipart,
    path: ObjectPath,
}

impl Upload {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), SnapshotError> {
        self.parts.wait_for_capacity(PIECES_AT_ONCE).await.map_err(SnapshotError::storage(format!("{} cannot be written", self.path)))?;
        self.parts.put(bytes);
        Ok(())
    }

    pub(crate) async fn finish(self) -> Result<(), SnapshotError> {
        self.parts.finish().await.map(drop).map_err(SnapshotError::storage(format!("{} cannot be written", self.path)))
    }

    /// What had been written takes no room any more, as far as the storage can be reached.
    pub(crate) async fn abort(self) {
        let _ = self.parts.abort().await;
    }
}

fn bad(config: &StorageConfig, problem: &str) -> SnapshotError {
    SnapshotError::BadUri { uri: config.uri.chars().take(200).collect(), problem: problem.to_owned() }
}

fn s3(config: &StorageConfig, bucket: &str) -> Result<impl ObjectStore + use<>, SnapshotError> {
    let plain = config.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let client = ClientOptions::new().with_allow_http(plain).with_timeout(REQUEST_WITHIN).with_connect_timeout(CONNECT_WITHIN);
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_client_options(client);
    if let Some(region) = &config.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &config.endpoint {
        if !plain && !endpoint.starts_with("https://") {
            return Err(bad(config, "--s3-endpoint has to start with https:// or http://"));
        }
        builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_virtual_hosted_style_request(false);
    }
    if let Some(folder) = &config.credentials_dir {
        builder =
            builder.with_access_key_id(credential(folder, "accessKeyId")?).with_secret_access_key(credential(folder, "secretAccessKey")?);
    }
    builder.build().map_err(|error| bad(config, &error.to_string()))
}

fn credential(folder: &Path, name: &str) -> Result<String, SnapshotError> {
    let file = folder.join(name);
    let text = std::fs::read_to_string(&file).map_err(|source| SnapshotError::Credentials { file: file.display().to_string(), source })?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(uri: &str, change: impl FnOnce(&mut StorageConfig)) -> Result<Storage, String> {
        let mut config = StorageConfig { uri: uri.to_owned(), ..StorageConfig::default() };
        change(&mut config);
        Storage::open(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_to_write() {
        for (uri, sentence) in [
            ("bucket/x", "start it with s3:// or file://"),
            ("s3://", "the name of the bucket"),
            ("s3://user:secret@bucket/x", "the name of the bucket"),
            ("file://relative", "an absolute path"),
            ("file:///does/not/exist", "Make the folder, or mount the volume"),
        ] {
            let error = open(uri, |_| {}).err().unwrap();
            assert!(error.contains(sentence), "{uri}: {error}");
        }
        let error = open("s3://bucket", |config| config.endpoint = Some("minio:9000".into())).err().unwrap();
        assert!(error.contains("https:// or http://"), "{error}");
    }

    #[test]
    fn a_bucket_has_its_credentials_from_files_which_are_named_when_they_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let given = |config: &mut StorageConfig| config.credentials_dir = Some(folder.path().to_owned());
        std::fs::write(folder.path().join("accessKeyId"), "id\n").unwrap();
        let error = open("s3://bucket/features/", given).err().unwrap();
        assert!(error.contains("secretAccessKey cannot be read"), "{error}");
        std::fs::write(folder.path().join("secretAccessKey"), "hush\n").unwrap();
        let storage = open("s3://bucket/features/", given).unwrap();
        assert_eq!(storage.path("payments/us-east").to_string(), "features/payments/us-east");
    }

    #[tokio::test]
    async fn long_objects_come_back_as_they_went_and_unfinished_ones_are_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let storage = open(&format!("file://{}", folder.path().display()), |_| {}).unwrap();
        let sent: Vec<u8> = (0..=255).cycle().take(2 * PIECE_BYTES + 7).collect();
        let mut upload = storage.upload("a/b/long").await.unwrap();
        for piece in sent.chunks(1 << 20) {
            upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        assert_eq!(storage.small("a/b/long").await.unwrap(), None);
        upload.finish().await.unwrap();
        assert_eq!(storage.size("a/b/long").await.unwrap(), sent.len() as u64);
        let pieces: Vec<Bytes> = storage.pieces("a/b/long", sent.len() as u64).try_collect().await.unwrap();
        assert!(pieces.concat() == sent);
        assert!(storage.small("a/b/long").await.unwrap_err().to_string().contains("is damaged"));

        let mut upload = storage.upload("a/c/torn").await.unwrap();
        upload.write(Bytes::from_static(b"x")).await.unwrap();
        upload.abort().await;
        assert!(storage.size("a/c/torn").await.is_err());
        assert_eq!(storage.names("a").await.unwrap().len(), 2);
        // As a writer that is killed leaves it.
        std::fs::write(folder.path().join("a/c/torn#1"), "x").unwrap();
        storage.delete_all("a/b", "long").await.unwrap();
        storage.delete_all("a/c", "long").await.unwrap();
        assert!(storage.names("a").await.unwrap().is_empty());
    }
}
