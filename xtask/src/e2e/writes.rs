//! Who writes to the API servers, by their audit logs: nobody while nothing happens, and the operator rarely while payments stream.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{Run, all_answered, cluster, whole_stream};
use crate::demo::ready;
use crate::demo::regions::{NAMESPACE, OPERATOR_NAMESPACE, Region, Sandbox};
use crate::progress;

const WATCHED: Duration = Duration::from_secs(60);
/// After the last change, for what follows it: autoscalers, endpoints, status.
const CALM: Duration = Duration::from_secs(15);
/// Autoscalers change the number of pods when they will; a minute in which one did is not idle, and another is watched.
const ATTEMPTS: usize = 3;
const RATE: u32 = 250;
const STATUS_EVERY_MS: u64 = 10_000;
/// Times in the log are those at which requests arrive, which vary a little.
const STATUS_SLACK_MS: u64 = 500;
const AUTOSCALER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A write, as the API server's audit log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Write {
    user: String,
    verb: String,
    /// With the subresource, as in `fraudpipelines/status`.
    resource: String,
    namespace: String,
    name: String,
    /// Within its day.
    at_ms: u64,
}

pub(super) fn run(run: &mut Run) -> Result<()> {
    idle(run)?;
    under_traffic(run)
}

fn idle(run: &mut Run) -> Result<()> {
    let mut seen = BTreeMap::new();
    for _ in 0..ATTEMPTS {
        settle(&run.sandbox)?;
        seen = watch(&run.sandbox, || {
            std::thread::sleep(WATCHED);
            Ok(())
        })?;
        if !seen.values().flatten().any(Write::is_scaling) {
            break;
        }
        progress::note("an autoscaler changed the number of pods: not idle, another minute is watched");
    }
    for (region, writes) in &seen {
        let operator: Vec<&Write> = writes.iter().filter(|write| write.is_of_operator()).collect();
        run.checks.check(&format!("{region}: the operator writes nothing in {} s while idle", WATCHED.as_secs()), nothing(&operator));
        let others: Vec<&Write> = writes.iter().filter(|write| write.is_of_others()).collect();
        run.checks.check(&format!("{region}: nobody else writes about the pipeline while idle"), nothing(&others));
    }
    Ok(())
}

fn under_traffic(run: &mut Run) -> Result<()> {
    let active = ready::wait(&run.sandbox)?;
    let target = run.sandbox.region(&active)?.clone();
    let mut ended = None;
    let seen = watch(&run.sandbox, || {
        ended = Some(whole_stream(run.stream("traffic", &target, RATE, WATCHED)?.0)?);
        Ok(())
    })?;
    let ended = ended.context("there was no stream")?;
    run.checks.check(&format!("{} s of {RATE} payments/s are answered", WATCHED.as_secs()), all_answered(&ended));
    for (region, writes) in &seen {
        run.checks.check(&format!("{region}: at most one status write each 10 s under traffic"), status_writes(writes));
    }
    Ok(())
}

