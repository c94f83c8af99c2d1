//! Container images from our own binaries: each binary, the shared libraries it needs, and the certificates of public authorities. No shell, no package manager.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::docker_archive;
use crate::place::Place;
use crate::progress;
use crate::tar::Entry;
use crate::tools::Tools;

const REPOSITORY: &str = "docker.io/fraudpipeline";
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const ONNXRUNTIME_IN_IMAGE: &str = "usr/lib/libonnxruntime.so";
/// Raised when the layout of an image changes, so that images made before are made again.
const LAYOUT: u32 = 2;

/// The binaries that run in pods.
const COMPONENTS: &[Component] = &[
    Component { name: "operator", binary: "fraud-operator", onnxruntime: false, tools: &[] },
    Component { name: "decision", binary: "scoring-decision", onnxruntime: false, tools: &[] },
    Component { name: "inference", binary: "scoring-inference", onnxruntime: true, tools: &[] },
    // The jobs that take snapshots of the feature store run from this image too.
    Component { name: "builder", binary: "scoring-builder", onnxruntime: false, tools: &["fraud-features"] },
    Component { name: "replicator", binary: "replicator", onnxruntime: false, tools: &[] },
];

/// What runs on this machine beside the clusters: the sandbox itself, the command line tool, the payment stream and the auditor.
const HOST_PROGRAMS: &[&str] = &["sandbox", "kubectl-fraud", "fraud-payments", "fraud-chaos"];

struct Component {
    name: &'static str,
    binary: &'static str,
    onnxruntime: bool,
    /// Further programs in the image.
    tools: &'static [&'static str],
}

/// One line of `target/images/images.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BuiltImage {
    pub(crate) component: String,
    pub(crate) name: String,
    pub(crate) archive: PathBuf,
    /// What it was made from: paths, sizes and times of change. The same again means that nothing need be done.
    inputs: String,
}

/// What the sandbox reads with `--tools`: where everything is that it starts or imports.
#[derive(Serialize)]
struct Toolbox<'a> {
    kubebox: &'a Path,
    helm: &'a Path,
    coredns: &'a Path,
    metrics_server: &'a Path,
    kafka_libs: &'a Path,
    java: &'a Path,
    onnxruntime: &'a Path,
    images: Vec<ToolboxImage<'a>>,
}

#[derive(Serialize)]
struct ToolboxImage<'a> {
    name: &'a str,
    archive: &'a Path,
}

/// Builds what the demo and the end-to-end tests run, makes the images, and writes `target/toolbox.json`.
pub(crate) fn ensure(place: &Place, tools: &Tools) -> Result<Vec<BuiltImage>> {
    build_programs(place)?;
    let images = make_images(place, tools)?;
    write_toolbox(place, tools, &images)?;
    Ok(images)
}

pub(crate) fn toolbox_path(place: &Place) -> PathBuf {
    place.target.join("toolbox.json")
}

/// The sandbox's `--tools` file, with the images that are there already; the sandbox binary itself is built, the images are not.
pub(crate) fn ensure_sandbox_only(place: &Place, tools: &Tools) -> Result<()> {
    cargo_build(place, &["sandbox"])?;
    let there: Vec<BuiltImage> = previous_images(place).into_iter().filter(|image| image.archive.is_file()).collect();
    write_toolbox(place, tools, &there)
}

pub(crate) fn build_programs(place: &Place) -> Result<()> {
    let components = COMPONENTS.iter().flat_map(|component| [component.binary].into_iter().chain(component.tools.iter().copied()));
    cargo_build(place, &components.chain(HOST_PROGRAMS.iter().copied()).collect::<Vec<_>>())
}

/// From the whole workspace, narrowed by the names of the programs: another choice of packages is another choice of features, and builds
/// half of the dependencies anew. Cargo shows its own progress, so its output goes straight to the terminal.
fn cargo_build(place: &Place, programs: &[&str]) -> Result<()> {
    place.make_folder(&place.target)?;
    let mut command = place.cargo();
    command.args(["build", "--locked", "--workspace"]);
    for binary in programs {
        command.args(["--bin", binary]);
    }
    let status = command.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the build failed ({status}); the compiler's message is above");
    }
    Ok(())
}

fn make_images(place: &Place, tools: &Tools) -> Result<Vec<BuiltImage>> {
    place.make_folder(&place.target.join("images"))?;
    let previous = previous_images(place);
    let mut images = Vec::new();
    for component in COMPONENTS {
        let started = Instant::now();
        let before = previous.iter().find(|image| image.component == component.name);
        let (image, made) = make_image(place, tools, component, before)?;
        if made {
            progress::note(&format!("image {} ({})", image.name, progress::seconds(started.elapsed())));
        }
        images.push(image);
    }
    write_json(&place.target.join("images/images.json"), &images)?;
    remove_unused_archives(place, &images)?;
    place.give_to_user(&place.target.join("images"))?;
    Ok(images)
}

