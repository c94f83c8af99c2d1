//! One connection to one Redis process, kept up in the background.
//!
//! A caller never waits for a connection: while there is none, commands fail at once and the decision goes on without.
//! Reconnecting backs off with jitter, so that a shard that returns is not met by all pods in the same millisecond. A
//! connection that stays silent while it is asked (half open, as after the loss of a node) is given up, and so is one to a
//! process that is no primary any more.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use domain::HostPort;
use redis::{AsyncConnectionConfig, ProtocolVersion, RedisConnectionInfo, RedisError, Value, aio::MultiplexedConnection};
use scoring_dial::Dial;
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use crate::{FeatureMetrics, RedisConfig, metrics::Cause, request::Request};

const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A connection to a process that takes no writes is given up, but not more often than this.
const READ_ONLY_KEPT: Duration = Duration::from_secs(1);

/// Ends its background task when dropped.
pub(crate) struct Link {
    shared: Arc<Shared>,
    keeper: JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    broken: Notify,
    silence_max: Duration,
}

#[derive(Default)]
struct State {
    connection: Option<MultiplexedConnection>,
    /// Rises with each connection, so that a late error of an old one does not break the new one.
    generation: u64,
    /// Since when commands have timed out without any answer in between.
    silent_since: Option<Instant>,
    connected_at: Option<Instant>,
}

impl Link {
    /// Starts connecting. Must be called on a tokio runtime.
    pub(crate) fn start(shard: u16, address: HostPort, config: &RedisConfig, metrics: &FeatureMetrics) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), broken: Notify::new(), silence_max: config.silence_max });
        let keeper = Keeper { shard, address, config: config.clone(), metrics: metrics.clone(), shared: shared.clone() };
        Self { shared, keeper: tokio::spawn(keeper.run()) }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.connection_number().is_some()
    }

    /// Another one for each connection; `None` while there is none.
    pub(crate) fn connection_number(&self) -> Option<u64> {
        let state = self.shared.lock();
        state.connection.is_some().then_some(state.generation)
    }

    /// Sends a request and gives one answer a command, errors among them, unless the connection is gone or the deadline
    /// passes first.
    pub(crate) async fn send(&self, request: &Request, deadline: Instant) -> Result<Vec<Value>, Failure> {
        let (mut connection, generation) = {
            let state = self.shared.lock();
            (state.connection.clone().ok_or(Failure::Disconnected)?, state.generation)
        };
        let started = Instant::now();
        match tokio::time::timeout_at(deadline, connection.send_packed_commands(request.pipeline(), 0, request.answers())).await {
            Ok(Ok(answers)) => {
                self.shared.lock().silent_since = None;
                if answers.iter().any(is_read_only) {
                    self.shared.give_up_read_only(generation);
                }
                Ok(answers)
            }
            Ok(Err(error)) => {
                if error.is_unrecoverable_error() || error.is_io_error() {
                    self.shared.give_up(generation);
                }
                Err(Failure::Broken(error))
            }
            Err(_) => {
                self.shared.note_silence(generation, started);
                Err(Failure::TimedOut)
            }
        }
    }
}

fn is_read_only(answer: &Value) -> bool {
    error_code(answer) == Some("READONLY")
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Why a request has no answers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("there is no connection to the shard")]
    Disconnected,
    #[error("the shard did not answer in time")]
    TimedOut,
    #[error("the connection to the shard broke: {0}")]
    Broken(RedisError),
}

impl Failure {
    pub(crate) fn cause(&self) -> Cause {
        match self {
            Self::Disconnected | Self::Broken(_) => Cause::Disconnected,
            Self::TimedOut => Cause::TimedOut,
        }
    }
}

/// The code of an answer that is an error, such as `READONLY`.
pub(crate) fn error_code(answer: &Value) -> Option<&str> {
    match answer {
        Value::ServerError(error) => Some(error.code()),
        _ => None,
    }
}

