//! Three real regions on one machine, and the wide-area network between them.
//!
//! `up` makes a network namespace for each region and starts in it a whole Kubernetes control plane, a kubelet with containerd, a
//! Kafka and a model store. A router process joins the regions through TUN devices with the delay, loss and bandwidth of a
//! wide-area network. Start reading at `up`, `supervisor`, `router` and `teardown`; `address`, `link`, `specs` and `render` are
//! pure.
#![deny(unsafe_code)]

mod address;
mod archive;
mod cgroup;
mod cli;
mod fault;
mod identity;
mod images;
mod inject;
mod instance;
mod link;
mod models;
mod net;
mod pki;
mod preflight;
mod process;
mod render;
mod router;
mod selftest;
mod specs;
mod status;
mod supervisor;
mod teardown;
mod toolbox;
mod tun;
mod up;
mod volumes;
mod wan;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sandbox: {error:#}");
            ExitCode::FAILURE
        }
    }
}
