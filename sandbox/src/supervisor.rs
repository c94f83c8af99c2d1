//! One region's supervisor: starts the region's processes, starts those again that end by themselves, and carries out holds. IO.
//!
//! It runs inside the region's network namespace and cgroup, so everything it starts is in both and can be found there after any
//! crash. What it started is recorded with pid and start time; a supervisor that is started anew adopts what still runs. It is
//! never asked to stop: a region goes down by SIGKILL to all of its processes, this one first, as in a power cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::instance::{Instance, Region, read_json, write_json};
use crate::specs::{self, Spec, Start};
use crate::{cgroup, fault, net, process, volumes};

const TICK: Duration = Duration::from_millis(100);
/// While a process is slowed, so that it stutters and does not halt for long.
const TICK_SLOWED: Duration = Duration::from_millis(10);
const RESTART_DELAY_MIN: Duration = Duration::from_millis(200);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5);
/// A process that ran this long starts again at once when it ends.
const SETTLED: Duration = Duration::from_secs(30);
/// Processes get a known environment and not the one of whoever typed `sandbox up`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The state file of a region, by process name.
pub(crate) type Report = BTreeMap<String, ProcessReport>;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessReport {
    pub state: ProcessState,
    /// Of the running process.
    pub identity: Option<Identity>,
    pub restarts: u32,
    /// How it ended the last time, if it ever did.
    pub last_end: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProcessState {
    /// For the API server, or for the delay before another start.
    Waiting,
    Running,
    /// Killed by a fault and not started again before it ends.
    Killed,
    Paused,
    Slowed,
}

struct Slot {
    spec: Spec,
    child: Option<Child>,
    identity: Option<Identity>,
    state: ProcessState,
    restarts: u32,
    last_end: Option<String>,
    started: Instant,
    start_again: Instant,
    delay: Duration,
    stopped: bool,
}

pub(crate) fn report_path(region: &Region) -> std::path::PathBuf {
    region.path("processes.json")
}

/// The body of `sandbox supervise`. A signal ends it.
pub(crate) fn run(instance: &Instance, region: &Region) -> Result<()> {
    process::detach(&region.path("supervisor.lock"))?;
    cgroup::join(&format!("{}/{}", region.cgroup(), cgroup::SYSTEM))?;
    net::enter(&region.netns())?;
    let recorded: Report = read_json(&report_path(region))?.unwrap_or_default();
    let own_program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut slots: Vec<Slot> =
        specs::of_region(region, &instance.toolbox, own_program).into_iter().map(|spec| Slot::new(recorded.get(spec.name), spec)).collect();
    process::record(&region.path("supervisor.json"))?;
    let api_ready = Arc::new(AtomicBool::new(false));
    let (thread_region, thread_ready) = (region.clone(), Arc::clone(&api_ready));
    std::thread::spawn(move || {
        wait_for_api(&thread_region);
        thread_ready.store(true, Ordering::Relaxed);
        keep_recycling(&thread_region);
    });
    supervise(region, &mut slots, &api_ready)
}

fn supervise(region: &Region, slots: &mut [Slot], api_ready: &AtomicBool) -> Result<()> {
    let mut written = Report::new();
    // Pods that a supervisor before this one may have left stopped go on, unless they are held.
    let mut stopped_pods = BTreeSet::from([format!("{}/kubepods", region.cgroup())]);
    for tick in 0u32.. {
        let holds = fault::read_holds(region);
        for slot in slots.iter_mut() {
            slot.reap();
            let may_start = slot.spec.start == Start::AtOnce || api_ready.load(Ordering::Relaxed);
            if let Err(error) = slot.step(region, holds.get(slot.spec.name).map(|file| file.hold), may_start, tick) {
                log(&format!("{}: {error:#}", slot.spec.name));
            }
        }
        let report: Report = slots.iter().map(|slot| (slot.spec.name.to_owned(), slot.report())).collect();
        if report != written {
            write_json(&report_path(region), &report)?;
            written = report;
        }
        hold_pods(&holds, &mut stopped_pods, tick);
        let slowed = holds.values().any(|file| matches!(file.hold, fault::Hold::Slow { .. }))
            || slots.iter().any(|slot| slot.state == ProcessState::Slowed);
        std::thread::sleep(if slowed { TICK_SLOWED } else { TICK });
    }
    Ok(())
}

/// Of every ten short ticks, the share that something slowed loses.
fn loses_tick(percent: u8, tick: u32) -> bool {
    tick % 10 < u32::from(percent) / 10
}

/// Pods are the kubelet's to start; a fault only signals whatever is in their cgroups at the time.
fn hold_pods(holds: &BTreeMap<String, fault::HoldFile>, stopped: &mut BTreeSet<String>, tick: u32) {
    let signal_all = |cgroup: &str, signal: Signal| {
        for member in cgroup::processes_below(cgroup) {
            if let Err(error) = member.signal(signal) {
                log(&format!("cannot send {signal} to process {}: {error}", member.pid));
            }
        }
    };
    let held: BTreeMap<&String, fault::Hold> = holds.values().filter_map(|file| Some((file.cgroup.as_ref()?, file.hold))).collect();
    stopped.retain(|cgroup| {
        let still_held = held.contains_key(cgroup);
        if !still_held {
            signal_all(cgroup, Signal::SIGCONT);
        }
        still_held
    });
    for (cgroup, hold) in held {
        match hold {
            fault::Hold::Kill => signal_all(cgroup, Signal::SIGKILL),
            fault::Hold::Pause => signal_all(cgroup, Signal::SIGSTOP),
            fault::Hold::Slow { percent } => signal_all(cgroup, if loses_tick(percent, tick) { Signal::SIGSTOP } else { Signal::SIGCONT }),
        }
        stopped.insert(cgroup.clone());
    }
}

impl Slot {
    fn new(recorded: Option<&ProcessReport>, spec: Spec) -> Self {
        let identity = recorded.and_then(|report| report.identity.clone()).filter(Identity::is_alive);
        let now = Instant::now();
        Self {
            spec,
            child: None,
            identity,
            state: ProcessState::Waiting,
            restarts: recorded.map_or(0, |report| report.restarts),
            last_end: None,
            started: now,
            start_again: now,
            delay: RESTART_DELAY_MIN,
            // An adopted process may have been left stopped; the first step without a hold lets it go on.
            stopped: true,
        }
    }

    fn report(&self) -> ProcessReport {
        ProcessReport { state: self.state, identity: self.identity.clone(), restarts: self.restarts, last_end: self.last_end.clone() }
    }

    /// Notices the end of the process, whether it is a child of this supervisor or adopted.
    fn reap(&mut self) {
        let ended = match self.child.as_mut() {
            Some(child) => child.try_wait().ok().flatten().map(|status| status.to_string()),
            None => self.identity.as_ref().filter(|identity| !identity.is_alive()).map(|_| "not a child of this supervisor".to_owned()),
        };
        let Some(end) = ended else { return };
        if self.state != ProcessState::Killed {
            log(&format!("{} ended: {end}", self.spec.name));
        }
        self.child = None;
        self.identity = None;
        self.stopped = false;
        self.last_end = Some(end);
        if self.started.elapsed() > SETTLED {
            self.delay = RESTART_DELAY_MIN;
        }
        self.start_again = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(RESTART_DELAY_MAX);
    }

    fn step(&mut self, region: &Region, hold: Option<fault::Hold>, may_start: bool, tick: u32) -> Result<()> {
        let Some(identity) = self.identity.clone() else {
            if matches!(hold, Some(fault::Hold::Kill)) {
                self.state = ProcessState::Killed;
                return Ok(());
            }
            if self.state == ProcessState::Killed {
                self.start_again = Instant::now();
            }
            self.state = ProcessState::Waiting;
            return if may_start && Instant::now() >= self.start_again { self.start(region) } else { Ok(()) };
        };
        match hold {
            Some(fault::Hold::Kill) => {
                self.state = ProcessState::Killed;
                identity.signal(Signal::SIGKILL)?;
                Ok(())
            }
            Some(fault::Hold::Pause) => {
                self.set_stopped(&identity, true)?;
                self.state = ProcessState::Paused;
                Ok(())
            }
            Some(fault::Hold::Slow { percent }) => {
                self.set_stopped(&identity, loses_tick(percent, tick))?;
                self.state = ProcessState::Slowed;
                Ok(())
            }
            None => {
                self.set_stopped(&identity, false)?;
                self.state = ProcessState::Running;
                Ok(())
            }
        }
    }

    fn set_stopped(&mut self, identity: &Identity, stopped: bool) -> Result<()> {
        if self.stopped != stopped {
            identity.signal(if stopped { Signal::SIGSTOP } else { Signal::SIGCONT })?;
            self.stopped = stopped;
        }
        Ok(())
    }

    fn start(&mut self, region: &Region) -> Result<()> {
        let output = process::open_append(&region.path(&format!("log/{}.log", self.spec.name)))?;
        let spawned = Command::new(&self.spec.program)
            .args(&self.spec.args)
            .env_clear()
            .envs([("PATH", PATH), ("HOME", "/"), ("LANG", "C.UTF-8")])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn();
        self.started = Instant::now();
        if self.last_end.is_some() {
            self.restarts += 1;
        }
        match spawned {
            Ok(child) => {
                self.identity = Identity::of(child.id().cast_signed());
                self.child = Some(child);
                self.stopped = false;
                self.state = ProcessState::Running;
                Ok(())
            }
            Err(error) => {
                self.start_again = Instant::now() + RESTART_DELAY_MAX;
                self.last_end = Some(format!("could not be started: {error}"));
                Err(error).with_context(|| format!("cannot start {}", self.spec.program.display()))
            }
        }
    }
}

/// Returns when the API server has said that it is ready, which is after it has made its own roles.
fn wait_for_api(region: &Region) {
    while !api_is_ready(region) {
        std::thread::sleep(Duration::from_millis(250));
    }
}

pub(crate) fn api_is_ready(region: &Region) -> bool {
    let address = (region.addresses.node, 6443).into();
    // A connection costs nothing; kubectl is only started when there is somebody to ask.
    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
        && Command::new(region.path("../bin/kubectl"))
            .arg("--kubeconfig")
            .arg(region.path("admin.kubeconfig"))
            .args(["get", "--raw=/readyz", "--request-timeout=3s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

fn keep_recycling(region: &Region) -> ! {
    loop {
        if let Err(error) = watch_volumes(region) {
            log(&format!("volumes: {error:#}"));
        }
        std::thread::sleep(Duration::from_secs(3));
    }
}

fn watch_volumes(region: &Region) -> Result<()> {
    let mut watch = volumes::watch_command(region).stderr(Stdio::null()).spawn().context("cannot run kubectl")?;
    if let Some(output) = watch.stdout.take() {
        for line in BufReader::new(output).lines() {
            match volumes::recycle(region, &line?) {
                Ok(Some(name)) => log(&format!("volume {name} was emptied and is available again")),
                Ok(None) => {}
                Err(error) => log(&format!("volumes: {error:#}")),
            }
        }
    }
    watch.wait()?;
    Ok(())
}

fn log(line: &str) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    println!("{}.{:03} {line}", now.as_secs(), now.subsec_millis());
}

/// What the region's processes are doing, as last written down; `Running` is taken back for those that died with the supervisor.
pub(crate) fn read_report(region: &Region) -> Report {
    let mut report: Report = read_json(&report_path(region)).ok().flatten().unwrap_or_default();
    for process in report.values_mut() {
        if process.identity.as_ref().is_some_and(|identity| !identity.is_alive()) {
            process.identity = None;
            process.state = ProcessState::Waiting;
        }
    }
    report
}

/// Forgets what ran before a kill of the whole region, so that it starts again without delays and with counts from zero.
pub(crate) fn forget(region: &Region) {
    for file in [report_path(region), region.path("supervisor.json")] {
        let _ = fs::remove_file(file);
    }
}
