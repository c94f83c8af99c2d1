//! Which process a recorded pid means. Reads `/proc`; sends signals only to the process that was recorded.
//!
//! A pid alone is not an identity: the kernel gives it to another process later. The pid together with the start time in
//! `/proc/PID/stat` is one, until the machine boots again, and then the start time of the recorded process is never met again
//! because every state file also names the boot.

use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: clock ticks between boot and the start of the process.
    pub start_ticks: u64,
    pub boot_id: String,
}

impl Identity {
    /// Records a process that runs now. `None` when there is none, or only a zombie of it.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let (state, start_ticks) = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
        (!is_dead(state)).then(|| Self { pid, start_ticks, boot_id: boot_id() })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Sends the signal if the process is still the recorded one. Says whether it was sent.
    pub(crate) fn signal(&self, signal: Signal) -> Result<bool, Errno> {
        if !self.is_alive() {
            return Ok(false);
        }
        match kill(Pid::from_raw(self.pid), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn is_dead(state: char) -> bool {
    matches!(state, 'Z' | 'X' | 'x')
}

/// State and start time. The name in the second field may itself hold blanks and parentheses, so fields count from the last `)`.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let start_ticks = fields.nth(18)?.parse().ok()?;
    Some((state, start_ticks))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) S (b c) R 1 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 10";
        assert_eq!(parse_stat(stat), Some(('R', 987_654)));
        assert_eq!(parse_stat("42 (cut"), None);
        assert_eq!(parse_stat("42 (cut) R 1"), None);
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_another_process() {
        let own = Identity::of(std::process::id().cast_signed()).unwrap();
        assert!(own.is_alive());
        let earlier = Identity { start_ticks: own.start_ticks - 1, ..own.clone() };
        assert!(!earlier.is_alive());
        let before_reboot = Identity { boot_id: "another boot".to_owned(), ..own };
        assert!(!before_reboot.is_alive());
    }

    #[test]
    fn a_reused_pid_is_never_signalled() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let real = Identity::of(child.id().cast_signed()).unwrap();
        let reused = Identity { start_ticks: real.start_ticks + 1, ..real.clone() };
        assert_eq!(reused.signal(Signal::SIGKILL), Ok(false));
        assert!(real.is_alive());
        assert_eq!(real.signal(Signal::SIGKILL), Ok(true));
        child.wait().unwrap();
        assert!(!real.is_alive());
    }

    #[test]
    fn a_zombie_counts_as_dead() {
        let mut child = Command::new("sleep").arg("30").spawn().unwrap();
        let identity = Identity::of(child.id().cast_signed()).unwrap();
        child.kill().unwrap();
        // Not waited for yet: the entry in /proc stays as a zombie.
        while fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap().contains(") R ") {}
        for _ in 0..200 {
            if !identity.is_alive() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!identity.is_alive());
        child.wait().unwrap();
    }
}
