//! How far the feature stores of the following regions are behind the active one, measured from outside: the position of a primary is noted, and each copy is
//! asked until it has reached it. What is measured includes the asking, so the figures are upper bounds. Asks over connections that it keeps: a `redis-cli` a
//! question would take the processor time that the stream is measured with.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::regions::{NAMESPACE, PIPELINE, Region, Sandbox};
use crate::progress;

/// The example exposes shard k on this node port plus k.
const SHARD_PORT: u16 = 30400;
const EVERY: Duration = Duration::from_secs(5);
/// A copy that has not caught up by then counts with this much.
const WAIT_MAX: Duration = Duration::from_secs(10);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(20);
const ANSWER_MAX: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// May look at its server and at nothing else.
const USER: &str = "monitor";

/// The largest lag seen so far, in seconds, by region.
type Worst = BTreeMap<String, f64>;

/// Measures in the background until it is stopped.
pub(super) struct Watch {
    worst: Arc<Mutex<Worst>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

struct Shard {
    active: Server,
    followers: Vec<(String, Server)>,
}

impl Watch {
    pub(super) fn start(sandbox: &Sandbox, active: &str, shards: u16) -> Result<Self> {
        let active = sandbox.region(active)?.clone();
        let password = secret(sandbox, &active, "redis", &format!("{USER}.password"))?;
        let tls = tls(&secret(sandbox, &active, "redis-tls", "ca.crt")?)?;
        let followers: Vec<Region> = sandbox.description.regions.iter().filter(|region| region.name != active.name).cloned().collect();
        let server = |region: &Region, number: u16| {
            let address = SocketAddr::new(region.node_address.into(), SHARD_PORT + number);
            Server::new(address, &region.name, &tls, &password)
        };
        let shard = |number: u16| {
            let followers = followers.iter().map(|region| anyhow::Ok((region.name.clone(), server(region, number)?)));
            anyhow::Ok(Shard { active: server(&active, number)?, followers: followers.collect::<Result<_>>()? })
        };
        let mut shards: Vec<Shard> = (0..shards).map(shard).collect::<Result<_>>()?;
        let (worst, stop) = (Arc::new(Mutex::new(Worst::new())), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (worst, stop) = (Arc::clone(&worst), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    for (region, lag_s) in shards.iter_mut().flat_map(Shard::measure) {
                        let mut worst = worst.lock().unwrap_or_else(PoisonError::into_inner);
                        let entry = worst.entry(region).or_default();
                        *entry = entry.max(lag_s);
                    }
                    std::thread::sleep(EVERY);
                }
            }
        });
        Ok(Self { worst, stop, thread })
    }

    /// The worst lag of each region that could be measured at all; one that could not is absent.
    pub(super) fn stop(self) -> Worst {
        self.stop.store(true, Ordering::Relaxed);
        // The thread does not panic; if it did, what it has measured so far is still there.
        let _ = self.thread.join();
        self.worst.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shard {
    fn measure(&mut self) -> Vec<(String, f64)> {
        let Some(position) = self.active.offset() else { return Vec::new() };
        let noted = Instant::now();
        self.followers.iter_mut().filter_map(|(region, server)| Some((region.clone(), server.time_until(position, noted)?))).collect()
    }
}

/// A Redis process that is asked for its place in the stream of writes.
struct Server {
    address: SocketAddr,
    /// What its certificate must be.
    name: ServerName<'static>,
    tls: Arc<ClientConfig>,
    /// What logs in and asks, in the protocol's own words.
    login: Vec<u8>,
    connection: Option<Connection>,
}

type Connection = BufReader<StreamOwned<ClientConnection, TcpStream>>;

impl Server {
    fn new(address: SocketAddr, region: &str, tls: &Arc<ClientConfig>, password: &str) -> Result<Self> {
        let name = ServerName::try_from(domain::feature_store_name(&domain::RegionName::new(region)?))?;
        Ok(Self { address, name, tls: Arc::clone(tls), login: command(&["AUTH", USER, password]), connection: None })
    }

    /// Seconds until it had reached the position; nothing if it never answered.
    fn time_until(&mut self, position: u64, noted: Instant) -> Option<f64> {
        let mut answered = false;
        while noted.elapsed() < WAIT_MAX {
            if let Some(offset) = self.offset() {
                answered = true;
                if offset >= position {
                    break;
                }
            }
            std::thread::sleep(BETWEEN_QUESTIONS);
        }
        answered.then(|| noted.elapsed().as_secs_f64())
    }

    /// A connection that fails is made anew for the next question.
    fn offset(&mut self) -> Option<u64> {
        let mut connection = self.connection.take().or_else(|| self.connect().ok())?;
        let info = ask(&mut connection, &command(&["INFO", "replication"])).ok()?;
        self.connection = Some(connection);
        replication_offset(&info)
    }

    fn connect(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&self.address, ANSWER_MAX)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_nodelay(true)?;
        let session = ClientConnection::new(Arc::clone(&self.tls), self.name.clone()).map_err(std::io::Error::other)?;
        let mut connection = BufReader::new(StreamOwned::new(session, stream));
        ask(&mut connection, &self.login)?;
        Ok(connection)
    }
}

