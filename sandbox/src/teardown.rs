//! Ends regions and instances, whatever state a crash left them in. IO.
//!
//! There is one way down, and it is the power cut: SIGKILL to every process of the region, then removal of what the kernel still
//! holds for them. So the way that drills take is the way that every `down` takes, and it needs no living supervisor. Processes
//! are found by cgroup and network namespace (see `cgroup`), never by name.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;

use crate::instance::{self, Instance, Region};
use crate::wan::{self, Request};
use crate::{cgroup, fault, net, process, supervisor};

const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// What `sandbox kill` does: off the network first, so that nobody sees the region die slowly, then everything at once.
pub(crate) fn kill_region(instance: &Instance, region: &Region) -> Result<usize> {
    wan::ask(instance, &Request::Site { site: region.name.clone(), down: true })?;
    let killed = end_region(region)?;
    fault::release_all(region);
    Ok(killed)
}

fn end_region(region: &Region) -> Result<usize> {
    end_process(process::recorded(&region.path("supervisor.json")))?;
    // The kubelet before its runtime: it would answer the end of containers by starting others.
    let kubelet = supervisor::read_report(region).get("kubelet").and_then(|kubelet| kubelet.identity.clone());
    end_process(kubelet)?;
    let inodes: Vec<u64> = net::netns_inode(&region.netns()).into_iter().collect();
    let killed = kill_members(&region.cgroup(), &inodes)?;
    clear_runtime(region)?;
    net::remove_pod_links(&region.netns())?;
    // Left behind, they would be taken for containers by the next kubelet, which waits seconds for each.
    cgroup::remove(&region.cgroup())?;
    supervisor::forget(region);
    Ok(killed)
}

