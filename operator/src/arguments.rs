//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use domain::RegionName;
use operator_runtime::config::{Identity, Images, OperatorConfig};

/// Runs FraudPipelines in one region's cluster
#[derive(Debug, Parser)]
#[command(name = "fraud-operator", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Option<RunArguments>,
}

const EXAMPLES: &str = "\
Examples:
  In a pod:
    fraud-operator --config /etc/fraud-operator/config.yaml
  What would be applied for a manifest, without a cluster:
    fraud-operator render --region us-east --file examples/payments.yaml";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints the objects that would be applied for a manifest in one region
    Render(RenderArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// Configuration, as the chart writes it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Namespace of this pod, for the lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "fraudpipeline-system")]
    pod_namespace: String,
    /// Name of this pod, which tells the replicas apart
    #[arg(long, env = "POD_NAME")]
    pod_name: String,
}

impl RunArguments {
    pub(crate) fn identity(&self) -> Identity {
        Identity { namespace: self.pod_namespace.clone(), pod: self.pod_name.clone() }
    }
}

#[derive(Debug, Args)]
pub(crate) struct RenderArguments {
    /// Region for which to print
    #[arg(long)]
    region: RegionName,
    /// Manifest of one FraudPipeline
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// The operator's configuration, for its images; without it, names are made up from this program's version
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl RenderArguments {
    pub(crate) fn text(&self) -> anyhow::Result<String> {
        let manifest = process::config::read_bounded(&self.file)?;
        let own = env!("CARGO_PKG_VERSION").to_owned();
        let (version, images) = match &self.config {
            None => (own.clone(), example_images(&own)),
            Some(path) => {
                let config: OperatorConfig = process::config::load(path)?;
                config.check()?;
                let version = config.newest_version().to_owned();
                let images = config.images(&version).cloned().unwrap_or_else(|| example_images(&own));
                (version, images)
            }
        };
        Ok(operator_runtime::render(&manifest, &self.region, &version, &images)?)
    }
}

fn example_images(version: &str) -> Images {
    let image = |binary: &str| format!("docker.io/fraudpipeline/{binary}:{version}");
    Images {
        decision: image("scoring-decision"),
        inference: image("scoring-inference"),
        builder: image("scoring-builder"),
        replicator: image("replicator"),
        redis: image("redis"),
    }
}
