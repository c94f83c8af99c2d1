//! One decision's question to one shard, with what is done when the shard is full, slow or silent.

use std::{pin::pin, sync::Arc};

use redis::Value;
use scoring_core::{
    slot::SlotBytes,
    state::{EntityState, StateConfig, append_bytes_max},
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    FeatureMetrics,
    commands::{self, Answered, Asked, EntityKey},
    health::{Admission, Health, Outcome},
    link::{Failure, Link},
    metrics::{Cause, Relief},
    request::Request,
    shards::Shard,
};

/// What is asked of one shard for one event.
pub(crate) struct RoundTrip<'a> {
    pub(crate) shard: &'a Arc<Shard>,
    pub(crate) config: &'a StateConfig,
    pub(crate) metrics: &'a FeatureMetrics,
    pub(crate) slot: &'a SlotBytes,
    pub(crate) asked: Vec<Asked>,
    /// Whether this region may write the shard.
    pub(crate) writes: bool,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) states: Vec<(EntityKey, EntityState)>,
    /// Those whose values are so long that they are left alone for a while.
    pub(crate) over_long: Vec<EntityKey>,
    /// Whether the event is in all values that it was to be appended to.
    pub(crate) recorded: bool,
}

impl RoundTrip<'_> {
    pub(crate) async fn run(self, deadline: Instant) -> Part {
        let mut answers = match self.admit() {
            Admission::Ask { hedge_after } => self.ask(hedge_after, deadline).await,
            Admission::Spare => None,
        };
        if answers.is_none() {
            answers = self.stand_in(deadline).await;
        }
        let mut part = self.part_of(answers.unwrap_or_default());
        let refused = self.unread(&part);
        // A shard at its memory limit, or one that became a replica, refuses writes and still answers reads.
        if !refused.is_empty() && self.shard.read.is_up() && Instant::now() < deadline {
            self.read_only(refused, deadline, &mut part).await;
        }
        part
    }

    /// A shard to which there is no connection is spared, and that is no news for its breaker.
    fn admit(&self) -> Admission {
        let Some(connection) = self.link().connection_number() else {
            self.metrics.failure(self.shard.index, Cause::Disconnected);
            return Admission::Spare;
        };
        self.with_health(|health| health.admit(connection, std::time::Instant::now()))
    }

    fn link(&self) -> &Link {
        if self.writes { &self.shard.write } else { &self.shard.read }
    }

    fn request(&self) -> Request {
        if self.writes { commands::record_and_read(&self.asked, self.slot, self.config) } else { commands::read(&self.asked) }
    }

    /// Asks the shard, and its replica too when the answer is late; the first answer is taken.
    async fn ask(&self, hedge_after: Option<std::time::Duration>, deadline: Instant) -> Option<Vec<Answered>> {
        let started = Instant::now();
        let request = self.request();
        let mut primary = pin!(self.link().send(&request, deadline));
        let hedge = hedge_after.filter(|after| started + *after < deadline).zip(self.shard.replica());
        let Some((after, replica)) = hedge else { return self.answered(primary.await, started) };
        tokio::select! {
            biased;
            answer = &mut primary => return self.answered(answer, started),
            () = sleep(after) => {}
        }
        if !self.shard.health().may_hedge() {
            return self.answered(primary.await, started);
        }
        self.metrics.relief(self.shard.index, Relief::Hedged);
        let request = commands::read(&self.asked);
        let mut hedged = pin!(replica.send(&request, deadline));
        tokio::select! {
            biased;
            answer = &mut primary => {
                match self.answered(answer, started) {
                    Some(answers) => Some(answers),
                    None => self.hedge_won(hedged.await.ok()?),
                }
            }
            answer = &mut hedged => match answer {
                Ok(answers) => {
                    self.note(Outcome::Overtaken(started.elapsed()));
                    self.hedge_won(answers)
                }
                Err(_) => self.answered(primary.await, started),
            }
        }
    }

    fn hedge_won(&self, answers: Vec<Value>) -> Option<Vec<Answered>> {
        self.metrics.relief(self.shard.index, Relief::HedgeWon);
        self.reads(answers)
    }

    /// Nothing from a process that holds nothing: its entities are missing, and not new.
    fn reads(&self, answers: Vec<Value>) -> Option<Vec<Answered>> {
        let answered = commands::answered_reads(answers);
        if answered.is_none() {
            self.metrics.failure(self.shard.index, Cause::Empty);
        }
        answered
    }

    fn answered(&self, answers: Result<Vec<Value>, Failure>, started: Instant) -> Option<Vec<Answered>> {
        let operation = if self.writes { "record_and_read" } else { "read" };
        self.metrics.round_trip(self.shard.index, operation, started.elapsed());
        match answers {
            Ok(answers) => {
                self.note(Outcome::Answered(started.elapsed()));
                if self.writes { Some(commands::answered_both(&self.asked, answers)) } else { self.reads(answers) }
            }
            Err(failure) => {
                self.metrics.failure(self.shard.index, failure.cause());
                if matches!(failure, Failure::TimedOut) {
                    self.note(Outcome::TimedOut);
                }
                None
            }
        }
    }

    fn note(&self, outcome: Outcome) {
        self.with_health(|health| health.note(outcome, std::time::Instant::now(), rand::random()));
    }

    /// Tells when that changes the breaker.
    fn with_health<T>(&self, use_it: impl FnOnce(&mut Health) -> T) -> T {
        let (answer, before, after) = {
            let mut health = self.shard.health();
            let before = health.breaker();
            (use_it(&mut health), before, health.breaker())
        };
        if before != after {
            self.metrics.breaker(self.shard.index, after);
            tracing::warn!(shard = self.shard.index, state = ?after, "breaker of feature-store shard changed");
        }
        answer
    }

    /// While the shard itself is left alone or has no connection, its replica answers.
    async fn stand_in(&self, deadline: Instant) -> Option<Vec<Answered>> {
        let replica = self.shard.replica()?;
        if Instant::now() >= deadline {
            return None;
        }
        self.metrics.relief(self.shard.index, Relief::StandIn);
        replica.send(&commands::read(&self.asked), deadline).await.ok().and_then(|answers| self.reads(answers))
    }

    fn part_of(&self, answers: Vec<Answered>) -> Part {
        let mut part = Part { recorded: self.writes && !answers.is_empty(), ..Part::default() };
        for (asked, answered) in self.asked.iter().zip(answers) {
            if asked.appends {
                part.recorded &= self.accepted(answered.appended);
            }
            self.take(*asked, answered.value, &mut part);
        }
        part
    }

    fn accepted(&self, appended: Result<bool, Value>) -> bool {
        appended.unwrap_or_else(|answer| {
            self.metrics.failure(self.shard.index, Cause::of(&answer));
            false
        })
    }

    fn take(&self, asked: Asked, value: Result<Vec<u8>, Value>, part: &mut Part) {
        // What the write said has been counted.
        let Ok(value) = value else { return };
        if value.len() > append_bytes_max(self.config.events_max()) {
            part.over_long.push((asked.kind, asked.id));
        }
        let state = EntityState::parse(&value, self.config.events_max());
        self.metrics.unreadable(state.unreadable());
        part.states.push(((asked.kind, asked.id), state));
    }

    /// What was asked and is not known, if anything is: a shard that gave nothing at all is not asked again.
    fn unread(&self, part: &Part) -> Vec<Asked> {
        let known = |asked: &Asked| part.states.iter().any(|(entity, _)| *entity == (asked.kind, asked.id));
        self.asked.iter().filter(|asked| !known(asked)).copied().collect()
    }

    async fn read_only(&self, asked: Vec<Asked>, deadline: Instant, part: &mut Part) {
        let request = commands::read(&asked);
        let Ok(Ok(answers)) = timeout_at(deadline, self.shard.read.send(&request, deadline)).await else { return };
        for (asked, answered) in asked.into_iter().zip(self.reads(answers).unwrap_or_default()) {
            if let Err(answer) = &answered.value {
                self.metrics.failure(self.shard.index, Cause::of(answer));
            }
            self.take(asked, answered.value, part);
        }
    }
}
