//! One Redis process with a folder of its own.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use domain::HostPort;
use redis::FromRedisValue;
use tempfile::TempDir;

/// As the operator configures it, but for what depends on the cluster.
const CONFIG: &str = "bind 127.0.0.1
save \"\"
appendonly no
maxmemory-policy noeviction
repl-backlog-size 16777216
repl-backlog-ttl 0
repl-diskless-sync yes
repl-diskless-sync-delay 0
repl-ping-replica-period 1
repl-timeout 10
client-output-buffer-limit replica 33554432 0 0
replicaof 127.0.0.1 1
";
const CONFIG_FILE: &str = "redis.conf";
const UP_WITHIN: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(20);
const LOOPBACK: &str = "127.0.0.1";

/// Ends when dropped.
pub struct Server {
    process: Child,
    folder: TempDir,
    port: u16,
    /// Who asks with [`Self::ask`].
    login: Option<(String, String)>,
}

impl Server {
    /// A process as a pod starts it: a replica of nowhere. The lines of `extra` come last and count.
    ///
    /// # Errors
    /// When redis-server cannot be started.
    pub fn start(extra: &str) -> Result<Self> {
        Self::start_on(free_port()?, extra)
    }

    /// # Errors
    /// When redis-server cannot be started.
    pub fn start_on(port: u16, extra: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fraudpipeline-redis-").tempdir()?;
        let process = spawn(folder.path(), port, extra)?;
        let mut server = Self { process, folder, port, login: None };
        server.wait_until_up()?;
        Ok(server)
    }

    /// As `start`, with the users of an ACL file. `login` is who asks with [`Self::ask`].
    ///
    /// # Errors
    /// When redis-server cannot be started.
    pub fn start_with_users(users: &str, login: (&str, &str), extra: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fraudpipeline-redis-").tempdir()?;
        let path = folder.path().join("users.acl");
        std::fs::write(&path, users)?;
        let port = free_port()?;
        let process = spawn(folder.path(), port, &format!("aclfile {}\n{extra}", path.display()))?;
        let login = Some((login.0.to_owned(), login.1.to_owned()));
        let mut server = Self { process, folder, port, login };
        server.wait_until_up()?;
        Ok(server)
    }

    pub fn address(&self) -> HostPort {
        HostPort { host: LOOPBACK.into(), port: self.port }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asks as an independent client; words are separated by blanks.
    ///
    /// # Errors
    /// As the process answers.
    pub fn ask<T: FromRedisValue>(&self, line: &str) -> redis::RedisResult<T> {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection()?)
    }

    /// A connection for whole pipelines.
    ///
    /// # Errors
    /// When there is no connection to be had.
    pub fn connection(&self) -> redis::RedisResult<redis::Connection> {
        let user = self.login.as_ref().map_or_else(String::new, |(user, password)| format!("{user}:{password}@"));
        redis::Client::open(format!("redis://{user}{LOOPBACK}:{}", self.port))?.get_connection_with_timeout(Duration::from_secs(2))
    }

    /// A number of INFO.
    ///
    /// # Errors
    /// When the process does not answer, or has no such number.
    pub fn info(&self, name: &str) -> Result<u64> {
        let info: String = self.ask("INFO")?;
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end);
        value.with_context(|| format!("INFO has no {name}"))?.parse().with_context(|| format!("{name} of INFO is no number"))
    }

    /// Ends the process at once, as a lost node does.
    pub fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it anew with the same address and settings, as a pod is restarted: empty, unless it was asked to SAVE before.
    ///
    /// # Errors
    /// When redis-server cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.process = run(self.folder.path())?;
        self.wait_until_up()
    }

    /// The process stays and answers nobody.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn stop_answering(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// # Errors
    /// When it cannot be signalled.
    pub fn answer_again(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").args(["-s", name, &self.process.id().to_string()]).status()?;
        ensure!(status.success(), "redis-server on port {} cannot be signalled", self.port);
        Ok(())
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let started = std::time::Instant::now();
        while started.elapsed() < UP_WITHIN {
            if let Some(status) = self.process.try_wait()? {
                bail!("redis-server on port {} ended at once: {status}", self.port);
            }
            if TcpStream::connect((LOOPBACK, self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(ASK_EVERY);
        }
        bail!("redis-server did not take connections on port {} within {} s", self.port, UP_WITHIN.as_secs())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(folder: &Path, port: u16, extra: &str) -> Result<Child> {
    std::fs::write(folder.join(CONFIG_FILE), format!("{CONFIG}port {port}\ndir {}\n{extra}\n", folder.display()))?;
    run(folder)
}

fn run(folder: &Path) -> Result<Child> {
    Command::new("redis-server")
        .arg(folder.join(CONFIG_FILE))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start redis-server: install Debian's package redis-server")
}

/// # Errors
/// When loopback has no port left.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((LOOPBACK, 0))?.local_addr()?.port())
}
