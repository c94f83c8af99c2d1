//! Says at once everything this machine lacks, each with the command that mends it. Looks only, unless `--fix` asks it to install packages.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::place::Place;
use crate::progress;
use crate::tools::find_program;

/// Programs and files that come from Debian packages, with the package of each.
const PACKAGES: &[(Probe, &str)] = &[
    (Probe::Program("cc"), "build-essential"),
    (Probe::Program("c++"), "build-essential"),
    (Probe::Program("make"), "build-essential"),
    (Probe::Program("pkg-config"), "pkg-config"),
    (Probe::File("/usr/include/openssl/ssl.h"), "libssl-dev"),
    (Probe::Program("strip"), "binutils"),
    (Probe::Program("openssl"), "openssl"),
    (Probe::Program("containerd"), "containerd"),
    (Probe::Program("ctr"), "containerd"),
    (Probe::Program("runc"), "runc"),
    (Probe::File("/usr/lib/cni/bridge"), "containernetworking-plugins"),
    (Probe::Program("ip"), "iproute2"),
    (Probe::Program("nsenter"), "util-linux"),
    (Probe::Program("nft"), "nftables"),
    (Probe::Program("iptables"), "iptables"),
    (Probe::Program("redis-server"), "redis-server"),
    (Probe::Program("redis-cli"), "redis-tools"),
    (Probe::Program("curl"), "curl"),
    (Probe::File("/etc/ssl/certs/ca-certificates.crt"), "ca-certificates"),
    (Probe::Module("pip"), "python3-pip"),
    (Probe::Module("ensurepip"), "python3-venv"),
];

const RUST_MIN: (u32, u32) = (1, 95);
const GO_MIN: (u32, u32) = (1, 26);
const JAVA_MIN: (u32, u32) = (17, 0);
const PYTHON_MIN: (u32, u32) = (3, 10);
/// A machine sold with 8 GiB shows a little less.
const MEMORY_MIN_KIB: u64 = 7 * 1024 * 1024 + 512 * 1024;
const DISK_MIN_KIB: u64 = 20 * 1024 * 1024;

enum Probe {
    Program(&'static str),
    File(&'static str),
    Module(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    what: String,
    ok: bool,
    found: String,
    /// The command that mends it; empty if nothing is to be mended.
    fix: String,
}

impl Finding {
    fn new(what: &str, result: std::result::Result<String, String>, fix: &str) -> Self {
        match result {
            Ok(found) => Self { what: what.to_string(), ok: true, found, fix: String::new() },
            Err(found) => Self { what: what.to_string(), ok: false, found, fix: fix.to_string() },
        }
    }
}

/// `cargo xtask doctor`. Errors if something is missing.
pub(crate) fn command(place: &Place, json: bool, fix: bool) -> Result<()> {
    if fix {
        install_packages(place)?;
    }
    let findings = examine(place);
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        print!("{}", table(&findings));
    }
    verdict(&findings)
}

/// The same look before a long command: silent when all is well.
pub(crate) fn require(place: &Place) -> Result<()> {
    progress::heading("doctor: does this machine have all it takes?");
    let findings = examine(place);
    if findings.iter().any(|finding| !finding.ok) {
        eprint!("{}", table(&findings));
    } else {
        progress::note("yes");
    }
    verdict(&findings)
}

fn verdict(findings: &[Finding]) -> Result<()> {
    let missing = findings.iter().filter(|finding| !finding.ok).count();
    if missing > 0 {
        bail!("{missing} of {} things are missing; the list above has the command for each", findings.len());
    }
    Ok(())
}

fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = if finding.ok { "ok     " } else { "MISSING" };
        text.push_str(&format!("{mark}  {:width$}  {}\n", finding.what, finding.found));
        if !finding.ok {
            text.push_str(&format!("         {:width$}  fix: {}\n", "", finding.fix));
        }
    }
    text
}

