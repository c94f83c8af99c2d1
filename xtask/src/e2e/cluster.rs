//! A region's cluster as the checks see it: kubectl, what the pipeline owns there, and the pods. Runs kubectl.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::demo::regions::{NAMESPACE, PIPELINE, Region, Sandbox};
use crate::progress;

const POLL: Duration = Duration::from_millis(200);
/// Kinds of which the operator owns objects.
pub(super) const OWNED_KINDS: &[&str] = &[
    "serviceaccounts",
    "configmaps",
    "services",
    "networkpolicies.networking.k8s.io",
    "poddisruptionbudgets.policy",
    "statefulsets.apps",
    "deployments.apps",
    "horizontalpodautoscalers.autoscaling",
];

/// What kubectl writes to standard output. Errors carry what it says.
pub(super) fn kubectl(sandbox: &Sandbox, region: &Region, arguments: &[&str]) -> Result<String> {
    let mut command = sandbox.kubectl(region);
    command.arg("--request-timeout=10s").args(arguments);
    progress::output(&mut command).with_context(|| region.name.clone())
}

/// In the pipeline's namespace, as JSON.
pub(super) fn get(sandbox: &Sandbox, region: &Region, arguments: &[&str]) -> Result<Value> {
    let said = kubectl(sandbox, region, &[&["--namespace", NAMESPACE, "get", "--output=json"], arguments].concat())?;
    serde_json::from_str(&said).with_context(|| format!("kubectl says no JSON about {}", arguments.join(" ")))
}

/// Everything of these kinds that carries the pipeline's label.
pub(super) fn labelled(sandbox: &Sandbox, region: &Region, kinds: &[&str]) -> Result<Vec<Value>> {
    let selector = format!("--selector=app.kubernetes.io/name=fraudpipeline,app.kubernetes.io/instance={PIPELINE}");
    let list = get(sandbox, region, &[&kinds.join(","), &selector])?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

pub(super) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub(super) fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

/// A pod that is another one, or whose containers were started again, is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) restarts: u64,
    pub(super) component: String,
}

/// The pods of all namespaces, by namespace and name.
pub(super) fn pods(sandbox: &Sandbox, region: &Region) -> Result<BTreeMap<String, Pod>> {
    let said = kubectl(sandbox, region, &["get", "pods", "--all-namespaces", "--output=json"])?;
    let list: Value = serde_json::from_str(&said).context("kubectl says no JSON about pods")?;
    Ok(list["items"].as_array().into_iter().flatten().map(pod).collect())
}

fn pod(object: &Value) -> (String, Pod) {
    let metadata = &object["metadata"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let containers = object["status"]["containerStatuses"].as_array();
    let restarts = containers.into_iter().flatten().filter_map(|container| container["restartCount"].as_u64()).sum();
    let component = text(&metadata["labels"]["app.kubernetes.io/component"]);
    (format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"])), Pod { uid: text(&metadata["uid"]), restarts, component })
}

/// Asks until there is an answer. An error is an answer that may come later; the last one is told when time is up.
pub(super) fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        let seen = look();
        if let Ok(Some(value)) = seen {
            return Ok(value);
        }
        if started.elapsed() >= limit {
            let why = seen.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
            bail!("{what}: not within {}{why}", progress::seconds(limit));
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn restarts_of_all_containers_count() {
        let object = json!({
            "metadata": {"namespace": "fraud", "name": "a-0", "uid": "u", "labels": {"app.kubernetes.io/component": "fs"}},
            "status": {"containerStatuses": [{"restartCount": 1}, {"restartCount": 2}]},
        });
        assert_eq!(pod(&object), ("fraud/a-0".to_string(), Pod { uid: "u".to_string(), restarts: 3, component: "fs".to_string() }));
    }

    #[test]
    fn waiting_ends_with_the_last_error() {
        let error = until::<()>("the thing", Duration::ZERO, || bail!("no route")).unwrap_err().to_string();
        assert_eq!(error, "the thing: not within 0.0 s (no route)");
    }
}
