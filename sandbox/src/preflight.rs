//! What the machine must have before anything is started. IO: looks, and raises one kernel limit. Every sentence names the command
//! that mends it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{OVERLAYFS_SUPER_MAGIC, statfs};

use crate::cgroup;
use crate::render::Machine;

/// Programs that the sandbox or what it starts calls, with their Debian packages.
const PROGRAMS: [(&str, &str); 9] = [
    ("/usr/bin/containerd", "containerd"),
    ("/usr/bin/ctr", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/lib/cni/host-local", "containernetworking-plugins"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/bin/redis-cli", "redis-tools"),
    ("/usr/bin/ldd", "libc-bin"),
];
/// Three kubelets and their containers use more than the usual 128.
const INOTIFY_INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";
const INOTIFY_INSTANCES_MIN: u32 = 1024;

pub(crate) fn check_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the sandbox makes namespaces and mounts, so it needs root: repeat the command with `sudo`");
    }
    Ok(())
}

/// Everything that is missing, in one error.
pub(crate) fn check(state: &Path) -> Result<Machine> {
    check_root()?;
    let mut missing: Vec<String> = Vec::new();
    let mut packages: Vec<&str> = PROGRAMS.iter().filter(|(path, _)| !Path::new(path).exists()).map(|(_, package)| *package).collect();
    if !["/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"].iter().any(|path| Path::new(path).exists()) {
        packages.push("iproute2");
    }
    packages.dedup();
    if !packages.is_empty() {
        missing.push(format!("packages are missing: `apt-get install --no-install-recommends {}`", packages.join(" ")));
    }
    if !Path::new("/dev/net/tun").exists() {
        missing.push("there is no /dev/net/tun: `modprobe tun`, or `mkdir -p /dev/net && mknod /dev/net/tun c 10 200`".to_owned());
    }
    if let Err(error) = cgroup::mounts() {
        missing.push(format!("{error:#}"));
    }
    if !missing.is_empty() {
        bail!("the machine is not ready for the sandbox:\n  - {}", missing.join("\n  - "));
    }
    raise_inotify_limit()?;
    let file_system = statfs(state).with_context(|| format!("cannot look at the file system of {}", state.display()))?;
    Ok(Machine { cgroups_unified: cgroup::is_unified()?, overlay_works: file_system.filesystem_type() != OVERLAYFS_SUPER_MAGIC })
}

fn raise_inotify_limit() -> Result<()> {
    let text = fs::read_to_string(INOTIFY_INSTANCES).with_context(|| format!("cannot read {INOTIFY_INSTANCES}"))?;
    if text.trim().parse::<u32>().is_ok_and(|now| now < INOTIFY_INSTANCES_MIN) {
        eprintln!("raising fs.inotify.max_user_instances from {} to {INOTIFY_INSTANCES_MIN}: three kubelets need more", text.trim());
        fs::write(INOTIFY_INSTANCES, INOTIFY_INSTANCES_MIN.to_string())
            .with_context(|| format!("cannot raise it; run `sysctl fs.inotify.max_user_instances={INOTIFY_INSTANCES_MIN}` on the host"))?;
    }
    Ok(())
}
