//! A connection to one process that is kept, to notice at once when the process ends or comes back.

use domain::HostPort;
use redis::aio::MultiplexedConnection;

use crate::{Finding, RedisUsers, Settings, ShardClient, ShardError, WantedSettings};

/// Open until it is dropped, or until the process ends.
pub struct Visit {
    client: ShardClient,
    address: HostPort,
    connection: MultiplexedConnection,
}

impl ShardClient {
    /// # Errors
    /// When the process does not answer in time or not as Redis does.
    pub async fn visit(&self, address: &HostPort) -> Result<Visit, ShardError> {
        let connection = self.connect(address).await?;
        Ok(Visit { client: self.clone(), address: address.clone(), connection })
    }
}

impl Visit {
    /// # Errors
    /// When there is no answer.
    pub async fn ping(&mut self) -> Result<(), ShardError> {
        let mut pipe = redis::pipe();
        pipe.cmd("PING").ignore();
        self.client.ask(&mut self.connection, &self.address, &pipe).await
    }

    /// What is wrong with the process's version and settings.
    ///
    /// # Errors
    /// When the process does not answer in time or not as Redis does.
    pub async fn check_settings(&mut self, wanted: &WantedSettings) -> Result<Vec<Finding>, ShardError> {
        let (client, address) = (&self.client, &self.address);
        let (server,): (String,) = client.ask(&mut self.connection, address, redis::pipe().cmd("INFO").arg("server")).await?;
        Ok(Settings::ask(client, &mut self.connection, address, &server).await?.findings(address, wanted))
    }

    /// Gives the process these users; whoever is logged in stays.
    ///
    /// # Errors
    /// When the process refuses one of them; the others are as they should be.
    pub async fn give_users(&mut self, users: &RedisUsers) -> Result<(), ShardError> {
        self.client.ask(&mut self.connection, &self.address, &users.commands()).await
    }
}
