//! The sandbox as the demo uses it: its description, and kubectl and helm for each region. Runs programs.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::place::Place;
use crate::{images, progress, sandbox};

pub(crate) const PIPELINE: &str = "payments";
pub(crate) const NAMESPACE: &str = "fraud";
pub(crate) const OPERATOR_NAMESPACE: &str = "fraudpipeline-system";

const KUBECTL_TIMEOUT: &str = "20s";

/// `sandbox.json`, which the sandbox writes when it is up.
#[derive(Debug, Deserialize)]
pub(crate) struct Description {
    pub(crate) regions: Vec<Region>,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    /// By short name, with the tag made from the content.
    pub(crate) images: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Region {
    pub(crate) name: String,
    pub(crate) node_address: Ipv4Addr,
    pub(crate) kafka: String,
    pub(crate) models_folder: PathBuf,
    /// Every write that the region's API server was asked for, a line of JSON each.
    pub(crate) audit_log: PathBuf,
}

pub(crate) struct Sandbox<'a> {
    pub(crate) place: &'a Place,
    pub(crate) instance: &'a str,
    pub(crate) description: Description,
}

impl<'a> Sandbox<'a> {
    /// Brings the regions up, or repairs what is missing of them. The sandbox prints its own progress.
    pub(crate) fn up(place: &'a Place, instance: &'a str, fresh: bool) -> Result<Self> {
        let mut command = verb(place, instance, &["up", "--tools"]);
        command.arg(images::toolbox_path(place)).args(fresh.then_some("--fresh"));
        let status = command.stdout(Stdio::null()).status().context("cannot start the sandbox")?;
        if !status.success() {
            bail!("the sandbox did not come up ({status}); its message is above");
        }
        Self::open(place, instance)
    }

    /// One that is up.
    pub(crate) fn open(place: &'a Place, instance: &'a str) -> Result<Self> {
        // Private to root, like everything of the sandbox.
        let path = Path::new("/var/lib/fraudpipeline").join(instance).join("sandbox.json");
        let text = progress::output(place.privileged("cat").arg(&path))?;
        let description = serde_json::from_str(&text).with_context(|| format!("{} is not what the demo expects there", path.display()))?;
        Ok(Self { place, instance, description })
    }

    pub(crate) fn verb(&self, words: &[&str]) -> Command {
        verb(self.place, self.instance, words)
    }

    pub(crate) fn region(&self, name: &str) -> Result<&Region> {
        self.description.regions.iter().find(|region| region.name == name).with_context(|| format!("the sandbox has no region {name}"))
    }

    pub(crate) fn kubectl(&self, region: &Region) -> Command {
        let mut command = self.place.privileged(&self.description.kubectl);
        command.arg("--kubeconfig").arg(&self.description.kubeconfig).args(["--context", &region.name]);
        // A region that goes down while it is asked never answers; without a limit kubectl would outlive everybody who waits for it.
        command.args(["--request-timeout", KUBECTL_TIMEOUT]);
        command
    }

    pub(crate) fn helm(&self, helm: &Path, region: &Region) -> Command {
        let mut command = self.place.privileged(helm);
        command.arg("--kubeconfig").arg(&self.description.kubeconfig).args(["--kube-context", &region.name]);
        command
    }

    /// Applies an object or a `List` of them.
    pub(crate) fn apply(&self, region: &Region, object: &Value) -> Result<()> {
        let mut command = self.kubectl(region);
        command.args(["apply", "--server-side", "--force-conflicts", "--field-manager=demo", "-f", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&serde_json::to_vec(object)?).context("kubectl does not read what it was given")?;
        }
        let output = child.wait_with_output().context("cannot wait for kubectl")?;
        if !output.status.success() {
            bail!("{}: kubectl apply failed: {}", region.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    pub(crate) fn apply_file(&self, region: &Region, file: &Path) -> Result<()> {
        let mut command = self.kubectl(region);
        command.args(["apply", "--server-side", "--force-conflicts", "--field-manager=demo", "-f"]).arg(file);
        progress::output(&mut command).map(drop).with_context(|| format!("cannot apply {} in {}", file.display(), region.name))
    }

    /// A manifest of ours as JSON. kubectl reads the YAML, so that the demo needs no parser of its own.
    pub(crate) fn read_manifest(&self, region: &Region, file: &Path) -> Result<Value> {
        let mut command = self.kubectl(region);
        command.args(["create", "--dry-run=client", "--output=json", "-f"]).arg(file);
        let said = progress::output(&mut command).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&said).with_context(|| format!("kubectl says no JSON about {}", file.display()))
    }

    /// The FraudPipeline as this region's cluster has it.
    pub(crate) fn pipeline(&self, region: &Region) -> Result<Value> {
        let mut command = self.kubectl(region);
        command.args(["--request-timeout=5s", "--namespace", NAMESPACE, "get", "fraudpipeline", PIPELINE, "--output=json"]);
        serde_json::from_str(&progress::output(&mut command)?).context("kubectl says no JSON about the pipeline")
    }

    /// Does the same in every region at once, and reports every region that failed.
    pub(crate) fn in_every_region(&self, work: impl Fn(&Region) -> Result<()> + Sync) -> Result<()> {
        let work = &work;
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.description.regions.iter().map(|region| scope.spawn(move || work(region))).collect();
            let results =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread of the demo ended in a panic")));
            let failures: Vec<String> = results.filter_map(|result| result.err().map(|error| format!("{error:#}"))).collect();
            if !failures.is_empty() {
                bail!("{}", failures.join("\n"));
            }
            Ok(())
        })
    }
}

fn verb(place: &Place, instance: &str, words: &[&str]) -> Command {
    let mut command = sandbox::program(place);
    command.args(["--instance", instance]).args(words);
    command
}
