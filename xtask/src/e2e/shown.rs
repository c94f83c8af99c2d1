//! What an administrator sees with plain kubectl: the pipeline's columns, the explanation of a field, the level that namespaces enforce.

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{Run, cluster};
use crate::demo::ready;
use crate::demo::regions::{NAMESPACE, OPERATOR_NAMESPACE, PIPELINE, Region, Sandbox};
use crate::images;

/// Sentences of the API's documentation, as kubectl shows them.
const EXPLAINED: &[&str] = &[
    "Automatic: the operators move the pipeline by themselves",
    "Manual: only a RegionFailover moves it",
    "How long a region's authority lasts without renewal",
];

pub(super) fn run(run: &mut Run) -> Result<()> {
    let active = ready::wait(&run.sandbox)?;
    let regions = run.sandbox.description.regions.clone();
    for region in &regions {
        let seen = columns(&run.sandbox, region, &active);
        run.checks.check(&format!("{}: `kubectl get fraud -A` shows active region, phase, model and readiness", region.name), seen);
    }
    for region in &regions {
        run.checks.check(&format!("{}: features are Fresh, as measured", region.name), features_fresh(&run.sandbox, region));
    }
    let first = regions.first().context("the sandbox has no regions")?;
    run.checks.check("`kubectl explain fraudpipeline.spec.failover` explains mode and lease", explain(&run.sandbox, first));
    for region in &regions {
        for namespace in [NAMESPACE, OPERATOR_NAMESPACE] {
            let refused = restricted(run, region, namespace);
            run.checks.check(&format!("{}: {namespace} refuses a privileged pod", region.name), refused);
        }
    }
    Ok(())
}

/// Without payments the heartbeats of the logs still say how far the features are.
fn features_fresh(sandbox: &Sandbox, region: &Region) -> Result<String> {
    let wait = ["wait", "--namespace", NAMESPACE, "fraudpipeline/payments", "--for=condition=FeaturesFresh", "--timeout=60s"];
    cluster::kubectl(sandbox, region, &wait)?;
    let state = cluster::kubectl(
        sandbox,
        region,
        &["get", "--namespace", NAMESPACE, "fraudpipeline/payments", "--output=jsonpath={.status.features}"],
    )?;
    ensure!(state == "Fresh", "status.features is {state}");
    Ok(state)
}

fn columns(sandbox: &Sandbox, region: &Region, active: &str) -> Result<String> {
    let table = cluster::kubectl(sandbox, region, &["get", "fraud", "--all-namespaces"])?;
    let column = |name: &str| column(&table, name).with_context(|| format!("no value under {name} in:\n{table}"));
    let phase = if region.name == active { "Active" } else { "Standby" };
    for (name, wanted) in [("ACTIVE", active), ("PHASE", phase), ("READY", "True")] {
        let value = column(name)?;
        ensure!(value == wanted, "{name} is {value} and should be {wanted}");
    }
    let model = column("MODEL")?;
    ensure!(model.len() == 12 && model.chars().all(|c| c.is_ascii_hexdigit()), "MODEL is {model}, which is no digest");
    Ok(format!("{active}, {phase}, {model}, True"))
}

/// The pipeline's value under a heading. The category `fraud` holds other kinds too, each with a table of its own.
fn column(table: &str, name: &str) -> Option<String> {
    let mut lines = table.lines();
    let headings: Vec<&str> = lines.next()?.split_whitespace().collect();
    let row: Vec<&str> = lines.next()?.split_whitespace().collect();
    let is_ours = row.len() == headings.len() && row.get(1)?.ends_with(PIPELINE);
    let position = headings.iter().position(|heading| *heading == name)?;
    is_ours.then(|| row.get(position).map(ToString::to_string)).flatten()
}

fn explain(sandbox: &Sandbox, region: &Region) -> Result<String> {
    let said = cluster::kubectl(sandbox, region, &["explain", "fraudpipeline.spec.failover"])?;
    // kubectl breaks lines where it likes.
    let flowing = said.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(missing) = EXPLAINED.iter().find(|sentence| !flowing.contains(**sentence)) {
        bail!("it does not say '{missing}'");
    }
    Ok(format!("{} lines", said.lines().count()))
}

/// The API server refuses it even when it is only asked what it would do.
fn restricted(run: &Run, region: &Region, namespace: &str) -> Result<String> {
    let container = json!({"name": "c", "image": "docker.io/fraudpipeline/none:1", "securityContext": {"privileged": true}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "privileged", "namespace": namespace}, "spec": {"containers": [container]}
    });
    let file = run.folder.join("privileged-pod.json");
    images::write_json(&file, &pod)?;
    let path = file.to_string_lossy();
    match cluster::kubectl(&run.sandbox, region, &["create", "--dry-run=server", "--filename", &path]) {
        Ok(_) => bail!("it was admitted"),
        Err(error) => {
            let said = format!("{error:#}");
            ensure!(said.contains(r#"violates PodSecurity "restricted:"#), "it was refused for another reason: {said}");
            Ok("violates PodSecurity restricted".to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_under_its_heading_in_the_first_table() {
        let table = "NAMESPACE   NAME   ACTIVE    READY\nfraud   fraudpipeline.fraudpipeline.dev/payments   us-east   True\n\nNAMESPACE NAME ACTIVE\nfraud plan eu-west\n";
        assert_eq!(column(table, "READY").as_deref(), Some("True"));
        assert_eq!(column(table, "ACTIVE").as_deref(), Some("us-east"));
        assert_eq!(column(table, "PHASE"), None);
        assert_eq!(column(&table.replace("   True", ""), "ACTIVE"), None, "an empty column moves the others");
    }
}
