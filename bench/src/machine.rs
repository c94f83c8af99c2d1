//! On which machine, and of which code, figures are.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu_model: String,
    pub cores: usize,
    pub memory_mib: u64,
    pub kernel: String,
}

impl Machine {
    /// # Errors
    /// When /proc is not mounted, or says something else than Linux does.
    pub fn describe() -> Result<Self> {
        let read =
            |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}: benchmarks need Linux with /proc"));
        Ok(Self {
            cpu_model: cpu_model(&read("/proc/cpuinfo")?),
            cores: std::thread::available_parallelism().context("cannot count the processors")?.get(),
            memory_mib: memory_mib(&read("/proc/meminfo")?).context("/proc/meminfo has no MemTotal in kB")?,
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_string(),
        })
    }
}

/// The commit of the checkout, followed by `-dirty` if tracked files differ from it.
///
/// # Errors
/// When git is missing or `checkout` is not in a repository.
pub fn commit(checkout: &Path) -> Result<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"])
        .current_dir(checkout)
        .output()
        .context("cannot start git, which says which commit is measured")?;
    if !output.status.success() {
        bail!("git cannot tell the commit of {}: {}", checkout.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

fn cpu_model(cpuinfo: &str) -> String {
    let named = cpuinfo.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.trim() == "model name");
    named.map_or_else(|| "unknown".to_string(), |(_, model)| model.trim().to_string())
}

fn memory_mib(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_what_linux_says() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2: fast\nmodel name\t: other\n"), "Some CPU @ 2: fast");
        assert_eq!(cpu_model("processor: 0\n"), "unknown");
        assert_eq!(memory_mib("MemTotal:       24589312 kB\nMemFree: 1 kB\n"), Some(24_013));
        assert_eq!(memory_mib("MemFree: 1 kB\n"), None);
        assert!(Machine::describe().unwrap().cores >= 1);
    }
}
