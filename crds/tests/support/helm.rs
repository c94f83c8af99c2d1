//! The chart, rendered by the real helm.

use std::{path::PathBuf, process::Command};

use super::repository;

/// Variable with the path of helm.
pub(crate) const HELM: &str = "FRAUDPIPELINE_HELM";
/// Name and namespace of the release, as the sandbox installs it.
pub(crate) const RELEASE: &str = "fraudpipeline";
pub(crate) const NAMESPACE: &str = "fraudpipeline-system";

/// The manifests, or what helm says instead of them.
pub(crate) fn template(arguments: &[&str]) -> Result<String, String> {
    let helm = std::env::var_os(HELM)
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("{HELM} is not set: `cargo xtask tools helm` builds helm and prints its path, then set {HELM} to it"));
    let output = Command::new(&helm)
        .args(["template", RELEASE, "charts/fraudpipeline", "--namespace", NAMESPACE, "--kube-version", "v1.35.0"])
        .args(arguments)
        .current_dir(repository())
        .output()
        .unwrap_or_else(|error| panic!("{HELM} is {}: {error}", helm.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
