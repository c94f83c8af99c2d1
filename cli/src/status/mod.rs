//! `kubectl fraud status`: one pipeline, as each region's cluster reports it.
//!
//! A cluster that cannot be reached is shown as such, with why; the others are shown all the same.

mod clusters;
mod text;

use std::process::ExitCode;

use anyhow::ensure;
use clap::{Args, ValueEnum};
use crds::{FraudPipeline, FraudPipelineStatus};
use futures::future::join_all;
use kube::Api;
use serde::Serialize;

use self::clusters::Cluster;

/// The command's exit code when a region is not ready or could not be asked.
const NOT_READY_EVERYWHERE: u8 = 3;

#[derive(Args)]
#[command(
    after_help = "Examples:\n  kubectl fraud status payments -n fraud\n  kubectl fraud status payments -n fraud --contexts us-east,eu-west,ap-south --output json"
)]
pub(crate) struct StatusArguments {
    /// The pipeline's name
    pipeline: String,
    /// The pipeline's namespace [default: the context's, else "default"]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Contexts of the kubeconfig, one for each region's cluster [default: all contexts]
    #[arg(long, value_delimiter = ',')]
    contexts: Vec<String>,
    /// Another kubeconfig than the usual one
    #[arg(long)]
    kubeconfig: Option<std::path::PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Seconds to wait for each cluster
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What one cluster says of the pipeline.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    context: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Box<FraudPipelineStatus>>,
    /// Why there is no status.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl View {
    fn ready(&self) -> bool {
        let conditions = self.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.type_ == crds::conditions::READY && condition.status == "True")
    }
}

pub(crate) async fn run(arguments: &StatusArguments) -> anyhow::Result<ExitCode> {
    let clusters = clusters::select(arguments.kubeconfig.as_deref(), &arguments.contexts, arguments.timeout).await?;
    ensure!(!clusters.is_empty(), "the kubeconfig has no contexts: name one with --kubeconfig, or set KUBECONFIG");
    let views = join_all(clusters.into_iter().map(|cluster| ask(cluster, arguments))).await;
    match arguments.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&views)?),
        Output::Text => print!("{}", text::render(&arguments.pipeline, &views)),
    }
    let all_ready = views.iter().all(View::ready);
    Ok(if all_ready { ExitCode::SUCCESS } else { ExitCode::from(NOT_READY_EVERYWHERE) })
}

async fn ask(cluster: Cluster, arguments: &StatusArguments) -> View {
    let context = cluster.context.clone();
    match fetch(cluster, arguments).await {
        Ok(status) => View { context, status: Some(Box::new(status)), problem: None },
        Err(problem) => View { context, status: None, problem: Some(problem) },
    }
}

async fn fetch(cluster: Cluster, arguments: &StatusArguments) -> Result<FraudPipelineStatus, String> {
    let client = cluster.client?;
    let namespace = arguments.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    let pipelines: Api<FraudPipeline> = Api::namespaced(client, &namespace);
    let limit = std::time::Duration::from_secs(arguments.timeout);
    let found = tokio::time::timeout(limit, pipelines.get_opt(&arguments.pipeline))
        .await
        .map_err(|_| format!("no answer from the API server within {} s", arguments.timeout))?;
    match found {
        Ok(Some(pipeline)) => Ok(pipeline.status.unwrap_or_default()),
        Ok(None) => Err(format!("no FraudPipeline {} in namespace {namespace}: apply its manifest there", arguments.pipeline)),
        Err(error) => Err(format!("the API server cannot be asked: {error}")),
    }
}
