//! Cgroups as the mark of what belongs to the sandbox: version 1, version 2 and both at once. IO on `/sys/fs/cgroup` and `/proc`.
//!
//! A process is the sandbox's if and only if it is in a cgroup below `/fraudpipeline/<instance>`, or in one of the instance's
//! network namespaces. Children inherit both, and nothing else can get into either by accident.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::identity::Identity;

/// Controllers that a version 2 parent must hand down so that containers can have limits.
const DELEGATED: [&str; 5] = ["cpu", "cpuset", "io", "memory", "pids"];

/// A cgroup as a whole competes for processors with the weight of one process, however many are in it. Each of ours counts as ten,
/// or a build beside the sandbox would starve three clusters and the router.
const PROCESSOR_WEIGHT: [(&str, &str); 2] = [("cpu.shares", "10240"), ("cpu.weight", "1000")];

/// Within a region, its control plane and Kafka get as much as all its pods together, for which the kubelet reserves the weight of two
/// processors. With more, pods would starve whenever a broker is busy, which no real node does to them.
const SYSTEM_WEIGHT: [(&str, &str); 2] = [("cpu.shares", "2048"), ("cpu.weight", "79")];

/// The cgroup of a region's processes that are no pods.
pub(crate) const SYSTEM: &str = "system";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub path: PathBuf,
    pub version: u8,
    /// A version 1 `cpuset`: a new cgroup in it takes no process before it has processors and memory nodes.
    pub cpuset: bool,
}

/// Every hierarchy that is mounted.
pub(crate) fn mounts() -> Result<Vec<Mount>> {
    let found = parse_mounts(&fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?);
    ensure!(!found.is_empty(), "no cgroup hierarchy is mounted; mount one: `mount -t cgroup2 none /sys/fs/cgroup`");
    Ok(found)
}

fn parse_mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let path = PathBuf::from(before.split(' ').nth(4)?);
            let mut fields = after.split(' ');
            let version = match fields.next()? {
                "cgroup2" => 2,
                "cgroup" => 1,
                _ => return None,
            };
            let cpuset = version == 1 && fields.nth(1).unwrap_or_default().split(',').any(|option| option == "cpuset");
            Some(Mount { path, version, cpuset })
        })
        .collect()
}

/// Whether containers are limited through version 2 (no version 1 controller is mounted).
pub(crate) fn is_unified() -> Result<bool> {
    Ok(mounts()?.iter().all(|mount| mount.version == 2))
}

/// Makes the cgroup in every hierarchy, ready to have processes and children with limits.
pub(crate) fn ensure(cgroup: &str) -> Result<()> {
    let unified = is_unified()?;
    for mount in mounts()? {
        let folder = below(&mount.path, cgroup);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make cgroup {}", folder.display()))?;
        if unified {
            delegate(&mount.path, cgroup);
        }
        if mount.cpuset {
            inherit_cpuset(&mount.path, cgroup)?;
        }
        give_weight(&mount.path, cgroup);
    }
    Ok(())
}

/// Puts the calling process, and so everything it starts, into the cgroup in every hierarchy.
pub(crate) fn join(cgroup: &str) -> Result<()> {
    ensure(cgroup)?;
    for mount in mounts()? {
        let folder = below(&mount.path, cgroup);
        fs::write(folder.join("cgroup.procs"), std::process::id().to_string())
            .with_context(|| format!("cannot join cgroup {}", folder.display()))?;
    }
    Ok(())
}

fn inherit_cpuset(mount: &Path, cgroup: &str) -> Result<()> {
    let mut parent = mount.to_owned();
    for part in cgroup.split('/').filter(|part| !part.is_empty()) {
        let child = parent.join(part);
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let (from, to) = (parent.join(file), child.join(file));
            let inherited = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
            fs::write(&to, inherited).with_context(|| format!("cannot write {}", to.display()))?;
        }
        parent = child;
    }
    Ok(())
}