fn end_process(identity: Option<crate::identity::Identity>) -> Result<()> {
    let Some(identity) = identity else { return Ok(()) };
    identity.signal(Signal::SIGKILL).context("cannot end a process of the sandbox")?;
    let started = Instant::now();
    while identity.is_alive() {
        if started.elapsed() > KILL_TIMEOUT {
            bail!("process {} does not end although it was killed; look at /proc/{}/stack", identity.pid, identity.pid);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Kills until nobody is left: a process may start another between the look and the kill.
fn kill_members(cgroup_path: &str, netns_inodes: &[u64]) -> Result<usize> {
    let mut seen = BTreeSet::new();
    let started = Instant::now();
    loop {
        let members = cgroup::members(cgroup_path, netns_inodes);
        if members.is_empty() {
            return Ok(seen.len());
        }
        for member in &members {
            seen.insert(member.pid);
            member.signal(Signal::SIGKILL).with_context(|| format!("cannot kill process {}", member.pid))?;
        }
        if started.elapsed() > KILL_TIMEOUT {
            let pids: Vec<i32> = members.iter().map(|member| member.pid).collect();
            bail!("processes {pids:?} do not end although they were killed; look at /proc/PID/stack, then repeat the command");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes what would not have outlived a reboot: mounts, sockets, and the runtime's files about containers that are gone.
fn clear_runtime(region: &Region) -> Result<()> {
    let (containers, sockets) = (containers(region), shim_sockets(region));
    unmount_below(&region.folder)?;
    for folder in ["run", "cni/addresses", "kafka/tmp"] {
        remove_folder(&region.path(folder))?;
    }
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
    remove_outside_files(region, &containers);
    Ok(())
}

/// A folder for each container, named by its id.
fn containers(region: &Region) -> Vec<PathBuf> {
    let tasks = region.path("run/containerd/io.containerd.runtime.v2.task/k8s.io");
    fs::read_dir(tasks).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// containerd puts the sockets of its shims into a folder that all containerds of a machine share; the name of each is written
/// down beside the container.
fn shim_sockets(region: &Region) -> Vec<PathBuf> {
    containers(region)
        .iter()
        .filter_map(|container| fs::read_to_string(container.join("address")).ok())
        .filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from))
        .filter(|path| path.starts_with("/run/containerd/s"))
        .collect()
}

/// Links to logs (kubelet) and cached results (CNI) lie in folders of the machine; ours are told by their target, the network's
/// name and the container's id.
fn remove_outside_files(region: &Region, containers: &[PathBuf]) {
    let files = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for link in files("/var/log/containers") {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(&region.folder)) {
            let _ = fs::remove_file(link);
        }
    }
    let prefix = format!("{}-", region.network_name());
    let ids: Vec<&str> = containers.iter().filter_map(|container| container.file_name()?.to_str()).collect();
    for result in files("/var/lib/cni/results") {
        let name = result.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(&prefix) || ids.iter().any(|id| name.contains(id)) {
            let _ = fs::remove_file(result);
        }
    }
}

/// Mount points at or below the folder, innermost first.
fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .map(|field| PathBuf::from(OsString::from_vec(unescape(field))))
        .filter(|path| path.starts_with(folder))
        .collect();
    found.reverse();
    Ok(found)
}

/// Blank, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten().and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

pub(crate) fn unmount_below(folder: &Path) -> Result<()> {
    for _ in 0..10 {
        let mounts = mounts_below(folder)?;
        if mounts.is_empty() {
            return Ok(());
        }
        for mount in mounts {
            // One that went away with another is no error; one that stays is met again in the next round.
            let _ = umount2(&mount, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
        }
    }
    bail!("cannot unmount {:?}; unmount them by hand (`umount -l`) and repeat the command", mounts_below(folder)?)
}

/// Refuses to look into a folder that still has something mounted below it: the removal would empty the mount.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    let mounts = mounts_below(folder)?;
    if !mounts.is_empty() {
        bail!("{} still has mounts: {mounts:?}", folder.display());
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Takes the instance down, or what a crash left of it. `delete` also removes its data.
pub(crate) fn down(state: &Path, name: &str, delete: bool) -> Result<()> {
    let instance = Instance::load_if_any(state, name)?;
    let folder = state.join(name);
    if let Some(instance) = &instance {
        end_process(process::recorded(&folder.join("router.json")))?;
        for region in instance.region_list() {
            end_region(&region)?;
        }
    }
    let cgroup_path = format!("{}/{name}", instance::CGROUP_ROOT);
    let namespaces = namespaces_of(name);
    let inodes: Vec<u64> = namespaces.iter().filter_map(|netns| net::netns_inode(netns)).collect();
    kill_members(&cgroup_path, &inodes)?;
    unmount_below(&folder)?;
    for netns in &namespaces {
        net::delete_netns(netns)?;
    }
    if let Some(instance) = &instance {
        net::delete_host_device(&instance.host_device())?;
    }
    cgroup::remove(&cgroup_path)?;
    // The common parent goes with the last instance.
    let _ = remove_if_empty();
    for file in ["router.json", "wan.sock", "wan.json"] {
        let _ = fs::remove_file(folder.join(file));
    }
    if delete {
        remove_folder(&folder)?;
        instance::release_index(&folder)?;
        let _ = fs::remove_file(state.join(format!(".{name}.lock")));
    }
    Ok(())
}

fn remove_if_empty() -> Result<()> {
    for mount in cgroup::mounts()? {
        let _ = fs::remove_dir(mount.path.join(instance::CGROUP_ROOT.trim_start_matches('/')));
    }
    Ok(())
}

/// Instance names hold no dash, so the prefix is only this instance's.
pub(crate) fn namespaces_of(name: &str) -> Vec<String> {
    let prefix = format!("fp-{name}-");
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|netns| netns.starts_with(&prefix)).collect()
}

/// What a finished `down` must not leave, as one sentence each.
pub(crate) fn leftovers(state: &Path, name: &str) -> Vec<String> {
    let cgroup_path = format!("{}/{name}", instance::CGROUP_ROOT);
    let folder = state.join(name);
    let mut found: Vec<String> = cgroup::members(&cgroup_path, &[]).iter().map(|member| format!("process {}", member.pid)).collect();
    found.extend(containers_on(&folder).iter().map(|pid| format!("container process {pid}")));
    found.extend(mounts_below(&folder).unwrap_or_default().iter().map(|mount| format!("mount {}", mount.display())));
    found.extend(namespaces_of(name).iter().map(|netns| format!("network namespace {netns}")));
    if cgroup::exists(&cgroup_path) {
        found.push(format!("cgroup {cgroup_path}"));
    }
    found
}

/// Processes whose own root file system lies in the folder. Independent of cgroups, so it also finds what those would miss.
fn containers_on(folder: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|text| root_lies_in(&text, folder)))
        .collect()
}

/// Only the process's root counts: every process of the machine sees the mounts of containers, and is none of them.
fn root_lies_in(mountinfo: &str, folder: &Path) -> bool {
    let upper = format!("upperdir={}/", folder.display());
    mountinfo.lines().any(|line| line.split(' ').nth(4) == Some("/") && line.contains(&upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_blanks_are_read_as_they_are() {
        assert_eq!(unescape(br"/state/a\040b"), b"/state/a b");
        assert_eq!(unescape(br"/state/a\134b"), br"/state/a\b");
        assert_eq!(unescape(br"/cut\04"), br"/cut\04");
        assert_eq!(unescape(br"\"), br"\");
    }

    #[test]
    fn a_process_that_only_sees_a_containers_mount_is_not_the_container() {
        let overlay = |point: &str| {
            format!("90 27 0:99 / {point} rw - overlay overlay rw,lowerdir=/l,upperdir=/state/default/us-east/x/fs,workdir=/w")
        };
        let host = format!("27 1 254:0 / / rw - ext4 /dev/vda rw\n{}", overlay("/state/default/us-east/run/rootfs"));
        assert!(!root_lies_in(&host, Path::new("/state/default")));
        assert!(root_lies_in(&overlay("/"), Path::new("/state/default")));
        assert!(!root_lies_in(&overlay("/"), Path::new("/state/def")));
    }

    #[test]
    fn a_folder_without_mounts_has_none_and_the_root_has_some() {
        assert!(mounts_below(Path::new("/proc/none")).unwrap().is_empty());
        assert!(!mounts_below(Path::new("/")).unwrap().is_empty());
    }
}
