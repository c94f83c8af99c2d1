//! A planned promotion: all shards move to the other region, and no acknowledged write is lost.
//!
//! | step | where | what |
//! |---|---|---|
//! | prepare | both | look, and watch the epoch on both sides: if anybody writes it from here on, our transactions abort |
//! | silence | old | no replication PINGs: one of them between promoting and re-pointing would cost a full copy |
//! | seal | old | one transaction: refuse writes for good, pause what else would write, read the offset where the stream ends |
//! | catch up | new | until the copy has everything up to that offset |
//! | promote | new | `REPLICAOF NO ONE` and the epoch |
//! | re-point | old | `REPLICAOF` the new one, PINGs again, end the pause: what waited is refused, not lost |
//! | rejoin | old | wait until it is a copy, and count how it became one |
//!
//! All shards take a step at once, and the first four steps of all shards come before any shard is promoted. Until then a
//! failure opens all old primaries again as they were. From then on there is no way back, only forward: what is left is
//! reported, and running it again in the same epoch finishes it.
//!
//! Sealed twice, because neither seal suffices. Refusing writes (`min-replicas-to-write`) does not lapse, so an old primary
//! never takes writes beside a new one, whatever becomes of us; writers are told at once (`NOREPLICAS`) and may look for
//! the new primary. The pause also holds back what is no client's write, such as keys that expire, which would move the
//! offset and cost a full copy; it is a lease, and lapses if we die. After the lease nobody is promoted or opened by us:
//! somebody else may have begun to act.

pub(crate) mod options;
pub(crate) mod report;
mod steps;
mod switch;

use domain::Epoch;
use futures::future::join_all;
use tokio::time::Instant;

use self::{
    options::PlannedOptions,
    report::{Pair, PlannedReport, ShardReport},
    switch::Switch,
};
use crate::ShardClient;

pub(crate) use switch::SILENT_S;

impl ShardClient {
    /// Moves all shards. What each of them came to is in the report; a copy that was promoted in this epoch already counts
    /// as moved, so that it is safe to repeat. If the caller drops this in the middle, old primaries may be left that refuse
    /// writes: repeat it.
    pub async fn promote_planned(&self, pairs: &[Pair], epoch: Epoch, options: &PlannedOptions) -> PlannedReport {
        if let Err(problem) = options.check() {
            return unchanged(pairs, epoch, &problem);
        }
        let prepared = join_all(pairs.iter().map(|pair| Switch::prepare(self, pair, epoch, options))).await;
        let (mut switches, failed): (Vec<Switch<'_>>, Vec<ShardReport>) = split(prepared);
        if !failed.is_empty() {
            let others = switches.into_iter().map(|switch| switch.report);
            return PlannedReport::of(epoch, in_order(failed.into_iter().chain(others).collect()), None);
        }
        if !take(switches.iter_mut().map(Switch::silence)).await || !take(switches.iter_mut().map(Switch::seal_and_catch_up)).await {
            join_all(switches.iter_mut().map(Switch::reopen)).await;
            return PlannedReport::of(epoch, switches.into_iter().map(|switch| switch.report).collect(), None);
        }
        // The point of no return.
        join_all(switches.iter_mut().map(Switch::promote_and_repoint)).await;
        join_all(switches.iter_mut().map(Switch::rejoin)).await;
        let gap = write_gap_ms_max(&switches);
        PlannedReport::of(epoch, switches.into_iter().map(|switch| switch.report).collect(), gap)
    }
}

/// Takes a step for all shards at once: true if it succeeded for all of them.
async fn take(steps: impl Iterator<Item = impl Future<Output = bool>>) -> bool {
    join_all(steps).await.into_iter().all(|done| done)
}

fn split(prepared: Vec<Result<Switch<'_>, Box<ShardReport>>>) -> (Vec<Switch<'_>>, Vec<ShardReport>) {
    let (mut switches, mut failed) = (Vec::new(), Vec::new());
    for shard in prepared {
        match shard {
            Ok(switch) => switches.push(switch),
            Err(report) => failed.push(*report),
        }
    }
    (switches, failed)
}

fn in_order(mut reports: Vec<ShardReport>) -> Vec<ShardReport> {
    reports.sort_by_key(|report| report.shard);
    reports
}

fn unchanged(pairs: &[Pair], epoch: Epoch, problem: &str) -> PlannedReport {
    let report = |pair| ShardReport { problems: vec![problem.to_owned()], ..ShardReport::new(pair) };
    PlannedReport::of(epoch, pairs.iter().map(report).collect(), None)
}

/// Unless all shards that were paused became writable, the gap has not ended.
fn write_gap_ms_max(switches: &[Switch<'_>]) -> Option<f64> {
    let paused: Vec<Instant> = switches.iter().filter_map(|switch| switch.sealed_at).collect();
    let writable: Vec<Instant> = switches.iter().filter_map(|switch| switch.writable_at).collect();
    let (first, last) = (paused.iter().min()?, writable.iter().max()?);
    (paused.len() == writable.len()).then(|| switch::ms(last.duration_since(*first)))
}
