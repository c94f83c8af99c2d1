//! Storage of a region: directories behind pre-made `local` PersistentVolumes of the default StorageClass, and their reuse.
//!
//! A `local` volume is chosen over a host path because the kubelet applies `fsGroup` to it. Nobody provisions such volumes, so
//! they are made beforehand; and nobody deletes them, so a released one is emptied here and made available again.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::instance::Region;

pub(crate) const COUNT: usize = 24;

fn names() -> impl Iterator<Item = String> {
    (1..=COUNT).map(|number| format!("local-{number:02}"))
}

pub(crate) fn manifest(region: &Region) -> String {
    let volumes = names().map(|name| {
        format!(
            "apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 10Gi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: local
  local: {{path: {folder}/{name}}}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{region}]}}]
",
            folder = region.path("volumes").display(),
            region = region.name,
        )
    });
    volumes.collect::<Vec<_>>().join("---\n")
}

pub(crate) fn ensure_folders(region: &Region) -> Result<()> {
    for name in names() {
        let path = region.path("volumes").join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make volume folder {}", path.display()))?;
    }
    Ok(())
}

/// Lists the volumes with their phases, and then every change, one `name phase` a line, until the API server closes the watch.
pub(crate) fn watch_command(region: &Region) -> Command {
    let mut command = kubectl(region);
    command.args(["get", "persistentvolumes", "--watch", "-o", "jsonpath={.metadata.name} {.status.phase}{'\\n'}"]).stdout(Stdio::piped());
    command
}

/// Empties the volume if the line of [`watch_command`] says that its claim is gone, and makes it available again. The claim's
/// protection guarantees that no pod uses it any more. Says which volume it was.
pub(crate) fn recycle(region: &Region, line: &str) -> Result<Option<String>> {
    let Some(name) = line.strip_suffix(" Released").filter(|name| names().any(|known| known == *name)) else { return Ok(None) };
    empty(&region.path("volumes"), name)?;
    let status = kubectl(region)
        .args(["patch", "persistentvolume", name, "--type=json", "--patch", r#"[{"op": "remove", "path": "/spec/claimRef"}]"#])
        .stdout(Stdio::null())
        .status()
        .context("cannot run kubectl")?;
    anyhow::ensure!(status.success(), "kubectl could not make volume {name} available again ({status})");
    Ok(Some(name.to_owned()))
}

/// The old content moves away first: a new claim never sees half of it, nor the old owner and mode.
fn empty(volumes: &Path, name: &str) -> Result<()> {
    let (volume, old) = (volumes.join(name), volumes.join(format!(".old-{name}")));
    if old.exists() {
        fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))?;
    }
    fs::rename(&volume, &old).with_context(|| format!("cannot move {} away", volume.display()))?;
    fs::create_dir(&volume).with_context(|| format!("cannot make {}", volume.display()))?;
    fs::remove_dir_all(&old).with_context(|| format!("cannot remove {}", old.display()))
}

fn kubectl(region: &Region) -> Command {
    let mut command = Command::new(region.path("../bin/kubectl"));
    command.arg("--kubeconfig").arg(region.path("admin.kubeconfig")).stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::region;

    #[test]
    fn an_emptied_volume_keeps_nothing_of_its_last_user() {
        let folder = std::env::temp_dir().join(format!("sandbox-volumes-{}", std::process::id()));
        fs::create_dir_all(folder.join("local-01/data/deep")).unwrap();
        fs::write(folder.join("local-01/data/deep/appendonly.aof"), "old").unwrap();
        empty(&folder, "local-01").unwrap();
        assert_eq!(fs::read_dir(folder.join("local-01")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing but the volume is left");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_released_volumes_of_our_own_are_recycled() {
        for line in ["local-01 Bound", "local-01 Available", "other Released", "../x Released", "", " Released"] {
            assert_eq!(recycle(&region(), line).unwrap(), None, "{line:?}");
        }
    }
}
