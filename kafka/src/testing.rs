//! Real brokers for tests: one Kafka process (KRaft, broker and controller in one) on loopback, with ports of its own and
//! its data in a temporary folder. It can be killed and started again on the same data.
//!
//! Needs Java and the environment variable `FRAUDPIPELINE_KAFKA_LIBS`: the folder with Kafka's jars.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::KafkaConfig;

const LIBS: &str = "FRAUDPIPELINE_KAFKA_LIBS";
const START_LIMIT: Duration = Duration::from_secs(60);

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    #[error("{LIBS} is not set: tests on a real broker need the folder with Kafka's jars there, and java on the PATH")]
    NoLibs,
    #[error("cannot start Kafka: {0}. Is java on the PATH, and does {LIBS} name a folder with Kafka's jars?")]
    Start(#[from] std::io::Error),
    #[error("Kafka did not start: {0}")]
    Failed(String),
}

/// Ends its process when dropped.
#[derive(Debug)]
pub struct Broker {
    libs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Broker {
    /// Starts a broker with an empty log and waits until it takes connections.
    ///
    /// # Errors
    /// When the jars or Java are missing, or the broker ends or is not up within a minute.
    pub fn start() -> Result<Self, BrokerError> {
        Self::start_with(&[])
    }

    /// As [`Broker::start`], with lines that are added to `server.properties`.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_with(extra: &[&str]) -> Result<Self, BrokerError> {
        let libs = PathBuf::from(std::env::var_os(LIBS).ok_or(BrokerError::NoLibs)?);
        let folder = tempfile::Builder::new().prefix("fraudpipeline-kafka-").tempdir()?;
        let (port, controller_port) = free_ports()?;
        fs::write(folder.path().join("server.properties"), properties(folder.path(), port, controller_port, extra))?;
        let mut broker = Self { libs, folder, port, process: None };
        broker.format()?;
        broker.restart()?;
        Ok(broker)
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn config(&self) -> KafkaConfig {
        let client = crate::ClientTuning { statistics_interval: Duration::from_millis(500), ..crate::ClientTuning::default() };
        KafkaConfig { bootstrap_servers: vec![self.bootstrap()], tls: None, sasl: None, client }
    }

    /// Ends the process at once, as a power failure of the process would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // An error means that it has ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts the process again on the data it left, unless it runs.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not up within a minute.
    pub fn restart(&mut self) -> Result<(), BrokerError> {
        if self.process.is_some() {
            return Ok(());
        }
        let log = fs::File::create(self.folder.path().join("kafka.log"))?;
        let mut command = self.java("kafka.Kafka");
        command.arg(self.folder.path().join("server.properties")).stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn()?);
        self.wait_until_up()
    }

    fn format(&self) -> Result<(), BrokerError> {
        let mut id = [0_u8; 16];
        fs::File::open("/dev/urandom")?.read_exact(&mut id)?;
        // The first letter then is no dash, with which the command line would take it for an option.
        id[0] &= 0x7f;
        let mut command = self.java("kafka.tools.StorageTool");
        command.args(["format", "--ignore-formatted", "-t", &URL_SAFE_NO_PAD.encode(id), "-c"]);
        let output = command.arg(self.folder.path().join("server.properties")).output()?;
        if output.status.success() {
            return Ok(());
        }
        Err(BrokerError::Failed(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(self.libs.join("*"))
            .arg(class)
            .stdin(Stdio::null());
        command
    }

    fn wait_until_up(&mut self) -> Result<(), BrokerError> {
        let limit = Instant::now() + START_LIMIT;
        while Instant::now() < limit {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            let ended = match &mut self.process {
                Some(process) => process.try_wait()?.is_some(),
                None => true,
            };
            if ended {
                return Err(BrokerError::Failed(format!("it ended. {}", self.log_tail())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(BrokerError::Failed(format!("it took no connection within {} s. {}", START_LIMIT.as_secs(), self.log_tail())))
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join("kafka.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two ports that were free a moment ago.
fn free_ports() -> std::io::Result<(u16, u16)> {
    let (one, two) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok((one.local_addr()?.port(), two.local_addr()?.port()))
}

fn properties(folder: &Path, port: u16, controller_port: u16, extra: &[&str]) -> String {
    let mut lines = vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@127.0.0.1:{controller_port}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("log.dirs={}", folder.join("data").display()),
        "auto.create.topics.enable=false".to_owned(),
        "default.replication.factor=1".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "offsets.topic.num.partitions=1".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
        "transaction.state.log.num.partitions=2".to_owned(),
        "group.initial.rebalance.delay.ms=0".to_owned(),
    ];
    lines.extend(extra.iter().map(|line| (*line).to_owned()));
    lines.join("\n") + "\n"
}
