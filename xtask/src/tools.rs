//! Runs recipes into the tool cache. A tool's folder appears there, under its recipe's hash, only when it is complete; so a run that was ended in the middle
//! leaves nothing that a later run could mistake for a tool, and two runs at once build each tool once.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::progress;
use crate::recipes::{self, OUT, Recipe, SOURCE, Step};

/// Where the built tools stand. Every field is the path of something that exists.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub(crate) kubebox: PathBuf,
    pub(crate) helm: PathBuf,
    pub(crate) coredns: PathBuf,
    pub(crate) metrics_server: PathBuf,
    pub(crate) kafka_libs: PathBuf,
    pub(crate) onnxruntime: PathBuf,
    pub(crate) java: PathBuf,
}

/// Builds what the sandbox needs and is not there yet.
pub(crate) fn ensure_sandbox_tools(place: &Place, fresh: bool) -> Result<Tools> {
    let mut paths = Vec::new();
    for recipe in recipes::sandbox_tools() {
        paths.push(ensure(place, &recipe, fresh)?);
    }
    let [kubebox, helm, coredns, metrics_server, kafka_libs, onnxruntime] =
        paths.try_into().map_err(|_| anyhow::anyhow!("a sandbox tool has no place in Tools"))?;
    Ok(Tools { kubebox, helm, coredns, metrics_server, kafka_libs, onnxruntime, java: java()? })
}

/// `cargo xtask tools [NAME]`: prints one line per tool, name and path.
pub(crate) fn command(place: &Place, name: Option<&str>, fresh: bool) -> Result<()> {
    let chosen = match name {
        None => recipes::sandbox_tools(),
        Some("python") => vec![python_recipe(place)?],
        Some(name) => {
            let found: Vec<Recipe> = recipes::all().into_iter().filter(|recipe| recipe.name == name).collect();
            if found.is_empty() {
                let known: Vec<&str> = recipes::all().iter().map(|recipe| recipe.name).collect();
                bail!("no tool is called {name}: choose one of {}, python", known.join(", "));
            }
            found
        }
    };
    for recipe in chosen {
        println!("{} {}", recipe.name, ensure(place, &recipe, fresh)?.display());
    }
    Ok(())
}

fn python_recipe(place: &Place) -> Result<Recipe> {
    let path = place.root.join("models/requirements.txt");
    let requirements =
        std::fs::read(&path).with_context(|| format!("cannot read {}, which locks the packages of models/train.py", path.display()))?;
    Ok(recipes::python(requirements))
}

/// The path of the recipe's first product, built first if the cache lacks it or if `fresh`.
pub(crate) fn ensure(place: &Place, recipe: &Recipe, fresh: bool) -> Result<PathBuf> {
    let cache = place.cache.join("tools");
    place.make_folder(&cache)?;
    let folder = cache.join(recipe.folder_name());
    let product = folder.join(&recipe.products[0]);
    if product.exists() && !fresh {
        return Ok(product);
    }
    let _lock = lock(&cache.join(format!("{}.lock", recipe.name)), recipe.name)?;
    if product.exists() && !fresh {
        return Ok(product);
    }
    let partial = cache.join(format!("{}.partial", recipe.folder_name()));
    if fresh {
        remove(&partial)?;
    }
    build(place, recipe, &partial)?;
    remove(&folder)?;
    std::fs::rename(&partial, &folder).with_context(|| format!("cannot move the finished tool to {}", folder.display()))?;
    Ok(product)
}

fn build(place: &Place, recipe: &Recipe, partial: &Path) -> Result<()> {
    let source = partial.join("source");
    std::fs::create_dir_all(&source).with_context(|| format!("cannot make the folder {}", source.display()))?;
    for (name, content) in &recipe.files {
        let path = source.join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    place.give_to_user(partial)?;
    let log = partial.join("build.log");
    for (index, step) in recipe.commands.iter().enumerate() {
        let label = format!("{} {} (step {} of {})", recipe.name, recipe.version, index + 1, recipe.commands.len());
        progress::run_logged(&label, recipe.expected, &mut command_of(place, step, partial), &log, recipe.advice)?;
    }
    for product in &recipe.products {
        let path = partial.join(product);
        if !path.exists() {
            bail!("{} was built, but {} is not there. The log: {}", recipe.name, path.display(), log.display());
        }
    }
    Ok(())
}

fn command_of(place: &Place, step: &Step, partial: &Path) -> std::process::Command {
    let out = partial.to_string_lossy();
    let source = partial.join("source");
    let fill = |text: &str| text.replace(OUT, &out).replace(SOURCE, &source.to_string_lossy());
    let mut command = place.unprivileged(fill(&step.words[0]));
    command.args(step.words[1..].iter().map(|word| fill(word))).current_dir(fill(step.folder));
    for (name, value) in &step.environment {
        command.env(name, fill(value));
    }
    command
}

/// Waits for another run that builds the same tool. The lock ends with the file handle, so a killed run leaves none behind.
fn lock(path: &Path, name: &str) -> Result<File> {
    let file =
        File::options().create(true).truncate(false).write(true).open(path).with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => progress::note(&format!("{name}: another run is building it; waiting for that")),
        Err(TryLockError::Error(error)) => return Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

fn remove(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// The real path of `java`, so that a process with another PATH starts the same one.
fn java() -> Result<PathBuf> {
    let path = find_program("java").context("java is not on the PATH: `apt-get install openjdk-17-jdk-headless maven`")?;
    path.canonicalize().with_context(|| format!("cannot follow {}", path.display()))
}

/// Looks where a shell would, and in the folders of system programs, which an ordinary user's PATH lacks on Debian.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Only `deny` needs it, so it is not among the tools of the sandbox.
pub(crate) fn ensure_cargo_deny(place: &Place) -> Result<PathBuf> {
    ensure(place, &recipes::cargo_deny(), false)
}

/// How long building everything that is missing takes about; zero if nothing is missing.
pub(crate) fn expected_build_time(place: &Place) -> Duration {
    let cache = place.cache.join("tools");
    recipes::sandbox_tools().iter().filter(|recipe| !cache.join(recipe.folder_name()).exists()).map(|recipe| recipe.expected).sum()
}
