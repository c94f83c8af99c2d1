//! Container images as docker-archives, made from local files and their shared libraries. IO: reads files, runs `ldd`, writes one
//! tar. The same content always gives the same bytes, so an image's tag can be the hash of its layer.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sha2::{Digest, Sha256};

const BLOCK: usize = 512;
/// Folders that programs expect, with their modes.
const FOLDERS: [(&str, u32); 6] =
    [("data/", 0o1777), ("dev/", 0o755), ("etc/", 0o755), ("proc/", 0o755), ("sys/", 0o755), ("tmp/", 0o1777)];

pub(crate) struct Recipe<'a> {
    /// Without a tag.
    pub name: &'a str,
    pub entrypoint: Vec<String>,
    /// Where the program is here, and in the image.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// Makes the archive in the folder unless it is there, and gives its full image name.
pub(crate) fn make(recipe: &Recipe<'_>, folder: &Path) -> Result<(String, PathBuf)> {
    let layer = layer(&with_libraries(&recipe.files)?)?;
    let layer_digest = digest(&layer);
    let config = serde_json::to_vec(&json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": recipe.entrypoint, "Env": ["PATH=/usr/bin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer_digest}")]},
        "history": [{}],
    }))?;
    let config_digest = digest(&config);
    let tag: String = config_digest.chars().take(16).collect();
    let full_name = format!("{}:{tag}", recipe.name);
    let path = folder.join(format!("{}-{tag}.tar", recipe.name.rsplit('/').next().unwrap_or(recipe.name)));
    if path.exists() {
        return Ok((full_name, path));
    }
    let (config_name, layer_name) = (format!("{config_digest}.json"), format!("{layer_digest}/layer.tar"));
    let manifest = serde_json::to_vec(&json!([{"Config": config_name, "RepoTags": [full_name], "Layers": [layer_name]}]))?;
    let mut tar = Vec::with_capacity(layer.len() + (1 << 16));
    append(&mut tar, &config_name, 0o644, Some(&config))?;
    append(&mut tar, &layer_name, 0o644, Some(&layer))?;
    append(&mut tar, "manifest.json", 0o644, Some(&manifest))?;
    finish(&mut tar);
    let draft = path.with_extension("draft");
    fs::write(&draft, &tar).and_then(|()| fs::rename(&draft, &path)).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((full_name, path))
}

/// As container images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The files and every library that the loader would load for them, by path in the image.
fn with_libraries(files: &[(PathBuf, PathBuf)]) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let mut all = BTreeMap::new();
    for (here, there) in files {
        all.insert(there.clone(), here.clone());
        let output = Command::new("ldd").arg(here).output().context("cannot run `ldd`; install it with `apt-get install libc-bin`")?;
        // A static program makes ldd fail with a sentence instead of a list: it needs nothing.
        let listed = if output.status.success() { String::from_utf8_lossy(&output.stdout).into_owned() } else { String::new() };
        for library in libraries(&listed) {
            let real = fs::canonicalize(&library).with_context(|| format!("{} needs {library}, which is not here", here.display()))?;
            all.insert(PathBuf::from(library), real);
        }
    }
    Ok(all)
}

fn libraries(ldd: &str) -> Vec<String> {
    ldd.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

fn layer(files: &BTreeMap<PathBuf, PathBuf>) -> Result<Vec<u8>> {
    let mut tar = Vec::new();
    for (folder, mode) in FOLDERS {
        append(&mut tar, folder, mode, None)?;
    }
    for (there, here) in files {
        let content = fs::read(here).with_context(|| format!("cannot read {}", here.display()))?;
        let name = there.to_str().with_context(|| format!("{} is not UTF-8", there.display()))?;
        append(&mut tar, name.trim_start_matches('/'), 0o755, Some(&content))?;
    }
    finish(&mut tar);
    Ok(tar)
}

/// One entry in the ustar format: a file with content, or a folder without. Owner root, time zero.
fn append(tar: &mut Vec<u8>, name: &str, mode: u32, content: Option<&[u8]>) -> Result<()> {
    ensure!(name.len() < 100, "{name:?} is too long a name for an image of the sandbox");
    let size = content.map_or(0, <[u8]>::len);
    let mut header = [0u8; BLOCK];
    let mut put = |offset: usize, bytes: &[u8]| {
        for (to, from) in header.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    };
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, if content.is_some() { b"0" } else { b"5" });
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    tar.write_all(&header)?;
    tar.write_all(content.unwrap_or_default())?;
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    Ok(())
}

fn finish(tar: &mut Vec<u8>) {
    tar.resize(tar.len() + 2 * BLOCK, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_an_ldd_listing_are_libraries() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x1)\n";
        assert_eq!(libraries(listing), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn tar_reads_back_what_was_packed_and_the_same_files_give_the_same_tag() {
        let folder = std::env::temp_dir().join(format!("sandbox-archive-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("hello");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        let recipe = || Recipe {
            name: "docker.io/fraudpipeline/hello",
            entrypoint: vec!["/hello".to_owned()],
            files: vec![(file.clone(), PathBuf::from("/usr/bin/hello"))],
        };
        let (name, path) = make(&recipe(), &folder).unwrap();
        let listing = Command::new("tar").arg("-tf").arg(&path).output().unwrap();
        let entries = String::from_utf8(listing.stdout).unwrap();
        assert!(entries.ends_with("manifest.json\n"), "{entries}");
        let layer = entries.lines().find(|line| line.ends_with("/layer.tar")).unwrap();
        let inner =
            Command::new("sh").arg("-c").arg(format!("tar -xOf {} {layer} | tar -xO usr/bin/hello", path.display())).output().unwrap();
        assert_eq!(String::from_utf8(inner.stdout).unwrap(), "#!/bin/sh\n");
        assert_eq!(make(&recipe(), &folder).unwrap().0, name);
        fs::write(&file, "#!/bin/sh\nexit\n").unwrap();
        assert_ne!(make(&recipe(), &folder).unwrap().0, name);
        fs::remove_dir_all(&folder).unwrap();
    }
}
