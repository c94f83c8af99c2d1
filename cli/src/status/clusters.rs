//! The clusters of a kubeconfig.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

pub(super) struct Cluster {
    pub(super) context: String,
    /// Why there is no client, when the kubeconfig's entry cannot be used.
    pub(super) client: Result<Client, String>,
}

/// The named contexts, or all of them.
pub(super) async fn select(path: Option<&Path>, contexts: &[String], timeout_s: u64) -> anyhow::Result<Vec<Cluster>> {
    let kubeconfig = match path {
        Some(path) => Kubeconfig::read_from(path).with_context(|| format!("cannot use the kubeconfig {}", path.display()))?,
        None => Kubeconfig::read().context("cannot use the kubeconfig: name one with --kubeconfig, or set KUBECONFIG")?,
    };
    let known: Vec<String> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    if let Some(unknown) = contexts.iter().find(|name| !known.contains(name)) {
        bail!("the kubeconfig has no context {unknown:?}; it has: {}", known.join(", "));
    }
    let wanted = if contexts.is_empty() { known } else { contexts.to_vec() };
    let mut clusters = Vec::with_capacity(wanted.len());
    for context in wanted {
        let client = connect(&kubeconfig, &context, timeout_s).await.map_err(|error| format!("{error:#}"));
        clusters.push(Cluster { context, client });
    }
    Ok(clusters)
}

async fn connect(kubeconfig: &Kubeconfig, context: &str, timeout_s: u64) -> anyhow::Result<Client> {
    let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await?;
    let timeout = Some(Duration::from_secs(timeout_s));
    (config.connect_timeout, config.read_timeout) = (timeout, timeout);
    Ok(Client::try_from(config)?)
}
