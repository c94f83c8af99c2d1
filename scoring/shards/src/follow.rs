//! Following and holding, with the rule that no copy that holds data is overwritten by an empty one (invariant I10).

use domain::{Epoch, HostPort};
use futures::future::join;

use crate::{Change, ShardClient, ShardError, client::admit_epoch};

/// A process to follow, by its two names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// How we reach it.
    pub address: HostPort,
    /// How the process that follows reaches it.
    pub from_follower: HostPort,
}

impl ShardClient {
    /// Makes a process follow another one. If it holds data, the other one must be known to hold some too, unless `force`.
    ///
    /// # Errors
    /// When nothing was changed, or when it is not known whether something was.
    pub async fn follow(&self, address: &HostPort, upstream: &Upstream, epoch: Epoch, force: bool) -> Result<(), ShardError> {
        let (own, other) = join(self.look(address), self.look(&upstream.address)).await;
        let own = own?;
        if let Ok(facts) = &other {
            admit_epoch(&upstream.address, facts.epoch, epoch)?;
        }
        if own.holds_data && !force {
            let (address, upstream) = (address.clone(), upstream.address.clone());
            match other {
                Err(error) => return Err(ShardError::UnknownUpstream { address, upstream, why: error.to_string() }),
                Ok(facts) if !facts.holds_data => return Err(ShardError::EmptyUpstream { address, upstream }),
                Ok(_) => {}
            }
        }
        self.change(address, &Change::Follow(upstream.from_follower.clone()), epoch).await
    }

    /// Makes a process refuse writes, follow nobody, and give copies of what it holds.
    ///
    /// # Errors
    /// When nothing was changed, or when it is not known whether something was.
    pub async fn hold(&self, address: &HostPort, epoch: Epoch) -> Result<(), ShardError> {
        self.change(address, &Change::Hold, epoch).await
    }
}