fn examine(place: &Place) -> Vec<Finding> {
    vec![
        machine(),
        version(
            "Rust",
            place.unprivileged("rustc").arg("--version"),
            RUST_MIN,
            "install rustup, then run `rustup toolchain install` in the checkout",
        ),
        version(
            "Go",
            place.unprivileged("go").arg("version"),
            GO_MIN,
            "install Go 1.26 or newer and put it on the PATH (Debian 12's own is too old)",
        ),
        version("Java", place.unprivileged("java").arg("-version"), JAVA_MIN, "apt-get install -y openjdk-17-jdk-headless"),
        version("Maven", place.unprivileged("mvn").args(["--batch-mode", "--version"]), (3, 6), "apt-get install -y maven"),
        version("Python", place.unprivileged("python3").arg("--version"), PYTHON_MIN, "apt-get install -y python3"),
        packages(place),
        memory(),
        disk("disk for the tool cache", &place.cache),
        disk("disk for the build", &place.target),
        tun(),
        control_groups(),
        root(place),
    ]
}

fn machine() -> Finding {
    let result = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => Ok("Linux on x86_64".to_string()),
        (os, arch) => Err(format!("{os} on {arch}")),
    };
    Finding::new(
        "machine",
        result,
        "use Linux on x86_64; elsewhere `cargo run -p scoring-decision -- --standalone` serves decisions without a cluster",
    )
}

fn version(what: &str, command: &mut Command, min: (u32, u32), fix: &str) -> Finding {
    let result = match command.output() {
        Err(_) => Err("not found".to_string()),
        Ok(output) => {
            // `java -version` writes to standard error.
            let said = [output.stdout, output.stderr].concat();
            match parse_version(&String::from_utf8_lossy(&said)) {
                Some(found) if found >= min => Ok(format!("{}.{}", found.0, found.1)),
                Some(found) => Err(format!("{}.{} is older than {}.{}", found.0, found.1, min.0, min.1)),
                None => Err("its version cannot be read".to_string()),
            }
        }
    };
    Finding::new(what, result, fix)
}

/// The first `N.N` or quoted/spaced `N` in what a program says about itself: `go version go1.26.8 linux/amd64`, `openjdk version "17" 2021-09-14`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let starts = text.char_indices().filter(|(index, c)| c.is_ascii_digit() && !text[..*index].ends_with(|p: char| p.is_ascii_digit()));
    for (index, _) in starts {
        let digits: String = text[index..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let mut parts = digits.split('.');
        let major = parts.next().and_then(|part| part.parse().ok())?;
        let minor = parts.next().and_then(|part| part.parse().ok());
        let quoted = text[..index].ends_with('"');
        if minor.is_some() || quoted {
            return Some((major, minor.unwrap_or(0)));
        }
    }
    None
}

fn packages(place: &Place) -> Finding {
    let missing = missing_packages(place);
    let result = if missing.is_empty() { Ok("all there".to_string()) } else { Err(missing.join(" ")) };
    let fix = if place.is_root { "cargo xtask doctor --fix".to_string() } else { format!("sudo apt-get install -y {}", missing.join(" ")) };
    Finding::new("Debian packages", result, &fix)
}

fn missing_packages(place: &Place) -> Vec<&'static str> {
    let mut missing: Vec<&str> = PACKAGES.iter().filter(|(probe, _)| !present(place, probe)).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

fn present(place: &Place, probe: &Probe) -> bool {
    match probe {
        Probe::Program(name) => find_program(name).is_some(),
        Probe::File(path) => Path::new(path).exists(),
        Probe::Module(name) => {
            let result = place.unprivileged("python3").args(["-c", &format!("import {name}")]).output();
            result.is_ok_and(|output| output.status.success())
        }
    }
}

fn install_packages(place: &Place) -> Result<()> {
    let missing = missing_packages(place);
    if missing.is_empty() {
        return Ok(());
    }
    if !place.is_root {
        bail!("installing packages needs root: run `sudo apt-get install -y {}`", missing.join(" "));
    }
    progress::heading(&format!("installing {}", missing.join(" ")));
    for arguments in [vec!["update", "-qq"], [vec!["install", "-y", "-qq", "--no-install-recommends"], missing].concat()] {
        let status = Command::new("apt-get")
            .args(&arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status()
            .context("cannot run apt-get: install the packages by hand")?;
        if !status.success() {
            bail!("`apt-get {}` failed ({status}); what it says above names the reason", arguments.join(" "));
        }
    }
    Ok(())
}

fn memory() -> Finding {
    let total = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| meminfo_kib(&text, "MemTotal:"));
    let result = match total {
        Some(kib) if kib >= MEMORY_MIN_KIB => Ok(gibibytes(kib)),
        Some(kib) => Err(format!("{}, of 8 GiB", gibibytes(kib))),
        None => Err("/proc/meminfo cannot be read".to_string()),
    };
    Finding::new("memory", result, "use a machine with 8 GiB or more: three clusters, their Kafkas and the builds share it")
}

