//! A container image as one file that `ctr images import` reads: a manifest, a configuration and a single layer. The tag is made from the content, so an image that
//! did not change keeps its name and no pod is replaced for it. Pure.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::tar::{self, Entry};

/// The user that owns no file in the image; the restricted Pod Security level asks for one that is not root.
pub(crate) const USER: &str = "65532:65532";
const TAG_DIGITS: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Image {
    /// `repository:tag`.
    pub(crate) name: String,
    pub(crate) archive: Vec<u8>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ManifestEntry {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// Builds `<repository>:<first digits of the content's hash>` from the files of its only layer.
pub(crate) fn image(repository: &str, entrypoint: &str, files: Vec<Entry>) -> Result<Image> {
    let layer = tar::archive(&with_folders(files))?;
    let layer_digest = hex::encode(Sha256::digest(&layer));
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"User": USER, "Entrypoint": [entrypoint], "WorkingDir": "/", "Env": ["PATH=/usr/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        "history": [{}],
    });
    let config = serde_json::to_vec(&config)?;
    // The configuration names the layer's digest, so its own digest covers all of the image.
    let config_digest = hex::encode(Sha256::digest(&config));
    let name = format!("{repository}:{}", &config_digest[..TAG_DIGITS]);
    let (config_path, layer_path) = (format!("{config_digest}.json"), format!("{layer_digest}/layer.tar"));
    let manifest = [ManifestEntry { config: config_path.clone(), repo_tags: vec![name.clone()], layers: vec![layer_path.clone()] }];
    let archive = tar::archive(&[
        Entry::file(&config_path, 0o644, config),
        Entry::folder(&layer_digest, 0o755),
        Entry::file(&layer_path, 0o644, layer),
        Entry::file("manifest.json", 0o644, serde_json::to_vec(&manifest)?),
    ])?;
    Ok(Image { name, archive })
}

/// Adds the folders that the files stand in and those that a container expects, and sorts everything, parents first.
fn with_folders(files: Vec<Entry>) -> Vec<Entry> {
    let mut entries: std::collections::BTreeMap<String, Entry> = std::collections::BTreeMap::new();
    for folder in ["dev", "etc", "proc", "sys", "var", "var/run"] {
        entries.insert(folder.to_string(), Entry::folder(folder, 0o755));
    }
    entries.insert("tmp".to_string(), Entry::folder("tmp", 0o1777));
    for file in files {
        for (slash, _) in file.path.match_indices('/') {
            let parent = &file.path[..slash];
            entries.entry(parent.to_string()).or_insert_with(|| Entry::folder(parent, 0o755));
        }
        entries.insert(file.path.clone(), file);
    }
    entries.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(content: &[u8]) -> Vec<Entry> {
        vec![Entry::file("usr/bin/app", 0o755, content.to_vec()), Entry::file("lib64/ld.so", 0o755, b"loader".to_vec())]
    }

    #[test]
    fn the_tag_follows_the_content_and_nothing_else() {
        let first = image("docker.io/x/app", "/usr/bin/app", files(b"one")).unwrap();
        let mut reversed = files(b"one");
        reversed.reverse();
        assert_eq!(first, image("docker.io/x/app", "/usr/bin/app", reversed).unwrap());
        let second = image("docker.io/x/app", "/usr/bin/app", files(b"two")).unwrap();
        assert_ne!(first.name, second.name);
        let (repository, tag) = first.name.rsplit_once(':').unwrap();
        assert_eq!((repository, tag.len()), ("docker.io/x/app", TAG_DIGITS));
    }

    #[test]
    fn the_image_runs_as_an_unprivileged_user_and_starts_the_binary() {
        let archive = image("docker.io/x/app", "/usr/bin/app", files(b"one")).unwrap().archive;
        let text = String::from_utf8_lossy(&archive);
        assert!(text.contains(r#""User":"65532:65532""#) && text.contains(r#""Entrypoint":["/usr/bin/app"]"#));
        assert!(text.contains(r#"[{"Config":""#), "a manifest that names the configuration");
    }

    #[test]
    fn every_file_comes_after_the_folder_it_stands_in() {
        let entries = with_folders(files(b"one"));
        let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
        let position = |wanted: &str| paths.iter().position(|path| *path == wanted).unwrap();
        assert!(position("usr") < position("usr/bin") && position("usr/bin") < position("usr/bin/app"));
        assert!(position("lib64") < position("lib64/ld.so") && paths.contains(&"tmp"));
    }
}
