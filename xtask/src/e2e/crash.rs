//! This program is killed in the middle of a demo, once while the regions come up and once while payments stream. What it started then has no master any more, and
//! `sandbox down --delete` ends all of it. The sandbox's own self-test kills the sandbox's processes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{INSTANCE, Run, cluster, own_program};
use crate::progress;

const SECOND_INSTANCE: &str = "endtoendtwo";
const STATE: &str = "/var/lib/fraudpipeline";
/// Up to the moment at which it is killed.
const MIDDLE_MAX: Duration = Duration::from_secs(240);
/// A program whose reader is gone notices that at its next line, and a kubectl that nobody answers gives up after 20 s.
const LEFT_MAX: Duration = Duration::from_secs(30);

pub(super) fn run(run: &mut Run) -> Result<()> {
    let starting = killed_while_regions_start(run);
    run.checks.check("killed while regions start: `down` leaves no process, mount, link or namespace", starting);
    let streaming = killed_while_payments_stream(run);
    run.checks.check("killed while payments stream: `down` leaves no process, mount, link or namespace", streaming);
    Ok(())
}

fn killed_while_regions_start(run: &Run) -> Result<String> {
    let before = links()?;
    let demo = demo(run, SECOND_INSTANCE)?;
    let network = Path::new("/run/netns").join(format!("fp-{SECOND_INSTANCE}-us-east"));
    let middle = cluster::until("the first network namespace", MIDDLE_MAX, || Ok(network.exists().then_some(())));
    let killed = kill(demo)?;
    middle?;
    let took = down(SECOND_INSTANCE)?;
    ensure!(links()? == before, "links before {before:?}, after {:?}", links()?);
    nothing_left(run, SECOND_INSTANCE)?;
    Ok(format!("process {killed} killed, down after {}", progress::seconds(took)))
}

/// On the pipeline of the other checks, which have ended.
fn killed_while_payments_stream(run: &Run) -> Result<String> {
    let ledger = demo_folder(run, INSTANCE).join("ledger.jsonl");
    if ledger.exists() {
        std::fs::remove_file(&ledger).with_context(|| format!("cannot remove {}", ledger.display()))?;
    }
    let demo = demo(run, INSTANCE)?;
    let middle = cluster::until("an acknowledged payment", MIDDLE_MAX, || {
        Ok(std::fs::metadata(&ledger).is_ok_and(|ledger| ledger.len() > 0).then_some(()))
    });
    let killed = kill(demo)?;
    middle?;
    let took = down(INSTANCE)?;
    nothing_left(run, INSTANCE)?;
    Ok(format!("process {killed} killed, down after {}", progress::seconds(took)))
}

fn demo_folder(run: &Run, instance: &str) -> PathBuf {
    run.place.target.join(format!("demo-{instance}"))
}

fn demo(run: &Run, instance: &str) -> Result<Child> {
    let log = std::fs::File::create(run.folder.join(format!("crash-{instance}.log"))).context("cannot write the log of the demo")?;
    let mut command = own_program()?;
    command.args(["demo", "--headless", "--for", "10m", "--instance", instance]);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("cannot start the demo")
}

/// SIGKILL to the demo itself, which may have handed over to `sudo` and be a child of that.
fn kill(mut demo: Child) -> Result<u32> {
    let mut victim = demo.id();
    while std::fs::read_to_string(format!("/proc/{victim}/comm")).is_ok_and(|name| name.trim() == "sudo") {
        let children = std::fs::read_to_string(format!("/proc/{victim}/task/{victim}/children")).unwrap_or_default();
        let Some(child) = children.split_whitespace().next().and_then(|pid| pid.parse().ok()) else { break };
        victim = child;
    }
    if victim == demo.id() {
        demo.kill().context("cannot kill the demo")?;
    } else {
        progress::output(Command::new("sudo").args(["kill", "-KILL", &victim.to_string()]))?;
    }
    demo.wait().context("cannot wait for the demo")?;
    Ok(victim)
}

fn down(instance: &str) -> Result<Duration> {
    let started = Instant::now();
    progress::output(own_program()?.args(["sandbox", "--instance", instance, "down", "--delete"]))?;
    Ok(started.elapsed())
}

fn nothing_left(run: &Run, instance: &str) -> Result<()> {
    let folders = [Path::new(STATE).join(instance), demo_folder(run, instance)];
    cluster::until("nothing is left", LEFT_MAX, || {
        let found = [processes(&folders)?, mounts(&folders[0])?, namespaces(instance)?].concat();
        ensure!(found.is_empty(), "{}", found.join(", "));
        ensure!(!folders[0].exists(), "{} is still there", folders[0].display());
        Ok(Some(()))
    })
}

/// Processes whose command line or control group says that they belong there.
fn processes(folders: &[PathBuf; 2]) -> Result<Vec<String>> {
    let instance = folders[0].file_name().unwrap_or_default().to_string_lossy().into_owned();
    let group = format!("/fraudpipeline/{instance}/");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let text = |file: &str| {
            // One that has just ended has no files any more.
            String::from_utf8_lossy(&std::fs::read(entry.path().join(file)).unwrap_or_default()).replace('\0', " ")
        };
        let command = text("cmdline");
        let named = folders.iter().any(|folder| command.contains(&format!("{}/", folder.display())));
        if named || text("cgroup").lines().any(|line| format!("{line}/").contains(&group)) {
            found.push(format!("process {pid} ({})", command.chars().take(100).collect::<String>().trim()));
        }
    }
    Ok(found)
}

fn mounts(folder: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let prefix = format!("{}/", folder.display());
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&prefix))
        .map(|point| format!("mount {point}"))
        .collect())
}

fn namespaces(instance: &str) -> Result<Vec<String>> {
    let prefix = format!("fp-{instance}-");
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(&prefix)).map(|name| format!("network namespace {name}")).collect())
}

/// Network devices of this machine itself.
fn links() -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir("/sys/class/net").context("cannot list network devices")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
