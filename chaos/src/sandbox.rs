//! The sandbox as a drill sees it: a command that shows its regions, runs kubectl, and kills and heals a region.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The `sandbox` binary with the arguments that name an instance.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub program: PathBuf,
    /// Folder of all instances.
    pub state: PathBuf,
    pub instance: String,
}

/// `sandbox.json`, as far as drills need it.
#[derive(Debug, Deserialize)]
struct Description {
    regions: Vec<Region>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Region {
    pub name: String,
    pub node_address: String,
    /// `host:port` of the region's Kafka.
    pub kafka: String,
}

/// What a drill reads of a FraudPipeline.
#[derive(Debug, Clone, Deserialize)]
pub struct Pipeline {
    pub spec: PipelineSpec,
    #[serde(default)]
    pub status: PipelineStatus,
}

#[derive(Debug, Clone, Deserialize)]
pub struct PipelineSpec {
    #[serde(default)]
    pub drills: Drills,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Drills {
    /// `Forbidden` when the manifest does not say.
    #[serde(default)]
    pub policy: Option<String>,
}

impl Drills {
    pub fn allowed(&self) -> bool {
        self.policy.as_deref() == Some("Allowed")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PipelineStatus {
    pub active_region: Option<String>,
    pub epoch: Option<u64>,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
}

impl PipelineStatus {
    pub fn ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    }
}

impl Sandbox {
    /// The regions of the instance.
    ///
    /// # Errors
    /// When the instance does not exist.
    pub fn regions(&self) -> anyhow::Result<Vec<Region>> {
        let path = self.state.join(&self.instance).join("sandbox.json");
        let text = fs::read(&path).with_context(|| format!("no sandbox {} ({}): bring it up first", self.instance, path.display()))?;
        let description: Description = serde_json::from_slice(&text).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(description.regions)
    }

    pub fn kill(&self, region: &str) -> anyhow::Result<()> {
        self.run(&["kill", region]).map(drop)
    }

    pub fn heal(&self, region: &str) -> anyhow::Result<()> {
        self.run(&["heal", region]).map(drop)
    }

    /// A pipeline as the cluster of `region` has it.
    ///
    /// # Errors
    /// When the cluster does not answer, or has no such pipeline.
    pub fn pipeline(&self, region: &str, namespace: &str, name: &str) -> anyhow::Result<Pipeline> {
        let get = ["kubectl", region, "--request-timeout=3s", "-n", namespace, "get", "fraudpipeline", name, "-o", "json"];
        let output = self.run(&get)?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("FraudPipeline {name} in {region}"))
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.program);
        command.arg("--state").arg(&self.state).args(["--instance", &self.instance]).args(arguments);
        let output = command.output().with_context(|| format!("cannot run {}", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("sandbox {} failed: {}", arguments.join(" "), said.trim());
        }
        Ok(output)
    }
}
