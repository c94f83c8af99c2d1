//! A Redis process of the benchmark's own, on loopback, with its own folder. Ends when dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

const STARTS_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: u64 = 1 << 20;

pub struct RedisServer {
    process: Child,
    port: u16,
    // Removed when dropped, which is after the process has ended.
    _folder: TempDir,
}

impl RedisServer {
    /// A primary without persistence, as the operator makes it, with more settings as words of the command line.
    ///
    /// # Errors
    /// When redis-server is not installed, or takes no connections.
    pub fn start(settings: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("fraudpipeline-bench-redis-").tempdir().context("cannot make a folder for Redis")?;
        let port = free_port()?;
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start redis-server: `apt-get install redis-server`")?;
        let server = Self { process, port, _folder: folder };
        server.wait_until_up()?;
        Ok(server)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Bytes that Redis has allocated, without the buffers of its connections: those are as large as what was asked last.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn stored_bytes(&self) -> Result<u64> {
        let info = self.ask("INFO memory")?;
        let bytes = |name| field(&info, name).with_context(|| format!("INFO memory has no {name}"));
        Ok(bytes("used_memory")?.saturating_sub(bytes("mem_clients_normal")?))
    }

    /// Sends one inline command and gives the text of its answer.
    fn ask(&self, line: &str) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).context("cannot reach redis-server")?;
        stream.set_read_timeout(Some(STARTS_WITHIN))?;
        stream.write_all(format!("{line}\r\n").as_bytes())?;
        answer(&mut BufReader::new(stream))
    }

    fn wait_until_up(&self) -> Result<()> {
        let give_up = Instant::now() + STARTS_WITHIN;
        while Instant::now() < give_up {
            if self.ask("PING").is_ok_and(|said| said == "PONG") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("redis-server did not answer on port {} within {STARTS_WITHIN:?}: start it by hand to see why", self.port)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It holds nothing that anybody wants to keep.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("no port is free on loopback")?.port())
}

/// A simple string or a bulk string.
fn answer(stream: &mut impl BufRead) -> Result<String> {
    let mut head = String::new();
    stream.by_ref().take(ANSWER_BYTES_MAX).read_line(&mut head).context("redis-server closed the connection")?;
    let head = head.trim_end();
    if let Some(simple) = head.strip_prefix('+') {
        return Ok(simple.to_string());
    }
    let length: u64 =
        head.strip_prefix('$').and_then(|length| length.parse().ok()).with_context(|| format!("redis-server said {head:?}"))?;
    let mut text = String::new();
    stream.by_ref().take(length.min(ANSWER_BYTES_MAX)).read_to_string(&mut text).context("redis-server closed the connection")?;
    Ok(text)
}

fn field(info: &str, name: &str) -> Option<u64> {
    info.lines().filter_map(|line| line.split_once(':')).find(|(field, _)| *field == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_to_their_length_and_no_further() {
        let text = |bytes: &str| answer(&mut bytes.as_bytes());
        assert_eq!(text("+PONG\r\n").unwrap(), "PONG");
        assert_eq!(text("$5\r\na:1\r\n\r\n+PONG").unwrap(), "a:1\r\n");
        assert!(text("-LOADING please wait\r\n").unwrap_err().to_string().contains("LOADING"));
        assert!(text("").is_err());
    }

    #[test]
    fn a_field_of_info_is_found_by_its_whole_name() {
        let info = "# Memory\r\nused_memory_rss:9\r\nused_memory:1234\r\n";
        assert_eq!(field(info, "used_memory"), Some(1_234));
        assert_eq!(field(info, "memory"), None);
    }
}