/// The image of a component, and whether it had to be made.
fn make_image(place: &Place, tools: &Tools, component: &Component, before: Option<&BuiltImage>) -> Result<(BuiltImage, bool)> {
    let binary = place.binary(component.binary);
    let mut objects = vec![binary.clone()];
    objects.extend(component.tools.iter().map(|tool| place.binary(tool)));
    if component.onnxruntime {
        objects.push(tools.onnxruntime.clone());
    }
    let libraries = shared_libraries(&objects)?;
    let inputs = fingerprint(objects.iter().chain(&libraries))?;
    if let Some(image) = before.filter(|image| image.inputs == inputs && image.archive.is_file()) {
        return Ok((image.clone(), false));
    }
    let mut files = vec![Entry::file(&format!("usr/bin/{}", component.binary), 0o755, stripped(place, &binary)?)];
    for tool in component.tools {
        files.push(Entry::file(&format!("usr/bin/{tool}"), 0o755, stripped(place, &place.binary(tool))?));
    }
    if component.onnxruntime {
        files.push(Entry::file(ONNXRUNTIME_IN_IMAGE, 0o755, read(&tools.onnxruntime)?));
    }
    for library in &libraries {
        files.push(Entry::file(library.to_string_lossy().trim_start_matches('/'), 0o755, read(library)?));
    }
    files.push(Entry::file("etc/passwd", 0o644, b"nonroot:x:65532:65532:nonroot:/:/nonexistent\n".to_vec()));
    if Path::new(CERTIFICATES).is_file() {
        files.push(Entry::file(CERTIFICATES.trim_start_matches('/'), 0o644, read(Path::new(CERTIFICATES))?));
    }
    let image = docker_archive::image(&format!("{REPOSITORY}/{}", component.binary), &format!("/usr/bin/{}", component.binary), files)?;
    let archive = place.target.join("images").join(format!("{}.tar", image.name.replace(['/', ':'], "-")));
    write_whole(&archive, &image.archive)?;
    Ok((BuiltImage { component: component.name.to_string(), name: image.name, archive, inputs }, true))
}

/// Everything that the loader would load for these files, by the path under which it looks for it.
fn shared_libraries(objects: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let mut libraries = BTreeSet::new();
    for object in objects {
        let said = progress::output(Command::new("ldd").arg(object))
            .with_context(|| format!("cannot list the libraries of {}", object.display()))?;
        if let Some(missing) = said.lines().find(|line| line.contains("not found")) {
            bail!("{} needs a library that this machine lacks: {}. Run `cargo xtask doctor`", object.display(), missing.trim());
        }
        libraries.extend(parse_ldd(&said));
    }
    Ok(libraries)
}

fn parse_ldd(said: &str) -> impl Iterator<Item = PathBuf> + '_ {
    said.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).map(PathBuf::from)
}

fn fingerprint<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<String> {
    let mut text = format!("layout {LAYOUT}");
    for path in paths {
        let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
        text.push_str(&format!("; {} {} {}.{:09}", path.display(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()));
    }
    Ok(text)
}

/// The binary without its debug information: a tenth of the size, and what the image's tag is made from.
fn stripped(place: &Place, binary: &Path) -> Result<Vec<u8>> {
    let copy = place.target.join("images").join(format!("{}.stripped", binary.file_name().unwrap_or_default().to_string_lossy()));
    progress::output(Command::new("strip").arg("--strip-all").arg("-o").arg(&copy).arg(binary))
        .context("cannot strip a binary: install binutils")?;
    let bytes = read(&copy)?;
    std::fs::remove_file(&copy).with_context(|| format!("cannot remove {}", copy.display()))?;
    Ok(bytes)
}

fn remove_unused_archives(place: &Place, images: &[BuiltImage]) -> Result<()> {
    let folder = place.target.join("images");
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let used = images.iter().any(|image| image.archive == path);
        if path.extension().is_some_and(|extension| extension == "tar") && !used {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// What an earlier run left; nothing if it left nothing that can be read, since everything can be made again.
fn previous_images(place: &Place) -> Vec<BuiltImage> {
    std::fs::read(place.target.join("images/images.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write_toolbox(place: &Place, tools: &Tools, images: &[BuiltImage]) -> Result<()> {
    let toolbox = Toolbox {
        kubebox: &tools.kubebox,
        helm: &tools.helm,
        coredns: &tools.coredns,
        metrics_server: &tools.metrics_server,
        kafka_libs: &tools.kafka_libs,
        java: &tools.java,
        onnxruntime: &tools.onnxruntime,
        images: images.iter().map(|image| ToolboxImage { name: &image.name, archive: &image.archive }).collect(),
    };
    write_json(&toolbox_path(place), &toolbox)?;
    place.give_to_user(&toolbox_path(place))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Appears at its name only when it is complete.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("cannot write {}", path.display()))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    write_whole(path, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_names_the_libraries_and_the_loader() {
        let said = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<PathBuf> = parse_ldd(said).collect();
        assert_eq!(found, [PathBuf::from("/lib/x86_64-linux-gnu/libssl.so.3"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]);
        assert_eq!(parse_ldd("\tstatically linked\n").count(), 0);
    }
}
