//! The way to a process: who asks, and how long it may take.

use std::time::Duration;

use domain::{Epoch, HostPort};
use operator_planner::ShardFacts;
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, Value, aio::MultiplexedConnection};
use scoring_dial::{Dial, Tls};

use crate::{
    EPOCH_KEY, ShardError,
    role::{Change, transaction},
    seen::{Seen, read_epoch},
};

const CONNECT_WITHIN: Duration = Duration::from_secs(1);
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const OPERATOR: &str = "operator";

/// Asks processes as one of their users. Debug output has no password.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardClient {
    login: Option<Login>,
    tls: Option<Tls>,
}

#[derive(Clone, PartialEq, Eq)]
struct Login {
    user: String,
    password: String,
}

impl std::fmt::Debug for ShardClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShardClient")
    }
}

impl ShardClient {
    /// Connects as the role `operator`.
    #[must_use]
    pub fn new(password: String) -> Self {
        Self::with_user(OPERATOR.to_owned(), password)
    }

    #[must_use]
    pub fn with_user(user: String, password: String) -> Self {
        Self { login: Some(Login { user, password }), tls: None }
    }

    /// For processes that ask nobody for a password, as in tests on loopback.
    #[must_use]
    pub fn without_login() -> Self {
        Self { login: None, tls: None }
    }

    /// Encrypted, with processes whose certificate this verifies.
    #[must_use]
    pub fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// What the process is. Its answers are not of one moment.
    ///
    /// # Errors
    /// When it does not answer in time or not as Redis does.
    pub async fn look(&self, address: &HostPort) -> Result<ShardFacts, ShardError> {
        let mut connection = self.connect(address).await?;
        Ok(Seen::ask(self, &mut connection, address).await?.facts)
    }

    /// Changes what the process is, unless somebody has acted there in a newer epoch. Safe to repeat. Looks at nothing
    /// else: whoever calls it knows that no data are lost by it ([`Self::follow`] finds out itself).
    ///
    /// # Errors
    /// When nothing was changed, or when it is not known whether something was.
    pub async fn change(&self, address: &HostPort, change: &Change, epoch: Epoch) -> Result<(), ShardError> {
        // A connection of its own: WATCH belongs to the connection.
        let mut connection = self.connect(address).await?;
        let mut watch = redis::pipe();
        watch.cmd("WATCH").arg(EPOCH_KEY).ignore().cmd("GET").arg(EPOCH_KEY);
        let (seen,): (Option<String>,) = self.ask(&mut connection, address, &watch).await?;
        admit(address, seen.as_deref(), epoch)?;
        self.commit(&mut connection, address, &transaction(change, epoch)).await
    }

    /// Runs a transaction; nothing was done if a watched key has changed.
    pub(crate) async fn commit(
        &self,
        connection: &mut MultiplexedConnection,
        address: &HostPort,
        transaction: &Pipeline,
    ) -> Result<(), ShardError> {
        let done: Option<Vec<Value>> = self.ask(connection, address, transaction).await?;
        done.map(drop).ok_or_else(|| ShardError::Raced { address: address.clone() })
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        address: &HostPort,
        pipeline: &Pipeline,
    ) -> Result<T, ShardError> {
        pipeline.query_async(connection).await.map_err(|source| ShardError::of(address, self.user(), source))
    }

    pub(crate) async fn connect(&self, address: &HostPort) -> Result<MultiplexedConnection, ShardError> {
        self.try_connect(address).await.map_err(|source| ShardError::of(address, self.user(), source))
    }

    async fn try_connect(&self, address: &HostPort) -> redis::RedisResult<MultiplexedConnection> {
        let mut user = RedisConnectionInfo::default();
        if let Some(login) = &self.login {
            user = user.set_username(&login.user).set_password(&login.password);
        }
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN)).set_response_timeout(Some(ANSWER_WITHIN));
        Dial { address, tls: self.tls.as_ref(), user }.connect(config).await
    }

    /// User and password, for a connection that speaks something else than commands and answers.
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|login| (login.user.as_str(), login.password.as_str()))
    }

    /// What it verifies processes by.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    fn user(&self) -> &str {
        self.login.as_ref().map_or("default", |login| &login.user)
    }
}

/// Refuses to act below the epoch that a process holds (invariant I2).
pub(crate) fn admit(address: &HostPort, seen: Option<&str>, ours: Epoch) -> Result<(), ShardError> {
    let Some(text) = seen else { return Ok(()) };
    let seen = read_epoch(text).ok_or_else(|| ShardError::Unreadable { address: address.clone(), what: "its epoch".into() })?;
    admit_epoch(address, Some(seen), ours)
}

pub(crate) fn admit_epoch(address: &HostPort, seen: Option<Epoch>, ours: Epoch) -> Result<(), ShardError> {
    match seen {
        Some(seen) if seen > ours => Err(ShardError::NewerEpoch { address: address.clone(), seen, ours }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", ShardClient::new("secret".into())).contains("secret"));
    }
}
