//! What a process has cost so far: CPU time and memory, from /proc.

use std::time::Duration;

use anyhow::{Context, Result};

/// The unit of CPU times in /proc. Linux fixes it for all programs, whatever the kernel's own tick is.
const TICKS_PER_S: u32 = 100;

/// CPU time of all threads of a process, user and kernel. Children count once they have ended and were waited for.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}: has the process ended?"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} is not what Linux writes"))?;
    Ok(of_ticks(ticks.own + ticks.waited_for_children))
}

/// CPU time by name of thread; threads of one name are added up.
///
/// # Errors
/// When there is no such process.
pub fn cpu_time_by_thread(pid: u32) -> Result<std::collections::BTreeMap<String, Duration>> {
    let folder = format!("/proc/{pid}/task");
    let mut times = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {folder}: has the process ended?"))? {
        // A thread may end between the listing and the reading.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        let (Some(name), Some(ticks)) = (name(&stat), cpu_ticks(&stat)) else { continue };
        *times.entry(name.to_string()).or_default() += of_ticks(ticks.own);
    }
    Ok(times)
}

/// The most memory that the process has held at once.
///
/// # Errors
/// When there is no such process.
pub fn resident_peak_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}: has the process ended?"))?;
    peak_bytes(&status).with_context(|| format!("{path} has no VmHWM in kB"))
}

#[derive(Debug, PartialEq, Eq)]
struct Ticks {
    own: u64,
    waited_for_children: u64,
}

/// The name of a process stands in brackets and may itself hold blanks and brackets.
fn name(stat: &str) -> Option<&str> {
    Some(stat.split_once('(')?.1.rsplit_once(')')?.0)
}

fn cpu_ticks(stat: &str) -> Option<Ticks> {
    let after_name = stat.rsplit_once(')')?.1;
    // utime, stime, cutime and cstime are fields 14 to 17 of the line; the first after the name is field 3.
    let numbers: Vec<u64> = after_name.split_whitespace().skip(11).take(4).map(str::parse).collect::<Result<_, _>>().ok()?;
    let [user, system, children_user, children_system] = numbers.try_into().ok()?;
    Some(Ticks { own: user + system, waited_for_children: children_user + children_system })
}

fn of_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(1_000 / u64::from(TICKS_PER_S)))
}

fn peak_bytes(status: &str) -> Option<u64> {
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (redis (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 7 3 20 0 5 0 100 1 2";

    #[test]
    fn cpu_time_is_found_whatever_the_process_is_called() {
        assert_eq!(cpu_ticks(STAT), Some(Ticks { own: 300, waited_for_children: 10 }));
        assert_eq!(of_ticks(300), Duration::from_secs(3));
        assert_eq!(name(STAT), Some("redis (a) b"));
        assert_eq!(cpu_ticks("7 (x) S 1"), None);
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        assert_eq!(peak_bytes("VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(peak_bytes("VmPeak:\t  9 kB\n"), None);
    }

    #[test]
    fn this_process_has_a_cost() {
        let pid = std::process::id();
        assert!(resident_peak_bytes(pid).unwrap() > 0);
        assert!(cpu_time(pid).is_ok() && !cpu_time_by_thread(pid).unwrap().is_empty());
    }
}
