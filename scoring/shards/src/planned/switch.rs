//! One shard's way through a planned promotion: what it needs to know between the steps.

use std::time::Duration;

use domain::{Epoch, HostPort};
use futures::future::try_join;
use operator_planner::{Link, ShardRole};
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::{
    options::PlannedOptions,
    report::{Pair, ShardReport, ShardState},
};
use crate::{ShardClient, ShardError, client::admit_epoch, info::Info, resync::Resyncs, seen::Seen};

/// In seconds, so that no PING falls into a promotion. Redis sends one whenever the number of seconds since it started
/// is a multiple of the period, so an hour would still be hit now and then.
pub(crate) const SILENT_S: u64 = 1_000_000_000;

pub(super) struct Switch<'a> {
    pub(super) client: &'a ShardClient,
    pub(super) pair: &'a Pair,
    pub(super) epoch: Epoch,
    pub(super) options: &'a PlannedOptions,
    pub(super) old: MultiplexedConnection,
    pub(super) new: MultiplexedConnection,
    /// What the old primary's settings were.
    pub(super) min_replicas: u64,
    pub(super) ping_period_s: u64,
    /// The new primary's counters before the old one comes back to it.
    pub(super) resyncs: Resyncs,
    /// From when on the old primary's settings may differ from what they were.
    pub(super) touched: bool,
    /// Before the pause was sent.
    pub(super) sealed_at: Option<Instant>,
    pub(super) writable_at: Option<Instant>,
    /// Promoted in this epoch by an earlier attempt.
    pub(super) already: bool,
    pub(super) report: ShardReport,
}

impl<'a> Switch<'a> {
    /// Looks at both processes, and watches the epoch on both.
    pub(super) async fn prepare(
        client: &'a ShardClient,
        pair: &'a Pair,
        epoch: Epoch,
        options: &'a PlannedOptions,
    ) -> Result<Self, Box<ShardReport>> {
        let looking = Box::pin(Self::look(client, pair, epoch, options));
        within(&pair.old, "looking at both processes", options.prepare_within, looking).await.map_err(|error| {
            Box::new(ShardReport { refused: error.is_refusal(), problems: vec![error.to_string()], ..ShardReport::new(pair) })
        })
    }

    async fn look(client: &'a ShardClient, pair: &'a Pair, epoch: Epoch, options: &'a PlannedOptions) -> Result<Self, ShardError> {
        let (mut old, mut new) = try_join(client.connect(&pair.old), client.connect(&pair.new)).await?;
        let (was, copy) = try_join(Seen::watch(client, &mut old, &pair.old), Seen::watch(client, &mut new, &pair.new)).await?;
        admit_epoch(&pair.new, copy.facts.epoch, epoch)?;
        admit_epoch(&pair.old, was.facts.epoch, epoch)?;
        let already = copy.facts.role == ShardRole::Primary && copy.facts.epoch == Some(epoch);
        if !already {
            check(pair, &was, &copy, options)?;
        }
        let resyncs = Resyncs::ask(client, &mut new, &pair.new).await?;
        let ping_period_s = if was.ping_period_s == SILENT_S { options.ping_period_s } else { was.ping_period_s };
        let (min_replicas, report) = (was.min_replicas, ShardReport::new(pair));
        let (touched, sealed_at, writable_at) = (false, None, None);
        Ok(Self {
            client,
            pair,
            epoch,
            options,
            old,
            new,
            min_replicas,
            ping_period_s,
            resyncs,
            touched,
            sealed_at,
            writable_at,
            already,
            report,
        })
    }

    /// Whether what we hold is still ours, so that something may be made writable.
    pub(super) fn in_lease(&self, needed: Duration) -> bool {
        self.sealed_at.is_none_or(|sealed| sealed.elapsed().saturating_add(needed) < self.options.lease)
    }

    pub(super) fn problem(&mut self, problem: impl Into<String>) {
        self.report.problems.push(problem.into());
    }

    /// Notes what went wrong, and says whether nothing did.
    pub(super) fn settle(&mut self, outcome: Result<(), ShardError>) -> bool {
        let Err(error) = outcome else { return true };
        self.problem(error.to_string());
        false
    }

    pub(super) async fn copy_info(&mut self) -> Result<String, ShardError> {
        replication(self.client, &mut self.new, &self.pair.new).await
    }

    pub(super) async fn copy_is_replica(&mut self) -> Result<bool, ShardError> {
        let deadline = self.options.promote_within;
        let address = &self.pair.new;
        let info = within(address, "looking at the copy", deadline, replication(self.client, &mut self.new, address)).await?;
        Ok(Info(&info).get("role") == Some("slave"))
    }

    pub(super) fn moved(&self) -> bool {
        matches!(self.report.state, ShardState::Promoted | ShardState::Rejoined)
    }
}

pub(super) async fn replication(
    client: &ShardClient,
    connection: &mut MultiplexedConnection,
    address: &HostPort,
) -> Result<String, ShardError> {
    let (info,): (String,) = client.ask(connection, address, redis::pipe().cmd("INFO").arg("replication")).await?;
    Ok(info)
}

fn check(pair: &Pair, was: &Seen, copy: &Seen, options: &PlannedOptions) -> Result<(), ShardError> {
    let refuse = |why: String| Err(ShardError::not_promotable(&pair.new, why));
    let old = &pair.old;
    if !matches!(was.facts.role, ShardRole::Primary | ShardRole::Held) {
        return refuse(format!("{old} is no primary. Name the process that takes the writes now, or promote unplanned if there is none"));
    }
    if was.min_replicas_lag_s_max == 0 {
        return refuse(format!(
            "{old} would not keep refusing writes after a pause that lapses, because min-replicas-max-lag is 0 there. Set: min-replicas-max-lag 2"
        ));
    }
    if !matches!(copy.facts.role, ShardRole::Following { link: Link::Up, .. }) || copy.history != was.history {
        return refuse(format!("it is not a copy of {old} with its link up. Make it follow {old} and wait until it has everything"));
    }
    if was.facts.holds_data && !copy.facts.holds_data {
        return refuse(format!("it is empty and {old} is not. Wait until it has everything"));
    }
    let behind = was.facts.offset.saturating_sub(copy.facts.offset);
    if behind > options.lag_bytes_max {
        return refuse(format!(
            "it is {behind} bytes behind {old}, more than the {} allowed: writes would be paused for long. Wait until it has caught up",
            options.lag_bytes_max
        ));
    }
    Ok(())
}

pub(super) async fn within<T>(
    address: &HostPort,
    step: &'static str,
    limit: Duration,
    doing: impl Future<Output = Result<T, ShardError>>,
) -> Result<T, ShardError> {
    let late = |_| ShardError::Late { address: address.clone(), step, within: limit };
    tokio::time::timeout(limit, doing).await.map_err(late)?
}

pub(super) fn ms(took: Duration) -> f64 {
    took.as_secs_f64() * 1_000.0
}
