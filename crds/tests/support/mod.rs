//! What the tests against real programs share. Each test target uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod cluster;
pub(crate) mod helm;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What a case file says in its first line that must come of it.
pub(crate) enum Expected {
    /// Refused, with this sentence somewhere in the answer.
    Refused(String),
    Accepted,
}

/// Reads `# refused: <sentence>` or `# accepted`.
pub(crate) fn expected(text: &str) -> Expected {
    let first = text.lines().next().unwrap_or_default();
    if let Some(sentence) = first.strip_prefix("# refused: ") {
        return Expected::Refused(sentence.trim().to_owned());
    }
    assert!(first.starts_with("# accepted"), "a case starts with `# refused: <sentence>` or `# accepted`, not with {first:?}");
    Expected::Accepted
}

/// A message without the line breaks and backslashes that programs put into it.
pub(crate) fn plain(message: &str) -> String {
    message.replace("\\\"", "\"").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The folder of a checked-in file of this repository.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The YAML files of a folder, in the order of their names.
pub(crate) fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}
