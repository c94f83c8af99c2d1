//! Replaces what a process holds by another data set, and makes it a primary: through replication, because nobody but the
//! process itself can reach its files.

use std::time::Duration;

use domain::{Epoch, HostPort};
use feature_shards::{Change, ShardClient};
use operator_planner::{Link, ShardRole};

use crate::{
    Identity, SnapshotError,
    offer::{DataSet, Offer},
};

/// Where processes look for a primary when they start; nothing listens there.
const NOWHERE: (&str, u16) = ("127.0.0.1", 1);

#[derive(Debug, Clone)]
pub struct ReplaceOptions {
    /// Of the plan in which this is done. A process that holds a newer one is left alone.
    pub epoch: Epoch,
    /// Also what is not empty.
    pub overwrite: bool,
    /// How the processes reach us; without it, the address from which we reach them.
    pub advertise: Option<String>,
    /// On which port; 0: any that is free.
    pub port: u16,
    /// What we show to processes that speak TLS.
    pub identity: Option<Identity>,
    /// Shards at once. With a port of its own only one.
    pub at_once: usize,
    /// For each shard.
    pub within: Duration,
}

impl ReplaceOptions {
    pub fn in_epoch(epoch: Epoch) -> Self {
        Self { epoch, overwrite: false, advertise: None, port: 0, identity: None, at_once: 2, within: Duration::from_secs(3_600) }
    }

    pub(crate) fn at_once(&self) -> usize {
        if self.port == 0 { self.at_once.max(1) } else { 1 }
    }
}

/// Whatever happens, the process ends as a primary with all of the data, or follows nobody and takes no writes.
pub(crate) async fn replace(
    client: &ShardClient,
    target: &HostPort,
    data: &DataSet,
    offset: u64,
    options: &ReplaceOptions,
) -> Result<(), SnapshotError> {
    let login = client.upstream_login(target).await?;
    let offer = Offer::open(target, options, offset).await?;
    client.change(target, &Change::Follow(offer.address.clone()), options.epoch).await?;
    let handing = async {
        let connection = offer.hand_over(target, login.as_ref(), data).await?;
        check_taken(client, target, &offer.address).await.map(|()| connection)
    };
    let late = |_| SnapshotError::Late { what: format!("{target}, until it had its copy,"), within: options.within };
    let taken = tokio::time::timeout(options.within, handing).await.map_err(late).and_then(|taken| taken);
    match taken {
        Ok(_connection) => Ok(client.change(target, &Change::Primary, options.epoch).await?),
        Err(error) => Err(give_up(client, target, options.epoch, error).await),
    }
}

async fn check_taken(client: &ShardClient, target: &HostPort, offered: &HostPort) -> Result<(), SnapshotError> {
    let role = client.contents(target).await?.role;
    match &role {
        ShardRole::Following { upstream, link: Link::Up } if upstream == offered => Ok(()),
        _ => Err(SnapshotError::not_taken(target, "somebody else changed its role meanwhile. Stop the operator first")),
    }
}

async fn give_up(client: &ShardClient, target: &HostPort, epoch: Epoch, error: SnapshotError) -> SnapshotError {
    let nowhere = HostPort { host: NOWHERE.0.to_owned(), port: NOWHERE.1 };
    let left = match client.change(target, &Change::Follow(nowhere), epoch).await {
        Ok(()) => "It follows nobody now and takes no writes; repeat this, or promote it as it is".to_owned(),
        Err(also) => format!("It may still try to follow us ({also}); repeat this"),
    };
    SnapshotError::not_taken(target, format!("{error}. {left}"))
}
