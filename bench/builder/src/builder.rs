//! The builder's process: its files, its life, its costs.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::process::cpu_time;
use domain::PlanView;
use kafka::KafkaConfig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

const ENDS_WITHIN: Duration = Duration::from_secs(20);
const LOG_LINES_SHOWN: usize = 15;

/// What every life of the builder starts with.
pub struct Installation {
    program: PathBuf,
    folder: TempDir,
}

impl Installation {
    /// # Errors
    /// When its files cannot be written.
    pub fn new(program: &Path, kafka: &KafkaConfig, plan: &PlanView) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fraudpipeline-bench-builder-").tempdir().context("cannot make a folder")?;
        // All that is not named has its default, as in a region that configures nothing.
        let config = json!({
            "pipeline": plan.pipeline, "region": plan.region, "kafka": kafka, "features": {"redis": {}},
            "admin": format!("127.0.0.1:{}", free_port()?),
        });
        write(&folder.path().join("config.yaml"), &serde_yaml::to_string(&config)?)?;
        write(&folder.path().join("plan.yaml"), &serde_yaml::to_string(plan)?)?;
        Ok(Self { program: program.to_path_buf(), folder })
    }

    /// # Errors
    /// When the program cannot be started.
    pub fn start(&self) -> Result<Builder> {
        let log = self.folder.path().join("builder.log");
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.folder.path().join("config.yaml")).arg("--plan").arg(self.folder.path().join("plan.yaml"));
        command.args(["--log-level", "warn"]).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let process = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        Ok(Builder { process, log })
    }
}

/// Ends when dropped.
pub struct Builder {
    process: Child,
    log: PathBuf,
}

impl Builder {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// # Errors
    /// When it has ended by itself.
    pub fn cpu(&self) -> Result<Duration> {
        cpu_time(self.pid())
    }

    /// # Errors
    /// With the end of its log, when it has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        let Some(status) = self.process.try_wait().context("cannot look at the builder")? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
        bail!("the builder ended ({status}): {}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// Asks it to end, and waits until it has finished its batch.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), Signal::SIGTERM).context("cannot ask the builder to end")?;
        let give_up = Instant::now() + ENDS_WITHIN;
        while self.process.try_wait().context("cannot wait for the builder")?.is_none() {
            if Instant::now() > give_up {
                bail!("the builder did not end within {ENDS_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        // Usually it has ended, and there is nothing to kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("no port is free on loopback")?.port())
}
