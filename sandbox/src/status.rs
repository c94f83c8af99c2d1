//! What an instance is doing, for people and for programs. IO: reads state files and `/proc`, asks each API server once.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::instance::{Instance, Region};
use crate::process;
use crate::supervisor::{self, ProcessState};
use crate::up;
use crate::wan::{self, LinkReport, Request};

#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub instance: String,
    pub router_running: bool,
    pub regions: Vec<RegionStatus>,
    pub links: Vec<LinkReport>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RegionStatus {
    pub name: String,
    pub state: RegionState,
    pub node_ready: bool,
    pub supervisor_running: bool,
    pub processes: BTreeMap<String, ProcessStatus>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RegionState {
    /// Nothing runs: never started, killed or taken down.
    Down,
    /// Something runs, and something that should is missing or held by a fault.
    Degraded,
    Running,
}

#[derive(Debug, Serialize)]
pub(crate) struct ProcessStatus {
    pub state: ProcessState,
    pub pid: Option<i32>,
    pub restarts: u32,
    pub last_end: Option<String>,
    pub memory_mib: u64,
}

pub(crate) fn of(instance: &Instance) -> Status {
    Status {
        instance: instance.name.clone(),
        router_running: process::recorded(&instance.folder.join("router.json")).is_some(),
        regions: instance.region_list().iter().map(of_region).collect(),
        links: wan::ask(instance, &Request::Show).unwrap_or_default(),
    }
}

fn of_region(region: &Region) -> RegionStatus {
    let processes: BTreeMap<String, ProcessStatus> = supervisor::read_report(region)
        .into_iter()
        .map(|(name, report)| {
            let pid = report.identity.map(|identity| identity.pid);
            let memory_mib = pid.map_or(0, memory_mib);
            (name, ProcessStatus { state: report.state, pid, restarts: report.restarts, last_end: report.last_end, memory_mib })
        })
        .collect();
    let supervisor_running = process::recorded(&region.path("supervisor.json")).is_some();
    let node_ready = supervisor_running && supervisor::api_is_ready(region) && up::node_is_ready(region);
    let all_run = !processes.is_empty() && processes.values().all(|process| process.state == ProcessState::Running);
    let any_runs = supervisor_running || processes.values().any(|process| process.pid.is_some());
    let state = match (any_runs, all_run && supervisor_running && node_ready) {
        (false, _) => RegionState::Down,
        (true, false) => RegionState::Degraded,
        (true, true) => RegionState::Running,
    };
    RegionStatus { name: region.name.clone(), state, node_ready, supervisor_running, processes }
}

fn memory_mib(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

pub(crate) fn text(status: &Status) -> String {
    let mut lines = vec![format!("instance {}: router {}", status.instance, if status.router_running { "running" } else { "not running" })];
    for region in &status.regions {
        lines.push(format!("{}: {}{}", region.name, word(&region.state), if region.node_ready { ", node Ready" } else { "" }));
        for (name, process) in &region.processes {
            let end = process.last_end.as_ref().map(|end| format!("  last end: {end}")).unwrap_or_default();
            lines.push(format!(
                "  {name:<24} {:<8} pid {:<8} {:>5} MiB  restarts {}{end}",
                word(&process.state),
                process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                process.memory_mib,
                process.restarts
            ));
        }
    }
    if !status.links.is_empty() {
        lines.push(wan::show(&status.links));
    }
    lines.join("\n")
}

/// The word that the JSON form uses as well.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
