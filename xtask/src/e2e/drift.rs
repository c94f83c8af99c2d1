//! Owned objects that somebody deletes or changes are what they should be again within seconds, and no data is lost by it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::cluster::{self, OWNED_KINDS, kind, name};
use super::{Run, all_answered, whole_stream};
use crate::demo::ready;
use crate::demo::regions::{NAMESPACE, PIPELINE, Region, Sandbox};
use crate::progress;

const BACK_MAX: Duration = Duration::from_secs(5);
/// How long one that is late is waited for, to say how late.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// Part of an object that the operator decides on, and of which nobody else writes anything.
const DECIDED: &[&str] = &["/metadata/labels", "/metadata/ownerReferences", "/spec", "/data", "/automountServiceAccountToken"];

/// What somebody might do with `kubectl edit`.
fn changes() -> Vec<(&'static str, String, Value)> {
    let of = |part: &str| format!("{PIPELINE}-{part}");
    let label = |label: &str, value: Value| json!({"metadata": {"labels": {label: value}}});
    let port = |port: u16| json!([{"op": "replace", "path": "/spec/ports/0/port", "value": port}]);
    vec![
        ("statefulset", of("decision"), json!({"spec": {"revisionHistoryLimit": 2}})),
        ("statefulset", of("fs-g1-s0"), json!({"spec": {"replicas": 3}})),
        ("deployment", of("builder"), json!({"spec": {"replicas": 3}})),
        ("deployment", of("inference"), label("app.kubernetes.io/component", json!("other"))),
        ("service", of("decision"), port(8444)),
        ("service", of("fs-g1-s0"), port(6380)),
        ("configmap", of("decision"), json!({"data": {"config.yaml": "grpc: nonsense"}})),
        ("configmap", of("builder"), label("app.kubernetes.io/managed-by", Value::Null)),
        ("horizontalpodautoscaler", of("decision"), json!({"spec": {"maxReplicas": 7}})),
        ("poddisruptionbudget", of("fs-g1"), json!({"spec": {"maxUnavailable": 9}})),
        ("networkpolicy", of("fs"), json!({"spec": {"ingress": [{}]}})),
        ("serviceaccount", of("decision"), json!({"automountServiceAccountToken": true})),
    ]
}

pub(super) fn run(run: &mut Run) -> Result<()> {
    let active = ready::wait(&run.sandbox)?;
    let active = run.sandbox.region(&active)?.clone();
    let standby = run.sandbox.description.regions.iter().find(|region| region.name != active.name).context("there is no standby region")?;
    let regions = [(standby.clone(), "standby"), (active.clone(), "active")];
    let results: Vec<_> = std::thread::scope(|scope| {
        let sandbox = &run.sandbox;
        let threads = regions.each_ref().map(|(region, _)| scope.spawn(move || in_region(sandbox, region)));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread ended in a panic"))).collect()
    });
    for ((region, role), result) in regions.iter().zip(results) {
        let whole = result.with_context(|| region.name.clone())?;
        for (name, outcome) in whole {
            run.checks.check(&format!("{} ({role}): {name}", region.name), outcome);
        }
    }
    run.checks.check("all regions are Ready after the repairs", ready::wait(&run.sandbox).map(|active| format!("{active} is active")));
    let ended = whole_stream(run.stream("after-drift", &active, 50, Duration::from_secs(5))?.0)?;
    run.checks.check("payments are decided after the repairs", all_answered(&ended));
    Ok(())
}

type Outcomes = Vec<(String, Result<String>)>;

fn in_region(sandbox: &Sandbox, region: &Region) -> Result<Outcomes> {
    let stores = |pods: BTreeMap<String, cluster::Pod>| -> BTreeMap<String, cluster::Pod> {
        pods.into_iter().filter(|(_, pod)| pod.component == "fs").collect()
    };
    let before = stores(cluster::pods(sandbox, region)?);
    let mut outcomes = deletions(sandbox, region)?;
    for (kind, name, change) in changes() {
        outcomes.push((format!("a changed {kind} {name} is repaired"), repaired(sandbox, region, kind, &name, &change)));
    }
    let after = stores(cluster::pods(sandbox, region)?);
    let kept = before.iter().all(|(name, pod)| after.get(name) == Some(pod));
    let told = if kept { Ok(format!("{} pods", before.len())) } else { Err(anyhow::anyhow!("{before:?} became {after:?}")) };
    outcomes.push(("the feature store kept its pods".to_string(), told));
    Ok(outcomes)
}

