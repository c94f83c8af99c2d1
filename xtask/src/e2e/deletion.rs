//! Taking the pipeline down: at once in a standby region, only when confirmed in the active one, leaving write-ahead logs and nothing else; and up again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::cluster::{self, OWNED_KINDS, kind, name};
use super::{Run, all_answered, whole_stream};
use crate::demo::ready;
use crate::demo::regions::{NAMESPACE, PIPELINE, Region, Sandbox};
use crate::progress;

const GONE_MAX: Duration = Duration::from_secs(90);
const TOLD_MAX: Duration = Duration::from_secs(15);
const ANNOTATION: &str = "fraudpipeline.dev/confirm-delete";
/// Of these too nothing may be left; the operator does not make them itself.
const MADE_FOR_OWNED: &[&str] = &["pods", "replicasets.apps", "endpointslices.discovery.k8s.io", "regionplans.fraudpipeline.dev"];

pub(super) fn run(run: &mut Run) -> Result<()> {
    let active = ready::wait(&run.sandbox)?;
    let active = run.sandbox.region(&active)?.clone();
    let standby =
        run.sandbox.description.regions.iter().rfind(|region| region.name != active.name).context("there is no standby region")?;
    in_standby(run, &standby.clone())?;
    in_active(run, &active)
}

fn in_standby(run: &mut Run, region: &Region) -> Result<()> {
    delete(&run.sandbox, region)?;
    taken_down(run, region, "standby")?;
    up_again(run, region)
}

fn in_active(run: &mut Run, region: &Region) -> Result<()> {
    let epoch = ready::Seen::of(&run.sandbox.pipeline(region)?).epoch.context("the pipeline has no epoch")?;
    delete(&run.sandbox, region)?;
    let told = told(&run.sandbox, region, epoch);
    run.checks.check(&format!("{} (active): an unconfirmed deletion waits, and says what to do", region.name), told);
    let (stream, _) = run.stream("unconfirmed-deletion", region, 20, Duration::from_secs(5))?;
    run.checks.check(&format!("{} (active): payments are decided meanwhile", region.name), all_answered(&whole_stream(stream)?));
    let confirmation = format!("{ANNOTATION}={epoch}");
    cluster::kubectl(
        &run.sandbox,
        region,
        &["--namespace", NAMESPACE, "annotate", "--overwrite", "fraudpipeline", PIPELINE, &confirmation],
    )?;
    taken_down(run, region, "active")?;
    up_again(run, region)?;
    let (stream, _) = run.stream("applied-again", region, 50, Duration::from_secs(5))?;
    run.checks.check(&format!("{}: payments are decided again", region.name), all_answered(&whole_stream(stream)?));
    Ok(())
}

fn delete(sandbox: &Sandbox, region: &Region) -> Result<()> {
    cluster::kubectl(sandbox, region, &["--namespace", NAMESPACE, "delete", "fraudpipeline", PIPELINE, "--wait=false"]).map(drop)
}

/// The status and an event both hold the command to type.
fn told(sandbox: &Sandbox, region: &Region, epoch: u64) -> Result<String> {
    let command = format!("kubectl annotate fraudpipeline {PIPELINE} -n {NAMESPACE} --overwrite {ANNOTATION}={epoch}");
    cluster::until("the command in the status and in an event", TOLD_MAX, || {
        let status = sandbox.pipeline(region)?["status"].to_string();
        let events = cluster::get(sandbox, region, &["events.events.k8s.io"])?["items"].to_string();
        let (in_status, in_events) = (status.contains(&command), events.contains(&command));
        if in_status && in_events {
            return Ok(Some(()));
        }
        bail!("in the status: {in_status}, in an event: {in_events}; expected: {command}")
    })?;
    Ok(command)
}

fn taken_down(run: &mut Run, region: &Region, role: &str) -> Result<()> {
    let asked = Instant::now();
    let gone = cluster::until("the pipeline is gone", GONE_MAX, || {
        let found = cluster::kubectl(&run.sandbox, region, &["--namespace", NAMESPACE, "get", "fraudpipelines", "--output=name"])?;
        Ok(found.trim().is_empty().then_some(()))
    });
    let is_gone = gone.is_ok();
    run.checks.check(
        &format!("{} ({role}): a deletion ends", region.name),
        gone.map(|()| format!("after {}", progress::seconds(asked.elapsed()))),
    );
    if !is_gone {
        let pipeline = run.sandbox.pipeline(region)?;
        bail!("it is stuck: finalizers {}, status {}", pipeline["metadata"]["finalizers"], pipeline["status"]["waitingOn"]);
    }
    let kinds = [OWNED_KINDS, MADE_FOR_OWNED].concat();
    let empty = cluster::until("nothing of it is left", GONE_MAX, || {
        let left: Vec<String> = cluster::labelled(&run.sandbox, region, &kinds)?.iter().map(text).collect();
        if left.is_empty() { Ok(Some(())) } else { bail!("{}", left.join(", ")) }
    });
    let empty =
        empty.and_then(|()| volumes(&run.sandbox, region)).map(|kept| format!("{}; kept: {kept}", progress::seconds(asked.elapsed())));
    run.checks.check(&format!("{} ({role}): nothing is left but volumes of write-ahead logs", region.name), empty);
    Ok(())
}

fn text(object: &Value) -> String {
    format!("{} {}", kind(object), name(object))
}

fn volumes(sandbox: &Sandbox, region: &Region) -> Result<String> {
    let claims = cluster::labelled(sandbox, region, &["persistentvolumeclaims"])?;
    let names: Vec<&str> = claims.iter().map(name).collect();
    ensure!(!names.is_empty(), "no volume of a write-ahead log is left");
    let wal = format!("wal-{PIPELINE}-decision-");
    if let Some(other) = names.iter().find(|name| !name.starts_with(&wal)) {
        bail!("{other} is left");
    }
    Ok(names.join(", "))
}

fn up_again(run: &mut Run, region: &Region) -> Result<()> {
    let applied = Instant::now();
    run.sandbox.apply_file(region, &run.place.root.join("examples/payments.yaml"))?;
    let is_ready = ready::wait(&run.sandbox).map(|active| format!("after {}; {active} is active", progress::seconds(applied.elapsed())));
    let stays_down = is_ready.is_err();
    run.checks.check(&format!("{}: applied again, it comes back to Ready", region.name), is_ready);
    ensure!(!stays_down, "{} did not come back, so nothing more is tried", region.name);
    Ok(())
}
