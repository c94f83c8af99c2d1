//! The sandbox as a drill sees it: a command that shows its regions, runs kubectl, and kills and heals a region.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use anyhow::{Context, bail};
use serde::Deserialize;

/// The `sandbox` binary with the arguments that name an instance.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub program: PathBuf,
    pub instance: String,
}

/// `sandbox status --json`, as far as drills need it.
#[derive(Debug, Deserialize)]
pub struct Status {
    pub regions: Vec<Region>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Region {
    pub name: String,
    pub node_address: String,
    /// `host:port` of the region's Kafka.
    pub kafka: String,
}

/// What a drill reads of a FraudPipeline's status.
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
    pub fn status(&self) -> anyhow::Result<Status> {
        let output = self.run(&["status", "--json"])?;
        serde_json::from_slice(&output.stdout).context("sandbox status --json cannot be read")
    }

    pub fn kill(&self, region: &str) -> anyhow::Result<()> {
        self.run(&["kill", region]).map(drop)
    }

    pub fn heal(&self, region: &str) -> anyhow::Result<()> {
        self.run(&["heal", region]).map(drop)
    }

    /// The status of a pipeline as the cluster of `region` has it.
    pub fn pipeline(&self, region: &str, namespace: &str, name: &str) -> anyhow::Result<PipelineStatus> {
        #[derive(Deserialize)]
        struct Object {
            #[serde(default)]
            status: PipelineStatus,
        }
        let get = ["kubectl", region, "--request-timeout=3s", "-n", namespace, "get", "fraudpipeline", name, "-o", "json"];
        let output = self.run(&get)?;
        let object: Object = serde_json::from_slice(&output.stdout).with_context(|| format!("FraudPipeline {name} in {region}"))?;
        Ok(object.status)
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(["--instance", &self.instance]).args(arguments);
        let output = command.output().with_context(|| format!("cannot run {}", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("sandbox {} failed: {}", arguments.join(" "), said.trim());
        }
        Ok(output)
    }
}
