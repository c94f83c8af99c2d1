//! Promotion when the old primary is gone: what it had not yet sent is missing, until the log brings it.

use domain::{Epoch, HostPort};
use futures::future::OptionFuture;
use operator_planner::{Link, ShardFacts, ShardRole};
use serde::Serialize;
use tokio::time::Instant;

use crate::{Change, ShardClient, ShardError, client::admit_epoch, info::Info};

/// One shard to promote.
#[derive(Debug, Clone)]
pub struct Unplanned {
    pub shard: u16,
    pub new: HostPort,
    /// Where it is looked whether the old primary is really gone, if that can be asked.
    pub old: Option<HostPort>,
    /// Promotes also an empty or half-copied process, and beside an old primary that takes writes.
    pub force: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnplannedReport {
    pub shard: u16,
    pub new: HostPort,
    /// Up to where the new primary has the old one's stream: an old primary that comes back with more has diverged.
    pub fork_offset: Option<u64>,
    pub took_ms: u64,
}

impl ShardClient {
    /// Makes the copy a primary of `epoch`.
    ///
    /// # Errors
    /// When nothing was changed, or when it is not known whether something was: then look.
    pub async fn promote_unplanned(&self, wanted: &Unplanned, epoch: Epoch) -> Result<UnplannedReport, ShardError> {
        let started = Instant::now();
        let old: OptionFuture<_> = wanted.old.as_ref().map(|old| self.look(old)).into();
        let (new, old) = futures::future::join(self.look(&wanted.new), old).await;
        let new = new?;
        admit_epoch(&wanted.new, new.epoch, epoch)?;
        if let (Some(address), Some(Ok(old))) = (&wanted.old, &old) {
            admit_epoch(address, old.epoch, epoch)?;
            if old.role == ShardRole::Primary && !wanted.force {
                return Err(ShardError::not_promotable(
                    &wanted.new,
                    format!("the old primary {address} answers and takes writes. Promote planned, or hold the old one first, or force it"),
                ));
            }
        }
        if !wanted.force {
            check_copy(&wanted.new, &new)?;
        }
        self.change(&wanted.new, &Change::Primary, epoch).await?;
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(UnplannedReport { shard: wanted.shard, new: wanted.new.clone(), fork_offset: self.fork_offset(&wanted.new).await, took_ms })
    }

    /// Only for the report: the promotion stands without it.
    async fn fork_offset(&self, address: &HostPort) -> Option<u64> {
        let mut connection = self.connect(address).await.ok()?;
        let (info,): (String,) = self.ask(&mut connection, address, redis::pipe().cmd("INFO").arg("replication")).await.ok()?;
        // Redis names the first byte of its own history.
        Info(&info).number::<i64>("second_repl_offset").and_then(|first| u64::try_from(first.checked_sub(1)?).ok())
    }
}

fn check_copy(address: &HostPort, facts: &ShardFacts) -> Result<(), ShardError> {
    if matches!(facts.role, ShardRole::Following { link: Link::Syncing, .. }) {
        return Err(ShardError::not_promotable(
            address,
            "it is in the middle of a full copy and holds a part of the data. Wait, take another copy, or force it",
        ));
    }
    if !facts.holds_data {
        return Err(ShardError::not_promotable(
            address,
            "it holds no data: an empty primary empties its copies. Take a copy that holds data, or force it",
        ));
    }
    Ok(())
}
