//! Long-lived processes of the sandbox itself: how they are started, detached and recorded. IO.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::identity::Identity;
use crate::instance::{read_json, write_json};

/// Frees the calling process from the terminal and the process group that it was started from, so that neither's end is its own,
/// and takes the lock that keeps it the only one of its kind. The lock lasts as long as the process.
pub(crate) fn detach(lock: &Path) -> Result<()> {
    // Fails only for a process that leads a group of its own already, and then it is free enough.
    let _ = nix::unistd::setsid();
    let file = open_append(lock)?;
    if file.try_lock().is_err() {
        bail!("another process holds {}; this one is not needed", lock.display());
    }
    std::mem::forget(file);
    Ok(())
}

/// Writes down which process the caller is.
pub(crate) fn record(path: &Path) -> Result<()> {
    let own = Identity::of(std::process::id().cast_signed()).context("cannot read /proc/self/stat")?;
    write_json(path, &own)
}

/// The process that was recorded, if it still runs.
pub(crate) fn recorded(path: &Path) -> Option<Identity> {
    read_json::<Identity>(path).ok().flatten().filter(Identity::is_alive)
}

/// Starts this program again with other arguments and waits until it has recorded itself.
pub(crate) fn start_background(args: &[&str], log: &Path, record: &Path) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let output = open_append(log)?;
    let mut child = Command::new(&program)
        .args(args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let started = Instant::now();
    while recorded(record).is_none() {
        if let Some(status) = child.try_wait()? {
            bail!("`sandbox {}` ended at once ({status}). Its log {} ends with:\n{}", args.join(" "), log.display(), tail(log, 10));
        }
        if started.elapsed() > Duration::from_secs(10) {
            bail!("`sandbox {}` did not start within 10 s; see {}", args.join(" "), log.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn open_append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path).with_context(|| format!("cannot open {}", path.display()))
}

/// The last lines of a log, read from its end.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    use std::io::{Read, Seek, SeekFrom};
    const BYTES_MAX: u64 = 64 << 10;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
        }
        Err(error) => format!("(cannot read {}: {error})", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tail_gives_the_last_lines_and_explains_a_missing_log() {
        let folder = std::env::temp_dir().join(format!("sandbox-tail-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("x.log");
        std::fs::write(&log, "one\ntwo\nthree\n").unwrap();
        assert_eq!(tail(&log, 2), "two\nthree");
        assert_eq!(tail(&log, 9), "one\ntwo\nthree");
        assert!(tail(&folder.join("none"), 2).contains("cannot read"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