/// An array of bulk strings, as Redis takes commands.
fn command(words: &[&str]) -> Vec<u8> {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect::<Vec<_>>();
    format!("*{}\r\n{}", words.len(), words.concat()).into_bytes()
}

/// The text of a simple or bulk string; everything else is an error.
fn ask(connection: &mut Connection, question: &[u8]) -> std::io::Result<String> {
    connection.get_mut().write_all(question)?;
    connection.get_mut().flush()?;
    read_answer(connection)
}

fn read_answer(answers: &mut impl BufRead) -> std::io::Result<String> {
    let unusable = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_string());
    let mut line = String::new();
    answers.by_ref().take(ANSWER_BYTES_MAX as u64).read_line(&mut line)?;
    let line = line.trim_end();
    if let Some(text) = line.strip_prefix('+') {
        return Ok(text.to_string());
    }
    let length: usize = line.strip_prefix('$').and_then(|length| length.parse().ok()).ok_or_else(|| unusable("no string"))?;
    if length > ANSWER_BYTES_MAX {
        return Err(unusable("a string of that length"));
    }
    // The string, and the end of its line.
    let mut bytes = vec![0; length + 2];
    answers.read_exact(&mut bytes)?;
    bytes.truncate(length);
    String::from_utf8(bytes).map_err(|_| unusable("no text"))
}

/// Of a primary its own position, of a copy how far it has come; nothing of a copy without a primary, whose position means nothing.
fn replication_offset(info: &str) -> Option<u64> {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
    match field("role")? {
        "master" => field("master_repl_offset")?.parse().ok(),
        "slave" if field("master_link_status") == Some("up") => field("slave_repl_offset")?.parse().ok(),
        _ => None,
    }
}

fn tls(authority: &str) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).context("the feature store's ca.crt is no certificate")?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(versions.with_root_certificates(roots).with_no_client_auth()))
}

/// One key of a Secret of the feature store.
fn secret(sandbox: &Sandbox, region: &Region, name: &str, key: &str) -> Result<String> {
    let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
    let mut command = sandbox.kubectl(region);
    command.args(["--namespace", NAMESPACE, "get", "secret", &format!("{PIPELINE}-{name}"), "--output", &template]);
    progress::output(&mut command).with_context(|| format!("cannot read {key} of the feature store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_in_its_own_protocol() {
        assert_eq!(command(&["AUTH", "probe", "pässword"]), "*3\r\n$4\r\nAUTH\r\n$5\r\nprobe\r\n$9\r\npässword\r\n".as_bytes());
        let mut answers = "+OK\r\n$6\r\na:1\r\nb\r\n-NOAUTH log in\r\n$999999999\r\n$5\r\nab".as_bytes();
        assert_eq!(read_answer(&mut answers).unwrap(), "OK");
        assert_eq!(read_answer(&mut answers).unwrap(), "a:1\r\nb");
        assert!(read_answer(&mut answers).is_err(), "an error is no answer");
        assert!(read_answer(&mut answers).is_err(), "too long");
        assert!(read_answer(&mut answers).is_err(), "cut off");
    }

    #[test]
    fn a_copy_without_a_primary_has_no_position() {
        let primary = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\nmaster_repl_offset:4711\r\n";
        assert_eq!(replication_offset(primary), Some(4711));
        let copy = "role:slave\r\nmaster_host:198.18.0.1\r\nmaster_link_status:up\r\nslave_repl_offset:4700\r\nmaster_repl_offset:4700\r\n";
        assert_eq!(replication_offset(copy), Some(4700));
        assert_eq!(replication_offset(&copy.replace("status:up", "status:down")), None);
        assert_eq!(replication_offset("NOAUTH Authentication required.\n"), None);
    }
}
