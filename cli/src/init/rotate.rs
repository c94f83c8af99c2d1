//! `kubectl fraud rotate`: new passwords for the feature store's users, in the folder that `kubectl fraud init` made.
//!
//! The next passwords become the current ones. They are valid in all shards already, so regions and pods may change one
//! after the other, and nothing restarts.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::{redis_users, secrets, write_secret};

#[derive(Args)]
#[command(
    after_help = "Example:\n  kubectl fraud rotate --credentials ./credentials\n  kubectl --context us-east apply -f credentials/us-east/secrets.yaml\n\nRotate again only after every region has the new Secret and an hour has passed: pods read it within minutes, and a process that missed two rotations cannot log in."
)]
pub(crate) struct RotateArguments {
    /// The folder that `kubectl fraud init` made
    #[arg(long)]
    credentials: PathBuf,
}

#[cfg(test)]
impl RotateArguments {
    pub(super) fn of(credentials: PathBuf) -> Self {
        Self { credentials }
    }
}

pub(crate) fn run(arguments: &RotateArguments) -> anyhow::Result<()> {
    let files = region_files(&arguments.credentials)?;
    ensure!(
        !files.is_empty(),
        "{} has no folder with a secrets.yaml: give the folder that kubectl fraud init made",
        arguments.credentials.display()
    );
    let mut regions = files.iter().map(|path| Ok((path, read(path)?))).collect::<anyhow::Result<Vec<_>>>()?;
    let before = users_of(&mut regions[0].1)?.clone();
    let data = redis_users::data(&redis_users::rotate(&before, secrets::password)?);
    for (path, secrets) in &mut regions {
        let own = users_of(secrets)?;
        ensure!(*own == before, "{}: the passwords are not those of the other regions. Nothing was changed", path.display());
        own.clone_from(&data);
    }
    for (path, secrets) in &regions {
        replace(path, &secrets::documents(secrets)?)?;
        println!("{}: passwords rotated. Apply it in its own cluster", path.display());
    }
    Ok(())
}

fn region_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read folder {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry?.path().join("secrets.yaml"));
    }
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> anyhow::Result<Vec<Secret>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let documents = serde_yaml::Deserializer::from_str(&text).map(Secret::deserialize);
    documents.collect::<Result<_, _>>().with_context(|| format!("{} is not what kubectl fraud init wrote", path.display()))
}

/// The passwords among a region's Secrets.
fn users_of(secrets: &mut [Secret]) -> anyhow::Result<&mut BTreeMap<String, String>> {
    let texts = secrets.iter_mut().filter_map(|secret| secret.string_data.as_mut());
    texts.into_iter().find(|text| text.contains_key("users.acl")).context("there is no Secret with users.acl")
}

/// The old file stays until the new one is whole.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let next = path.with_extension("yaml.next");
    if next.exists() {
        fs::remove_file(&next).with_context(|| format!("cannot remove {}", next.display()))?;
    }
    write_secret(&next, text)?;
    fs::rename(&next, path).with_context(|| format!("cannot replace {}", path.display()))
}
