//! Attaches to a TUN device. The only unsafe code of the crate: one ioctl for which no safe wrapper exists.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};
use nix::libc;

mod ioctl {
    // TUNSETIFF of linux/if_tun.h. The kernel reads a whole `ifreq` behind the pointer and writes the final name back.
    nix::ioctl_write_ptr_bad!(tunsetiff, nix::libc::TUNSETIFF, nix::libc::ifreq);
}

/// Attaches to the (persistent) device of this name in the calling thread's network namespace. Reads and writes do not block;
/// each moves one IP packet without a header.
pub(crate) fn attach(name: &str) -> Result<File> {
    ensure!(!name.is_empty() && name.len() < libc::IFNAMSIZ, "device name {name:?} must have 1 to 15 bytes");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .context("cannot open /dev/net/tun; load the module with `modprobe tun`, or give the container the device")?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI).context("TUN flags")?;
    let request = libc::ifreq { ifr_name, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: the descriptor is open for the whole call, and `request` is a fully initialised `ifreq` that outlives it.
    unsafe { ioctl::tunsetiff(file.as_raw_fd(), &raw const request) }
        .with_context(|| format!("cannot attach to TUN device {name}; another router may hold it: `sandbox status` tells"))?;
    Ok(file)
}
