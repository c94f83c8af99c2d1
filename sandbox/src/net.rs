//! Network namespaces, TUN devices and routes, through the `ip` tool. IO; every function may be repeated.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::address::{Cidr, SiteAddresses};

/// The device that joins a region to the router.
pub(crate) const WAN_DEVICE: &str = "wan0";
const WAN_MTU: &str = "1500";

pub(crate) fn netns_path(netns: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(netns)
}

/// The inode that `/proc/PID/ns/net` of every process in the namespace shows. A file that a reboot left behind is no namespace,
/// and its inode could be anything.
pub(crate) fn netns_inode(netns: &str) -> Option<u64> {
    let path = netns_path(netns);
    let is_namespace = statfs(&path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC);
    is_namespace.then(|| fs::metadata(&path).ok().map(|meta| meta.ino())).flatten()
}

/// Moves the calling thread (and what it starts later) into the namespace.
pub(crate) fn enter(netns: &str) -> Result<()> {
    let file = File::open(netns_path(netns)).with_context(|| format!("no network namespace {netns}; run `sandbox up` first"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter network namespace {netns}"))
}

/// Runs `work` on a thread of its own inside the namespace, so that the caller stays where it is.
pub(crate) fn inside<T: Send>(netns: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        scope.spawn(|| enter(netns).and_then(|()| work())).join().map_err(|_| anyhow!("the thread inside {netns} panicked"))?
    })
}

fn ip(args: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(args).output().context("cannot run `ip`; install it with `apt-get install iproute2`")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A region's namespace with its node address on a TUN device. The device is persistent: it outlives a crash of the router.
pub(crate) fn ensure_region(netns: &str, addresses: &SiteAddresses, instance: Cidr) -> Result<()> {
    if netns_inode(netns).is_none() {
        let _ = fs::remove_file(netns_path(netns));
        ip(&["netns", "add", netns])?;
    }
    ip(&["-n", netns, "link", "set", "lo", "up"])?;
    ensure_tun(&["-n", netns], WAN_DEVICE, addresses.node, instance)?;
    // Live pods have a route each. The address of a dead one is refused at once, as on a node whose neighbours do not answer:
    // without this, the packet would go out to the router and the sender wait for its whole timeout.
    ip(&["-n", netns, "route", "replace", "unreachable", &addresses.pods.to_string()])?;
    inside(netns, || {
        for (key, value) in [("ipv4/ip_forward", "1"), ("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/default/rp_filter", "0")] {
            fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| format!("cannot set net/{key} in {netns}"))?;
        }
        Ok(())
    })
}

/// The host's own end of the wide-area network.
pub(crate) fn ensure_host(device: &str, address: Ipv4Addr, instance: Cidr) -> Result<()> {
    ensure_tun(&[], device, address, instance)
}

fn ensure_tun(scope: &[&str], device: &str, address: Ipv4Addr, instance: Cidr) -> Result<()> {
    let run = |args: &[&str]| ip(&[scope, args].concat());
    if run(&["link", "show", "dev", device]).is_err() {
        run(&["tuntap", "add", "dev", device, "mode", "tun"])?;
    }
    // A long queue: the router drains it in batches, and a drop here would be a loss that no link accounts for.
    run(&["link", "set", "dev", device, "mtu", WAN_MTU, "txqueuelen", "5000", "up"])?;
    run(&["addr", "replace", &format!("{address}/32"), "dev", device])?;
    run(&["route", "replace", &instance.to_string(), "dev", device, "src", &address.to_string()])
}

/// The region's ends of its pods' links. The kernel removes them some time after the pods, each with the route to its address; a
/// pod that is given the address meanwhile would find the route there, keep it, and lose it.
pub(crate) fn remove_pod_links(netns: &str) -> Result<()> {
    if netns_inode(netns).is_none() {
        return Ok(());
    }
    let output = Command::new("ip").args(["-n", netns, "-oneline", "link", "show", "type", "veth"]).output().context("cannot run `ip`")?;
    for name in link_names(&String::from_utf8_lossy(&output.stdout)) {
        // It may be gone by now.
        let _ = ip(&["-n", netns, "link", "del", name]);
    }
    Ok(())
}

/// Names in lines such as `7: veth510d0ac2@if2: <BROADCAST,UP> mtu 1500`.
fn link_names(lines: &str) -> Vec<&str> {
    lines.lines().filter_map(|line| line.split(": ").nth(1)).map(|name| name.split('@').next().unwrap_or(name)).collect()
}

pub(crate) fn delete_netns(netns: &str) -> Result<()> {
    if netns_path(netns).exists() { ip(&["netns", "del", netns]) } else { Ok(()) }
}

pub(crate) fn delete_host_device(device: &str) -> Result<()> {
    if fs::exists(format!("/sys/class/net/{device}"))? { ip(&["link", "del", "dev", device]) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_read_without_the_index_of_their_other_end() {
        let lines = "7: veth510d0ac2@if2: <BROADCAST,UP> mtu 1500 qdisc noqueue\\    link/ether 9a:46\n9: vethfb3b3a53: <UP> mtu 1500\n";
        assert_eq!(link_names(lines), ["veth510d0ac2", "vethfb3b3a53"]);
        assert!(link_names("").is_empty());
    }
}
