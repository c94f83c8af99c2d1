//! The steps of one shard. Each says whether it succeeded; why not stands in the shard's report.

use std::time::Duration;

use redis::Pipeline;
use tokio::time::Instant;

use super::{
    report::ShardState,
    switch::{SILENT_S, Switch, ms, replication, within},
};
use crate::{
    Change, EPOCH_KEY, NO_WRITES, ShardError, Upstream,
    client::admit,
    info::Info,
    resync::Resyncs,
    role::{set, transaction},
};

/// The copy is near to us; asking more often would cost more than it saves.
const CATCH_UP_EVERY: Duration = Duration::from_millis(2);
const REJOIN_EVERY: Duration = Duration::from_millis(50);

impl Switch<'_> {
    /// No PINGs from the old primary from here on. The next PING would be counted into its offset.
    pub(super) async fn silence(&mut self) -> bool {
        if self.already {
            return true;
        }
        self.touched = true;
        let mut pipe = redis::pipe();
        set(&mut pipe, "repl-ping-replica-period", SILENT_S);
        let doing = self.client.ask::<()>(&mut self.old, &self.pair.old, &pipe);
        let outcome = within(&self.pair.old, "setting repl-ping-replica-period", self.options.prepare_within, doing).await;
        self.settle(outcome)
    }

    pub(super) async fn seal_and_catch_up(&mut self) -> bool {
        if self.already {
            return true;
        }
        let paused = Instant::now();
        self.sealed_at = Some(paused);
        let limit = self.options.catch_up_within;
        let sealing = Box::pin(within(&self.pair.old.clone(), "pausing writes", limit, self.seal())).await;
        self.report.timings.pause_ms = ms(paused.elapsed());
        let offset = match sealing {
            Ok(offset) => offset,
            Err(error) => {
                // An aborted transaction has paused nothing.
                self.sealed_at = self.sealed_at.filter(|_| !matches!(error, ShardError::Raced { .. }));
                return self.settle(Err(error));
            }
        };
        self.report.offset = Some(offset);
        let caught_up = Box::pin(within(
            &self.pair.new.clone(),
            "catching up with the old primary's last write",
            limit.saturating_sub(paused.elapsed()),
            self.catch_up(offset),
        ))
        .await;
        self.report.timings.catch_up_ms = ms(paused.elapsed()) - self.report.timings.pause_ms;
        self.settle(caught_up)
    }

    /// In one transaction: writes are refused, nothing else moves the offset for as long as the lease, and here the stream ends.
    /// The next transaction on this connection is watched again, so that re-pointing needs no round trip of its own.
    async fn seal(&mut self) -> Result<u64, ShardError> {
        let lease_ms = u64::try_from(self.options.lease.as_millis()).unwrap_or(u64::MAX);
        let mut pipe = redis::pipe();
        pipe.cmd("MULTI").ignore().cmd("CLIENT").arg("PAUSE").arg(lease_ms).arg("WRITE").ignore();
        set(&mut pipe, "min-replicas-to-write", NO_WRITES);
        pipe.ignore().cmd("INFO").arg("replication").ignore().cmd("EXEC");
        pipe.cmd("WATCH").arg(EPOCH_KEY).ignore().cmd("GET").arg(EPOCH_KEY);
        let address = &self.pair.old;
        let (done, epoch): (Option<(String, String, String)>, Option<String>) = self.client.ask(&mut self.old, address, &pipe).await?;
        let (_, _, info) = done.ok_or_else(|| ShardError::Raced { address: address.clone() })?;
        admit(address, epoch.as_deref(), self.epoch)?;
        let unreadable = || ShardError::Unreadable { address: address.clone(), what: "its offset".into() };
        Info(&info).number("master_repl_offset").ok_or_else(unreadable)
    }

    /// Not by WAIT: a paused primary does not ask its replicas for their offsets.
    async fn catch_up(&mut self, offset: u64) -> Result<(), ShardError> {
        loop {
            let info = self.copy_info().await?;
            let info = Info(&info);
            if info.get("role") != Some("slave") {
                return Err(ShardError::not_promotable(&self.pair.new, "somebody else made it a primary in this moment"));
            }
            if info.offset() >= offset {
                return Ok(());
            }
            tokio::time::sleep(CATCH_UP_EVERY).await;
        }
    }

    /// The old primary as it was. Only within the lease, and only while the copy is a copy: else there could be two.
    pub(super) async fn reopen(&mut self) {
        if !self.touched {
            return;
        }
        let sealed = self.sealed_at.is_some();
        if !self.in_lease(Duration::ZERO) || self.copy_is_replica().await.is_ok_and(|replica| !replica) {
            self.report.state = ShardState::Fenced;
            let problem = self.stays_fenced("its lease has run out or the copy is a primary, so somebody else may be acting");
            return self.problem(problem);
        }
        let mut pipe = redis::pipe();
        pipe.atomic();
        set(&mut pipe, "repl-ping-replica-period", self.ping_period_s);
        if sealed {
            set(&mut pipe, "min-replicas-to-write", self.min_replicas);
            pipe.cmd("CLIENT").arg("UNPAUSE");
        }
        let doing = self.client.commit(&mut self.old, &self.pair.old, &pipe);
        let outcome = within(&self.pair.old, "opening the old primary again", self.options.promote_within, doing).await;
        if !self.settle(outcome) && sealed {
            self.report.state = ShardState::Fenced;
            let problem = self.stays_fenced("it could not be opened again");
            self.problem(problem);
        }
    }

    fn stays_fenced(&self, why: &str) -> String {
        let (old, epoch) = (&self.pair.old, self.epoch);
        format!(
            "{old} refuses writes: {why}. Look who is the primary; then repeat the planned promotion, or give {old} back with: fraud-features promote --unplanned --to {old} --epoch {epoch}"
        )
    }

    pub(super) async fn promote_and_repoint(&mut self) {
        if self.already {
            self.report.state = ShardState::Promoted;
            return self.follow_again().await;
        }
        if !self.in_lease(self.options.promote_within) {
            self.report.state = ShardState::Fenced;
            let problem = self.stays_fenced("its lease was about to run out before the copy could be promoted");
            return self.problem(problem);
        }
        if self.promote().await {
            self.repoint().await;
        }
    }

    /// The copy's connection watches the epoch since before the pause: a primary made meanwhile, there or on the old side,
    /// has written its epoch, and ours is not written.
    async fn promote(&mut self) -> bool {
        let started = Instant::now();
        let transaction = transaction(&Change::Primary, self.epoch);
        let doing = self.client.commit(&mut self.new, &self.pair.new, &transaction);
        let mut outcome = within(&self.pair.new, "promoting", self.options.promote_within, doing).await;
        if outcome.as_ref().is_err_and(|error| !error.is_refusal()) && self.is_promoted().await {
            outcome = Ok(());
        }
        let now = Instant::now();
        self.report.timings.promote_ms = ms(now.duration_since(started));
        if !self.settle(outcome) {
            self.report.state = ShardState::Fenced;
            let problem = self.stays_fenced("its copy is not known to be promoted");
            self.problem(problem);
            return false;
        }
        self.report.state = ShardState::Promoted;
        self.writable_at = Some(now);
        self.report.timings.paused_to_writable_ms = self.sealed_at.map_or(0.0, |paused| ms(now.duration_since(paused)));
        true
    }

    /// After an answer that was lost.
    async fn is_promoted(&self) -> bool {
        let looking = within(&self.pair.new, "looking", self.options.promote_within, self.client.look(&self.pair.new));
        looking.await.is_ok_and(|facts| facts.role == operator_planner::ShardRole::Primary && facts.epoch == Some(self.epoch))
    }

    /// First a replica, then the end of the pause: what waited is refused by a replica. It goes on refusing writes should
    /// somebody make it a primary without the guarded command.
    async fn repoint(&mut self) {
        let started = Instant::now();
        let mut pipe = transaction(&Change::Follow(self.pair.new_from_old.clone()), self.epoch);
        self.end_silence(&mut pipe);
        pipe.cmd("CLIENT").arg("UNPAUSE");
        let doing = self.client.commit(&mut self.old, &self.pair.old, &pipe);
        let outcome = within(&self.pair.old, "making it follow the new primary", self.options.promote_within, doing).await;
        self.report.timings.repoint_ms = ms(started.elapsed());
        let done = self.settle(outcome);
        self.note_unless_repointed(done);
    }

    fn end_silence(&self, pipe: &mut Pipeline) {
        set(pipe, "repl-ping-replica-period", self.ping_period_s);
    }

    fn note_unless_repointed(&mut self, done: bool) {
        if !done {
            let (old, new, exposed, epoch) = (&self.pair.old, &self.pair.new, &self.pair.new_from_old, self.epoch);
            let problem = format!(
                "{old} refuses writes and does not follow yet. Repeat the promotion, or: fraud-features follow --of {old} --upstream {new} --upstream-exposed {exposed} --epoch {epoch}"
            );
            self.problem(problem);
        }
    }

    /// An earlier attempt promoted the copy and then may not have reached the old primary.
    async fn follow_again(&mut self) {
        let started = Instant::now();
        let upstream = Upstream { address: self.pair.new.clone(), from_follower: self.pair.new_from_old.clone() };
        let limit = self.options.prepare_within;
        let doing = Box::pin(self.client.follow(&self.pair.old, &upstream, self.epoch, false));
        let mut outcome = within(&self.pair.old, "making it follow the new primary", limit, doing).await;
        if outcome.is_ok() {
            let mut pipe = redis::pipe();
            self.end_silence(&mut pipe);
            outcome = self.client.ask::<()>(&mut self.old, &self.pair.old, pipe.cmd("CLIENT").arg("UNPAUSE")).await;
        }
        self.report.timings.repoint_ms = ms(started.elapsed());
        let done = self.settle(outcome);
        self.note_unless_repointed(done);
    }

    /// Waits until the old primary is a copy, and tells from the new one's counters how it became one.
    pub(super) async fn rejoin(&mut self) {
        if !self.moved() || !self.report.problems.is_empty() {
            return;
        }
        let started = Instant::now();
        let limit = self.options.rejoin_within;
        let address = self.pair.old.clone();
        let outcome = Box::pin(within(&address, "becoming a copy of the new primary", limit, self.wait_for_link())).await;
        self.report.timings.rejoin_ms = ms(started.elapsed());
        if self.settle(outcome) {
            self.report.state = ShardState::Rejoined;
        }
        if let Ok(now) = Resyncs::ask(self.client, &mut self.new, &self.pair.new).await {
            self.report.partial_resyncs = now.partial_ok.saturating_sub(self.resyncs.partial_ok);
            self.report.full_resyncs = now.full.saturating_sub(self.resyncs.full);
        }
    }

    async fn wait_for_link(&mut self) -> Result<(), ShardError> {
        loop {
            let info = replication(self.client, &mut self.old, &self.pair.old).await?;
            if Info(&info).get("master_link_status") == Some("up") {
                return Ok(());
            }
            tokio::time::sleep(REJOIN_EVERY).await;
        }
    }
}