/// Hands controllers down to the parents of a leaf. One that the machine does not have is passed over: containers then go without
/// that limit, and nothing else is affected.
fn delegate(mount: &Path, cgroup: &str) {
    let mut folder = mount.to_owned();
    for part in cgroup.split('/').filter(|part| !part.is_empty()) {
        for controller in DELEGATED {
            let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        folder.push(part);
    }
}

/// At every level from the top. A hierarchy without a processor controller has neither file, which is no error.
fn give_weight(mount: &Path, cgroup: &str) {
    let mut folder = mount.to_owned();
    for part in cgroup.split('/').filter(|part| !part.is_empty()) {
        folder.push(part);
        for (file, weight) in if part == SYSTEM { SYSTEM_WEIGHT } else { PROCESSOR_WEIGHT } {
            if folder.join(file).exists() {
                let _ = fs::write(folder.join(file), weight);
            }
        }
    }
}

/// Processes in the cgroup or below it, and processes in one of the network namespaces.
pub(crate) fn members(cgroup: &str, netns_inodes: &[u64]) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id().cast_signed();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        // Whatever a machine does with its first process, it is never ours.
        .filter(|pid| *pid != own && *pid != 1)
        .filter_map(|pid| {
            let identity = Identity::of(pid)?;
            let in_cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| is_member(&text, cgroup));
            (in_cgroup || in_namespace(pid, netns_inodes)).then_some(identity)
        })
        .collect()
}

/// Processes of a cgroup and those below it, from its own files: cheap enough to repeat many times a second.
pub(crate) fn processes_below(cgroup: &str) -> Vec<Identity> {
    let Some(mount) = mounts().ok().and_then(|mounts| mounts.into_iter().next()) else { return Vec::new() };
    let mut found = Vec::new();
    let mut folders = vec![below(&mount.path, cgroup)];
    while let Some(folder) = folders.pop() {
        let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(pids.lines().filter_map(|pid| Identity::of(pid.parse().ok()?)));
        folders.extend(fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    found
}

/// The cgroup with this last name at or below another.
pub(crate) fn find(cgroup: &str, name: &str) -> Option<String> {
    let mount = mounts().ok()?.into_iter().next()?;
    let mut folders = vec![below(&mount.path, cgroup)];
    while let Some(folder) = folders.pop() {
        if folder.file_name().is_some_and(|last| last == name) {
            return Some(format!("/{}", folder.strip_prefix(&mount.path).ok()?.display()));
        }
        folders.extend(fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    None
}

fn in_namespace(pid: i32, inodes: &[u64]) -> bool {
    let inode = fs::read_link(format!("/proc/{pid}/ns/net"))
        .ok()
        .and_then(|link| link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse::<u64>().ok());
    inode.is_some_and(|inode| inodes.contains(&inode))
}

fn is_member(proc_cgroup: &str, cgroup: &str) -> bool {
    proc_cgroup
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .any(|path| path.strip_prefix(cgroup).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Removes the cgroup and those below it from every hierarchy.
pub(crate) fn remove(cgroup: &str) -> Result<()> {
    mounts()?.iter().try_for_each(|mount| remove_tree(&below(&mount.path, cgroup)))
}

fn remove_tree(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    // A cgroup stays busy for a moment after its last process was reaped.
    let mut result = fs::remove_dir(folder);
    for _ in 0..100 {
        if !result.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ResourceBusy) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        result = fs::remove_dir(folder);
    }
    result.with_context(|| format!("cannot remove cgroup {}", folder.display()))
}

/// Whether any hierarchy still has the cgroup.
pub(crate) fn exists(cgroup: &str) -> bool {
    mounts().is_ok_and(|mounts| mounts.iter().any(|mount| below(&mount.path, cgroup).exists()))
}

fn below(mount: &Path, cgroup: &str) -> PathBuf {
    mount.join(cgroup.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_machines_show_both_versions_and_which_one_is_the_cpuset() {
        let mountinfo = "30 25 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                         31 25 0:27 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
                         32 25 0:28 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw\n\
                         33 25 0:29 / /proc rw - proc proc rw\n";
        let found = parse_mounts(mountinfo);
        assert_eq!(
            found,
            [
                Mount { path: "/sys/fs/cgroup/memory".into(), version: 1, cpuset: false },
                Mount { path: "/sys/fs/cgroup/cpuset".into(), version: 1, cpuset: true },
                Mount { path: "/sys/fs/cgroup/unified".into(), version: 2, cpuset: false }
            ]
        );
    }

    #[test]
    fn membership_is_by_whole_path_elements() {
        let text = "5:memory:/fraudpipeline/default/us-east/pods/abc\n0::/user.slice\n";
        assert!(is_member(text, "/fraudpipeline/default/us-east"));
        assert!(is_member(text, "/fraudpipeline/default"));
        assert!(!is_member(text, "/fraudpipeline/def"));
        assert!(!is_member("0::/", "/fraudpipeline/default"));
        assert!(!is_member("0::/other/fraudpipeline/default", "/fraudpipeline/default"));
    }
}
