//! Carries a fault to what its target names: links through the router, processes and pods through the region's supervisor. IO.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::cgroup;
use crate::fault::{self, Hold, Target};
use crate::instance::{Instance, Region};
use crate::supervisor::{self, ProcessState};
use crate::wan::{self, Change, Request};

pub(crate) fn on_links(instance: &Instance, links: Vec<(String, String)>, change: &Change, duration: Option<Duration>) -> Result<()> {
    let for_ms = duration.map(|duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
    for (from, to) in links {
        wan::ask(instance, &Request::Fault { from, to, change: change.clone(), for_ms })?;
    }
    Ok(())
}

pub(crate) fn hold(instance: &Instance, target: &str, wanted: Hold, duration: Option<Duration>) -> Result<()> {
    match fault::parse_target(target)? {
        Target::Process { region, process } => hold_process(&instance.region(&region)?, &process, wanted, duration),
        Target::Pod { region, namespace, pod } => hold_pod(&instance.region(&region)?, &namespace, &pod, wanted, duration),
        Target::Links(_) => bail!("{target:?} is a link; `fault cut` or `fault slow` it"),
    }
}

/// Returns when the supervisor has carried the fault out, so that a drill knows when it began.
fn hold_process(region: &Region, process: &str, wanted: Hold, duration: Option<Duration>) -> Result<()> {
    let report = supervisor::read_report(region);
    let names: Vec<&str> = report.keys().map(String::as_str).collect();
    ensure!(report.contains_key(process), "{} has no process {process:?}; it has {}", region.name, names.join(", "));
    fault::hold(region, process, wanted, None, duration)?;
    let in_force = |state: ProcessState| match wanted {
        Hold::Kill => state == ProcessState::Killed,
        Hold::Pause => state == ProcessState::Paused,
        Hold::Slow { .. } => state == ProcessState::Slowed,
    };
    for _ in 0..200 {
        if supervisor::read_report(region).get(process).is_some_and(|process| in_force(process.state)) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fault::release(region, process)?;
    bail!("the supervisor of {} did not carry the fault out; `sandbox up` starts it again", region.name)
}

fn hold_pod(region: &Region, namespace: &str, pod: &str, wanted: Hold, duration: Option<Duration>) -> Result<()> {
    let output = Command::new(region.path("../bin/kubectl"))
        .arg("--kubeconfig")
        .arg(region.path("admin.kubeconfig"))
        .args(["--namespace", namespace, "get", "pod", pod, "-o", "jsonpath={.metadata.uid} {.status.containerStatuses[*].containerID}"])
        .output()
        .context("cannot run kubectl")?;
    ensure!(output.status.success(), "{}: {}", region.name, String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout);
    let mut words = text.split_whitespace();
    let uid = words.next().with_context(|| format!("pod {pod} has no uid"))?;
    let cgroup = cgroup::find(&region.cgroup(), &format!("pod{uid}")).with_context(|| format!("pod {pod} has no processes yet"))?;
    if wanted != Hold::Kill || duration.is_some() {
        return fault::hold(region, &fault::pod_key(namespace, pod), wanted, Some(cgroup), duration);
    }
    // Once: only the containers die, as in a crash, and not what holds the pod's network.
    for id in words.filter_map(|id| id.strip_prefix("containerd://")) {
        for member in cgroup::processes_below(&format!("{cgroup}/{id}")) {
            member.signal(Signal::SIGKILL).with_context(|| format!("cannot kill process {}", member.pid))?;
        }
    }
    Ok(())
}

pub(crate) fn end(instance: &Instance, target: &str) -> Result<()> {
    match fault::parse_target(target)? {
        Target::Process { region, process } => {
            let released = fault::release(&instance.region(&region)?, &process)?;
            ensure!(released, "{target} has no fault");
        }
        Target::Pod { region, namespace, pod } => {
            let released = fault::release(&instance.region(&region)?, &fault::pod_key(&namespace, &pod))?;
            ensure!(released, "{target} has no fault");
        }
        Target::Links(links) => {
            for (from, to) in links {
                wan::ask(instance, &Request::EndFault { from, to })?;
            }
        }
    }
    Ok(())
}