/// Until every pod runs and a while has passed.
fn settle(sandbox: &Sandbox) -> Result<()> {
    ready::wait(sandbox)?;
    cluster::until("as many ready pods as are asked for", Duration::from_secs(120), || {
        for region in &sandbox.description.regions {
            let owners = cluster::labelled(sandbox, region, &["statefulsets.apps", "deployments.apps"])?;
            if owners.iter().any(|owner| owner["spec"]["replicas"] != owner["status"]["readyReplicas"]) {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    std::thread::sleep(CALM);
    Ok(())
}

/// What every region's audit log says about the time in which `work` was done.
fn watch(sandbox: &Sandbox, work: impl FnOnce() -> Result<()>) -> Result<BTreeMap<String, Vec<Write>>> {
    let regions = &sandbox.description.regions;
    let before = regions.iter().map(|region| length(sandbox, region)).collect::<Result<Vec<u64>>>()?;
    work()?;
    let mut seen = BTreeMap::new();
    for (region, before) in regions.iter().zip(before) {
        ensure!(length(sandbox, region)? >= before, "{}: the audit log was rotated meanwhile; repeat the test", region.name);
        let mut command = sandbox.place.privileged("tail");
        let text = progress::output(command.arg(format!("--bytes=+{}", before + 1)).arg(&region.audit_log))?;
        let writes: Vec<Write> = text.lines().filter_map(parse).collect();
        // Kubelets and leaders renew them all the time.
        ensure!(writes.iter().any(Write::is_lease), "{}: the audit log shows no leases, so it shows nothing", region.name);
        seen.insert(region.name.clone(), writes);
    }
    Ok(seen)
}

fn length(sandbox: &Sandbox, region: &Region) -> Result<u64> {
    let said = progress::output(sandbox.place.privileged("stat").arg("--format=%s").arg(&region.audit_log))?;
    said.trim().parse().context("stat says no number")
}

impl Write {
    fn is_lease(&self) -> bool {
        self.resource == "leases"
    }

    fn is_of_operator(&self) -> bool {
        self.user.starts_with(&format!("system:serviceaccount:{OPERATOR_NAMESPACE}:")) && !self.is_lease()
    }

    /// Kubernetes notes the load of pods in an autoscaler's status, whatever the pods do.
    fn is_of_others(&self) -> bool {
        let about_us = [NAMESPACE, OPERATOR_NAMESPACE].contains(&self.namespace.as_str());
        let notes_load = self.user == AUTOSCALER && self.resource == "horizontalpodautoscalers/status";
        about_us && !notes_load && !self.is_lease() && !self.is_of_operator()
    }

    fn is_scaling(&self) -> bool {
        self.user == AUTOSCALER && self.resource.ends_with("/scale")
    }

    fn text(&self) -> String {
        let user = self.user.rsplit(':').next().unwrap_or_default();
        format!("{user}: {} {} {}/{}", self.verb, self.resource, self.namespace, self.name)
    }
}

fn nothing(writes: &[&Write]) -> Result<String> {
    if writes.is_empty() {
        return Ok("0 writes".to_string());
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    writes.iter().for_each(|write| *counts.entry(write.text()).or_default() += 1);
    let texts: Vec<String> = counts.iter().map(|(text, count)| format!("{count} x {text}")).collect();
    bail!("{} writes: {}", writes.len(), texts.join("; "))
}

fn status_writes(writes: &[Write]) -> Result<String> {
    let times: Vec<u64> = writes
        .iter()
        .filter(|write| write.is_of_operator() && write.resource == "fraudpipelines/status")
        .map(|write| write.at_ms)
        .collect();
    let gaps = times.windows(2).map(|pair| (pair[1] + DAY_MS - pair[0]) % DAY_MS);
    if let Some(gap) = gaps.min().filter(|gap| gap + STATUS_SLACK_MS < STATUS_EVERY_MS) {
        bail!("{} writes, two of them {gap} ms apart", times.len());
    }
    let all = writes.iter().filter(|write| write.is_of_operator()).count();
    Ok(format!("{} in {} s; {all} writes of the operator in all", times.len(), WATCHED.as_secs()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    user: User,
    verb: String,
    object_ref: Option<ObjectRef>,
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    #[serde(default)]
    subresource: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

/// Nothing for a line that is cut off or about no object.
fn parse(line: &str) -> Option<Write> {
    let event: Event = serde_json::from_str(line).ok()?;
    let object = event.object_ref?;
    let resource = if object.subresource.is_empty() { object.resource } else { format!("{}/{}", object.resource, object.subresource) };
    let at_ms = time_of_day_ms(&event.request_received_timestamp)?;
    Some(Write { user: event.user.username, verb: event.verb, resource, namespace: object.namespace, name: object.name, at_ms })
}

/// Of `2026-01-31T23:59:59.123456Z`.
fn time_of_day_ms(timestamp: &str) -> Option<u64> {
    let clock = timestamp.split_once('T')?.1.strip_suffix('Z')?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = whole.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let milliseconds: u64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1000 + milliseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(user: &str, resource: &str, subresource: &str, time: &str) -> String {
        format!(
            r#"{{"verb":"patch","user":{{"username":"{user}"}},"objectRef":{{"resource":"{resource}","subresource":"{subresource}","namespace":"fraud","name":"payments"}},"requestReceivedTimestamp":"2026-01-31T{time}Z"}}"#
        )
    }

    const OPERATOR: &str = "system:serviceaccount:fraudpipeline-system:fraudpipeline-operator";

    #[test]
    fn writes_are_told_apart_by_who_made_them() {
        let write = |user, resource, subresource| parse(&line(user, resource, subresource, "00:00:01.5")).unwrap();
        assert!(write(OPERATOR, "configmaps", "").is_of_operator());
        assert!(!write(OPERATOR, "leases", "").is_of_operator());
        assert!(write("system:node:us-east", "pods", "status").is_of_others());
        assert!(!write(AUTOSCALER, "horizontalpodautoscalers", "status").is_of_others());
        assert!(write(AUTOSCALER, "statefulsets", "scale").is_scaling());
        assert_eq!(write(OPERATOR, "configmaps", "").at_ms, 1500);
        assert_eq!(parse(r#"{"verb":"patch","#), None);
    }

    #[test]
    fn status_writes_must_keep_their_distance_even_at_midnight() {
        let at = |time| parse(&line(OPERATOR, "fraudpipelines", "status", time)).unwrap();
        assert!(status_writes(&[at("23:59:55.0"), at("00:00:05.1")]).is_ok());
        assert!(status_writes(&[at("00:00:00.0"), at("00:00:09.0")]).unwrap_err().to_string().contains("9000 ms"));
        assert!(status_writes(&[]).is_ok());
    }
}