/// Every owned object, one after the other; one outcome for each kind.
fn deletions(sandbox: &Sandbox, region: &Region) -> Result<Outcomes> {
    let mut by_kind: BTreeMap<String, Vec<Result<(String, Duration)>>> = BTreeMap::new();
    for object in cluster::labelled(sandbox, region, OWNED_KINDS)? {
        let back = deleted(sandbox, region, &object).map(|after| (name(&object).to_string(), after));
        by_kind.entry(kind(&object).to_string()).or_default().push(back.with_context(|| name(&object).to_string()));
    }
    ensure!(by_kind.len() == OWNED_KINDS.len(), "of {} owned kinds only these exist: {:?}", OWNED_KINDS.len(), by_kind.keys());
    Ok(by_kind.into_iter().map(|(kind, backs)| (format!("each deleted {kind} is back"), slowest(backs))).collect())
}

fn slowest(backs: Vec<Result<(String, Duration)>>) -> Result<String> {
    let backs = backs.into_iter().collect::<Result<Vec<_>>>()?;
    let (name, after) = backs.iter().max_by_key(|(_, after)| *after).context("there is none")?;
    let told = format!("{} of them, the slowest ({name}) after {}", backs.len(), progress::seconds(*after));
    ensure!(*after <= BACK_MAX, "{told}");
    Ok(told)
}

/// How long until there is another object of that name. Pods of StatefulSets stay: their deletion is another event than that of the object, and costs data.
fn deleted(sandbox: &Sandbox, region: &Region, object: &Value) -> Result<Duration> {
    let what = format!("{}/{}", kind(object), name(object));
    let cascade = if kind(object) == "StatefulSet" { "--cascade=orphan" } else { "--cascade=background" };
    let started = Instant::now();
    cluster::kubectl(sandbox, region, &["--namespace", NAMESPACE, "delete", &what, cascade, "--wait=false"])?;
    cluster::until(&what, WAIT_MAX, || {
        let now = cluster::get(sandbox, region, &[&what, "--ignore-not-found"]);
        let uid = |object: &Value| object["metadata"]["uid"].clone();
        // kubectl prints nothing about an object that is not there.
        Ok(now.is_ok_and(|now| !uid(&now).is_null() && uid(&now) != uid(object)).then_some(()))
    })?;
    Ok(started.elapsed())
}

fn repaired(sandbox: &Sandbox, region: &Region, kind: &str, name: &str, change: &Value) -> Result<String> {
    let what = format!("{kind}/{name}");
    let look = || -> Result<Vec<Value>> {
        let object = cluster::get(sandbox, region, &[&what])?;
        Ok(DECIDED.iter().map(|pointer| object.pointer(pointer).cloned().unwrap_or_default()).collect())
    };
    let before = look()?;
    let way = if change.is_array() { "--type=json" } else { "--type=merge" };
    let started = Instant::now();
    let said = cluster::kubectl(sandbox, region, &["--namespace", NAMESPACE, "patch", &what, way, "--patch", &change.to_string()])?;
    ensure!(!said.contains("no change"), "the change changes nothing: {change}");
    cluster::until("repaired", WAIT_MAX, || Ok((look()? == before).then_some(())))?;
    ensure!(started.elapsed() <= BACK_MAX, "only after {}", progress::seconds(started.elapsed()));
    Ok(format!("after {}", progress::seconds(started.elapsed())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_object_that_is_late_fails_its_kind() {
        let back = |seconds| Ok(("a".to_string(), Duration::from_secs(seconds)));
        assert_eq!(slowest(vec![back(1), back(2)]).unwrap(), "2 of them, the slowest (a) after 2.0 s");
        assert!(slowest(vec![back(1), back(6)]).is_err());
        assert!(slowest(vec![back(1), Err(anyhow::anyhow!("never"))]).is_err());
        assert!(slowest(vec![]).is_err());
    }
}
