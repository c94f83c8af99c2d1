//! From empty clusters to an applied pipeline: credentials, namespaces, the operator by Helm, models, and the example's manifests, in every region alike.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::regions::{NAMESPACE, OPERATOR_NAMESPACE, Region, Sandbox};
use crate::progress;

const RELEASE: &str = "fraudpipeline";
/// The one that a manifest means which names none.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const HELM_TIMEOUT: &str = "5m";
/// What the example refers to, in the order in which it is applied.
const EXAMPLES: &[&str] = &["fx-rates.yaml", "rules.yaml", "payments.yaml"];
/// Fields of the example that name a model, and the file of the checkout that it is.
const MODELS: &[(&str, &str, &str)] =
    &[("/spec/model/uri", "/spec/model/sha256", "full.onnx"), ("/spec/model/light/uri", "/spec/model/light/sha256", "light.onnx")];

/// Makes the credentials of all regions once per instance; the clusters keep them, so a later run uses the same.
pub(super) fn credentials(sandbox: &Sandbox, folder: &Path, fresh: bool) -> Result<()> {
    let place = sandbox.place;
    if fresh && folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    if !folder.exists() {
        let names: Vec<&str> = sandbox.description.regions.iter().map(|region| region.name.as_str()).collect();
        let mut command = place.unprivileged(place.binary("kubectl-fraud"));
        command.args(["init", "--regions", &names.join(","), "--out"]).arg(folder);
        progress::output(&mut command)?;
    }
    sandbox.in_every_region(|region| {
        sandbox.apply(region, &namespaces())?;
        sandbox.apply_file(region, &folder.join(&region.name).join("secrets.yaml"))
    })
}

/// The strictest Pod Security level, enforced by the API server: a pod that asks for more is not created.
fn namespaces() -> Value {
    let namespace = |name: &str| {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest"});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    };
    json!({"apiVersion": "v1", "kind": "List", "items": [namespace(NAMESPACE), namespace(OPERATOR_NAMESPACE)]})
}

pub(super) fn operator(sandbox: &Sandbox, helm: &Path, folder: &Path) -> Result<()> {
    sandbox.in_every_region(|region| {
        let values = folder.join(format!("values-{}.json", region.name));
        crate::images::write_json(&values, &values_of(sandbox, region)?)?;
        let mut command = sandbox.helm(helm, region);
        command.args(["upgrade", "--install", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait", "--timeout", HELM_TIMEOUT, "--values"]);
        command.arg(&values).arg(sandbox.place.root.join("charts/fraudpipeline"));
        progress::output(&mut command).with_context(|| {
            format!(
                "{0}: the operator did not start. Look with `cargo xtask sandbox kubectl {0} -n {OPERATOR_NAMESPACE} get pods`",
                region.name
            )
        })?;
        // Helm does not wait until the API server serves a new kind.
        let mut command = sandbox.kubectl(region);
        command.args(["wait", "--for=condition=Established", "--timeout=60s", "crd/fraudpipelines.fraudpipeline.dev"]);
        progress::output(&mut command)?;
        progress::note(&format!("{}: operator installed", region.name));
        Ok(())
    })
}

/// The chart's values for one region. JSON is YAML, so no YAML need be written here.
fn values_of(sandbox: &Sandbox, region: &Region) -> Result<Value> {
    let image = |name: &str| sandbox.description.images.get(name).with_context(|| format!("the sandbox has no image called {name}"));
    Ok(json!({
        "region": region.name,
        "image": image("fraud-operator")?,
        "watchNamespaces": [NAMESPACE],
        "images": {VERSION: {
            "decision": image("scoring-decision")?,
            "inference": image("scoring-inference")?,
            "builder": image("scoring-builder")?,
            "replicator": image("replicator")?,
            "redis": image("redis")?,
        }},
    }))
}

/// Puts the models where the example says that they are, after checking that they are the ones it says.
pub(super) fn models(sandbox: &Sandbox, pipeline: &Value) -> Result<()> {
    for (uri, digest, file) in MODELS {
        let text =
            |pointer: &str| pipeline.pointer(pointer).and_then(Value::as_str).with_context(|| format!("the example has no {pointer}"));
        let key = object_path(text(uri)?)?;
        let source = sandbox.place.root.join("models").join(file);
        check_digest(&source, text(digest)?)?;
        for region in &sandbox.description.regions {
            let target = region.models_folder.join(&key);
            let mut command = sandbox.place.privileged("install");
            command.args(["-D", "--mode=0644"]).arg(&source).arg(&target);
            progress::output(&mut command).with_context(|| format!("cannot put {file} into the model store of {}", region.name))?;
        }
    }
    Ok(())
}

/// `s3://bucket/key` is served, and so stored, as `bucket/key`.
fn object_path(uri: &str) -> Result<PathBuf> {
    let path = uri.strip_prefix("s3://").with_context(|| format!("'{uri}' is no s3:// address"))?;
    if path.split('/').any(|part| part.is_empty() || part == "..") {
        bail!("'{uri}' is not like s3://bucket/key");
    }
    Ok(PathBuf::from(path))
}

fn check_digest(file: &Path, expected: &str) -> Result<()> {
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let actual = hex::encode(Sha256::digest(&bytes));
    if actual != expected {
        bail!("{} has sha256 {actual}, and examples/payments.yaml says {expected}: write the first into the example", file.display());
    }
    Ok(())
}

/// Applies the example in every region.
pub(super) fn example(sandbox: &Sandbox) -> Result<()> {
    let folder = sandbox.place.root.join("examples");
    sandbox.in_every_region(|region| EXAMPLES.iter().try_for_each(|file| sandbox.apply_file(region, &folder.join(file))))
}

/// The manifest of the pipeline; readable as soon as a cluster knows the kind.
pub(super) fn read_example(sandbox: &Sandbox) -> Result<Value> {
    let region = sandbox.description.regions.first().context("the sandbox has no regions")?;
    sandbox.read_manifest(region, &sandbox.place.root.join("examples/payments.yaml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_addresses_become_paths_that_stay_in_the_store() {
        assert_eq!(object_path("s3://models/fraud/full-1.onnx").unwrap(), PathBuf::from("models/fraud/full-1.onnx"));
        for bad in ["https://x/y", "s3://models/../x", "s3:///x"] {
            assert!(object_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn both_namespaces_enforce_the_restricted_level() {
        let items = namespaces();
        let levels: Vec<&str> = items["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|item| item["metadata"]["labels"]["pod-security.kubernetes.io/enforce"].as_str())
            .collect();
        assert_eq!(levels, ["restricted", "restricted"]);
    }
}
