//! Model files that were verified once, by their digest, in a folder of this pod. What is read back is verified again by
//! the loader: the folder is not trusted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Files kept: the model in service, the one before, and some room for a rollout that goes back and forth.
const FILES_MAX: usize = 4;
const LAST_GOOD: &str = "last-good";

#[derive(Debug, Clone)]
pub(crate) struct ModelCache {
    folder: PathBuf,
}

impl ModelCache {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    pub(crate) fn read(&self, sha256: &str, bytes_max: u64) -> Option<Vec<u8>> {
        let file = self.file(sha256)?;
        let length = fs::metadata(&file).ok()?.len();
        if length > bytes_max {
            return None;
        }
        fs::read(file).ok()
    }

    /// Keeps a model that went into service, and remembers it as the last good one.
    pub(crate) fn keep(&self, sha256: &str, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = self.file(sha256) else { return Ok(()) };
        if fs::metadata(&file).map(|found| found.len()).ok() != Some(bytes.len() as u64) {
            self.write_whole(&file, bytes)?;
        }
        self.write_whole(&self.folder.join(LAST_GOOD), sha256.as_bytes())?;
        self.drop_oldest(&file)
    }

    /// The digest of the model that was in service last.
    pub(crate) fn last_good(&self) -> Option<String> {
        let digest = fs::read_to_string(self.folder.join(LAST_GOOD)).ok()?;
        self.file(&digest).map(|_| digest)
    }

    /// None for what is not a digest: it would be a path.
    fn file(&self, sha256: &str) -> Option<PathBuf> {
        let digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        digest.then(|| self.folder.join(format!("{}.onnx", sha256.to_ascii_lowercase())))
    }

    /// Under another name first, so that a crash leaves no half file under the right one.
    fn write_whole(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let unfinished = self.folder.join("unfinished");
        fs::write(&unfinished, bytes)?;
        fs::rename(unfinished, file)
    }

    fn drop_oldest(&self, newest: &Path) -> io::Result<()> {
        let mut models = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "onnx") && path != newest {
                models.push((fs::metadata(&path)?.modified()?, path));
            }
        }
        models.sort();
        let surplus = (models.len() + 1).saturating_sub(FILES_MAX);
        models.into_iter().take(surplus).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn a_model_is_found_again_by_its_digest_and_known_as_the_last_good_one() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ModelCache::open(&folder.path().join("models")).unwrap();
        assert_eq!(cache.last_good(), None);
        cache.keep(&digest('A'), b"one").unwrap();
        assert_eq!(cache.read(&digest('a'), 10).unwrap(), b"one");
        assert_eq!(cache.last_good(), Some(digest('A')));
        assert_eq!(cache.read(&digest('a'), 2), None);
    }

    #[test]
    fn the_folder_does_not_grow() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ModelCache::open(folder.path()).unwrap();
        for digit in '0'..='9' {
            cache.keep(&digest(digit), b"model").unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), FILES_MAX + 1);
        assert_eq!(cache.read(&digest('9'), 10).unwrap(), b"model");
    }

    #[test]
    fn a_damaged_reminder_is_no_path() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ModelCache::open(folder.path()).unwrap();
        fs::write(folder.path().join(LAST_GOOD), "../../etc/passwd").unwrap();
        assert_eq!(cache.last_good(), None);
        assert_eq!(cache.read("../../etc/passwd", 1 << 20), None);
    }
}