fn meminfo_kib(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix("kB")?.trim().parse().ok())
}

fn disk(what: &str, folder: &Path) -> Finding {
    // The folder may not exist yet: its nearest parent that does is on the same disk.
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let result = match available_kib(existing) {
        Ok(kib) if kib >= DISK_MIN_KIB => Ok(format!("{} free at {}", gibibytes(kib), existing.display())),
        Ok(kib) => Err(format!("{} free at {}, of 20 GiB", gibibytes(kib), existing.display())),
        Err(error) => Err(format!("{error:#}")),
    };
    Finding::new(what, result, "free some space, or set FRAUDPIPELINE_CACHE and CARGO_TARGET_DIR to folders on a larger disk")
}

fn available_kib(folder: &Path) -> Result<u64> {
    let said = progress::output(Command::new("df").args(["--output=avail", "-k"]).arg(folder))?;
    said.lines().last().and_then(|line| line.trim().parse().ok()).context("df says nothing about the free space")
}

fn gibibytes(kib: u64) -> String {
    format!("{} GiB", kib / 1024 / 1024)
}

fn tun() -> Finding {
    let result =
        if Path::new("/dev/net/tun").exists() { Ok("/dev/net/tun".to_string()) } else { Err("/dev/net/tun does not exist".to_string()) };
    Finding::new("TUN devices", result, "modprobe tun (in a container: start it with the device /dev/net/tun)")
}

fn control_groups() -> Finding {
    let result = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        Ok("v2".to_string())
    } else if Path::new("/sys/fs/cgroup/cpu").exists() && Path::new("/sys/fs/cgroup/memory").exists() {
        Ok("v1".to_string())
    } else {
        Err("neither v1 nor v2 is mounted at /sys/fs/cgroup".to_string())
    };
    Finding::new("control groups", result, "mount -t cgroup2 none /sys/fs/cgroup")
}

fn root(place: &Place) -> Finding {
    let result = if place.is_root {
        Ok("we are root".to_string())
    } else if find_program("sudo").is_some() {
        Ok("through sudo, which may ask for a password".to_string())
    } else {
        Err("neither root nor sudo".to_string())
    };
    Finding::new("root for the sandbox", result, "run as root, or install sudo and allow it for your user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_each_program_says_them() {
        let said = [
            ("rustc 1.95.0 (59807616e 2026-04-14)", (1, 95)),
            ("go version go1.26.8 linux/amd64", (1, 26)),
            ("openjdk version \"17.0.15\" 2025-04-15", (17, 0)),
            ("openjdk version \"21\" 2023-09-19", (21, 0)),
            ("Apache Maven 3.8.7", (3, 8)),
            ("Python 3.11.7", (3, 11)),
        ];
        for (text, expected) in said {
            assert_eq!(parse_version(text), Some(expected), "{text}");
        }
        assert_eq!(parse_version("no such thing"), None);
        assert_eq!(parse_version("error 7: é9 gone"), None);
    }

    #[test]
    fn memory_is_read_from_meminfo() {
        assert_eq!(meminfo_kib("MemTotal:       24689000 kB\nMemFree: 1 kB\n", "MemTotal:"), Some(24_689_000));
        assert_eq!(meminfo_kib("MemFree: 1 kB\n", "MemTotal:"), None);
    }

    #[test]
    fn every_missing_thing_comes_with_its_fix() {
        let findings = [Finding::new("Go", Err("not found".into()), "install Go"), Finding::new("memory", Ok("24 GiB".into()), "buy some")];
        let text = table(&findings);
        assert!(text.contains("MISSING  Go") && text.contains("fix: install Go") && !text.contains("buy some"), "{text}");
        assert!(verdict(&findings).unwrap_err().to_string().starts_with("1 of 2 things are missing"));
        assert!(verdict(&findings[1..]).is_ok());
    }
}