/// An answer for people: the text of an error, else only what kind of answer it is.
pub(crate) fn text_of(answer: &Value) -> String {
    match answer {
        Value::ServerError(error) => format!("{} {}", error.code(), error.details().unwrap_or_default()),
        Value::Nil => "nothing".to_owned(),
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::BulkString(bytes) => format!("{} bytes", bytes.len()),
        _ => "another type".to_owned(),
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, connection: MultiplexedConnection) {
        let mut state = self.lock();
        let generation = state.generation.wrapping_add(1);
        *state = State { connection: Some(connection), generation, silent_since: None, connected_at: Some(Instant::now()) };
    }

    fn give_up(&self, generation: u64) {
        let mut state = self.lock();
        if state.generation == generation && state.connection.take().is_some() {
            self.broken.notify_one();
        }
    }

    /// The shard's name leads to another process by now: a new connection finds it.
    fn give_up_read_only(&self, generation: u64) {
        let connected_at = self.lock().connected_at;
        if connected_at.is_some_and(|at| at.elapsed() >= READ_ONLY_KEPT) {
            self.give_up(generation);
        }
    }

    fn note_silence(&self, generation: u64, asked_at: Instant) {
        let since = *self.lock().silent_since.get_or_insert(asked_at);
        if since.elapsed() >= self.silence_max {
            self.give_up(generation);
        }
    }
}

/// The background task of a link.
struct Keeper {
    shard: u16,
    address: HostPort,
    config: RedisConfig,
    metrics: FeatureMetrics,
    shared: Arc<Shared>,
}

impl Keeper {
    async fn run(self) {
        let mut attempt = 0_u32;
        loop {
            match self.connect().await {
                Ok(connection) => {
                    tracing::info!(shard = self.shard, address = %self.address, "connected to feature-store shard");
                    attempt = 0;
                    self.shared.set(connection);
                    self.shared.broken.notified().await;
                    self.metrics.connection_failure(self.shard, "broken");
                    tracing::warn!(shard = self.shard, address = %self.address, "connection to feature-store shard broke, reconnecting");
                }
                Err(why) => {
                    self.metrics.connection_failure(self.shard, why.label());
                    // Once a series: the metric counts, the log tells that it began and why.
                    if attempt == 0 {
                        tracing::warn!(shard = self.shard, address = %self.address, %why, "cannot connect to feature-store shard, retrying");
                    }
                    attempt = attempt.saturating_add(1);
                }
            }
            tokio::time::sleep(backoff(attempt)).await;
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, ConnectError> {
        let mut login = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if let Some(user) = &self.config.user {
            login = login.set_username(user);
        }
        if let Some(path) = &self.config.password_file {
            let password = tokio::fs::read_to_string(path).await.map_err(ConnectError::PasswordFile)?;
            login = login.set_password(password.trim_end_matches(['\r', '\n']));
        }
        let tls = match &self.config.tls {
            Some(tls) => Some(tls.load().await.map_err(ConnectError::CaFile)?),
            None => None,
        };
        // Deadlines are each caller's own: a response time-out of the client would be a second, hidden one.
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(self.config.connect_timeout)).set_response_timeout(None);
        // The time-out of the client covers TCP and TLS; a process that accepts and stays silent would hold up the greeting.
        let connecting = Dial { address: &self.address, tls: tls.as_ref(), user: login }.connect(config);
        tokio::time::timeout(self.config.connect_timeout, connecting).await.map_err(|_| ConnectError::TimedOut)?.map_err(ConnectError::of)
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("features.redis.password_file cannot be read: {0}. Check that the Secret is mounted")]
    PasswordFile(std::io::Error),
    #[error("features.redis.tls.ca_file cannot be read: {0}. Check that the Secret is mounted")]
    CaFile(std::io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("the shard refuses user and password: {0}. Check features.redis.user and what is in password_file")]
    Authentication(RedisError),
    #[error("{0}")]
    Refused(RedisError),
}

impl ConnectError {
    fn of(error: RedisError) -> Self {
        let by_code = matches!(error.code(), Some("WRONGPASS" | "NOAUTH"));
        if by_code || error.kind() == redis::ErrorKind::AuthenticationFailed { Self::Authentication(error) } else { Self::Refused(error) }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::PasswordFile(_) => "password_file",
            Self::CaFile(_) => "ca_file",
            Self::TimedOut => "timed_out",
            Self::Authentication(_) => "authentication",
            Self::Refused(_) => "refused",
        }
    }
}

/// Doubles from attempt to attempt up to a bound; between half and all of it, at random.
fn backoff(attempt: u32) -> Duration {
    let whole = BACKOFF_MIN.saturating_mul(2_u32.saturating_pow(attempt.min(16))).min(BACKOFF_MAX);
    whole.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_bound_and_differ() {
        assert!(backoff(0) <= BACKOFF_MIN && backoff(0) >= BACKOFF_MIN / 2);
        assert!((0..40).all(|attempt| backoff(attempt) <= BACKOFF_MAX));
        assert!(backoff(30) >= BACKOFF_MAX / 2);
        assert!((0..20).map(|_| backoff(5)).collect::<std::collections::BTreeSet<_>>().len() > 1);
    }
}
