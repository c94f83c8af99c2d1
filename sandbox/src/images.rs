//! Which images a region has, and how they get into its containerd. IO: makes archives, runs `ctr`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::archive::{self, Recipe};
use crate::instance::{Instance, Region, private_folder};
use crate::render::SystemImages;
use crate::toolbox::{Image, Toolbox};

/// The images that the sandbox makes itself, by short name.
pub(crate) struct Made {
    pub system: SystemImages,
    pub redis: String,
    archives: Vec<Image>,
}

impl Made {
    /// Every image of a region: the sandbox's own and the toolbox's.
    pub(crate) fn all(&self, toolbox: &Toolbox) -> Vec<Image> {
        self.archives.iter().chain(&toolbox.images).cloned().collect()
    }

    /// By short name, for those who write manifests.
    pub(crate) fn names(&self, toolbox: &Toolbox) -> BTreeMap<String, String> {
        self.all(toolbox).into_iter().map(|image| (short_name(&image.name).to_owned(), image.name)).collect()
    }
}

/// `docker.io/fraudpipeline/redis:0123` is called `redis`.
fn short_name(full: &str) -> &str {
    let last = full.rsplit('/').next().unwrap_or(full);
    last.split(':').next().unwrap_or(last)
}

pub(crate) fn make(instance: &Instance) -> Result<Made> {
    let folder = instance.folder.join("images");
    private_folder(&folder)?;
    let toolbox = &instance.toolbox;
    let one = |name: &str, program: &Path, args: &[&str]| {
        let there = PathBuf::from("/usr/bin").join(name);
        let entrypoint = std::iter::once(there.display().to_string()).chain(args.iter().map(|arg| (*arg).to_owned())).collect();
        (entrypoint, vec![(program.to_owned(), there)])
    };
    // A pod's first process only has to exist until it is killed, which is all that `sleep` does.
    let pause = one("sleep", Path::new("/usr/bin/sleep"), &["infinity"]);
    let coredns = one("coredns", &toolbox.coredns, &[]);
    let metrics_server = one("metrics-server", &toolbox.metrics_server, &[]);
    let mut redis = one("redis-server", Path::new("/usr/bin/redis-server"), &[]);
    redis.1.push(("/usr/bin/redis-cli".into(), "/usr/bin/redis-cli".into()));
    let mut archives = Vec::new();
    for (name, (entrypoint, files)) in [("pause", pause), ("coredns", coredns), ("metrics-server", metrics_server), ("redis", redis)] {
        let recipe = Recipe { name: &format!("docker.io/fraudpipeline/{name}"), entrypoint, files };
        let (name, archive) = archive::make(&recipe, &folder)?;
        archives.push(Image { name, archive });
    }
    let name =
        |short: &str| archives.iter().find(|image| short_name(&image.name) == short).map(|image| image.name.clone()).unwrap_or_default();
    let system = SystemImages { pause: name("pause"), coredns: name("coredns"), metrics_server: name("metrics-server") };
    let redis = name("redis");
    Ok(Made { system, redis, archives })
}

/// Names of the images that the region's containerd has.
pub(crate) fn present(region: &Region) -> Result<BTreeSet<String>> {
    let output = ctr(region)
        .args(["images", "list", "--quiet"])
        .output()
        .context("cannot run `ctr`; install it with `apt-get install containerd`")?;
    ensure!(output.status.success(), "ctr cannot list the images of {}: {}", region.name, String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// Imports what is missing, by name. Gives the number of imported images.
pub(crate) fn import_missing(region: &Region, wanted: &[Image]) -> Result<usize> {
    let present = present(region)?;
    let missing: Vec<&Image> = wanted.iter().filter(|image| !present.contains(&image.name)).collect();
    for image in &missing {
        import(region, &image.archive)?;
    }
    if !missing.is_empty() {
        let present = self::present(region)?;
        for image in &missing {
            ensure!(present.contains(&image.name), "{} holds no image named {}", image.archive.display(), image.name);
        }
    }
    Ok(missing.len())
}

pub(crate) fn import(region: &Region, archive: &Path) -> Result<()> {
    let output = ctr(region).args(["images", "import"]).arg(archive).output().context("cannot run `ctr`")?;
    ensure!(
        output.status.success(),
        "cannot import {} into {}: {}",
        archive.display(),
        region.name,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn ctr(region: &Region) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(region.containerd_socket()).args(["--namespace", "k8s.io"]).stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_their_short_names() {
        assert_eq!(short_name("docker.io/fraudpipeline/redis:0123"), "redis");
        assert_eq!(short_name("localhost:5000/a/b:1"), "b");
        assert_eq!(short_name("plain"), "plain");
    }
}
