//! How a shard has been doing, and what follows for the next question to it. Pure: time and chance are arguments.

mod breaker;
mod hedge;

use std::time::{Duration, Instant};

pub(crate) use breaker::{Breaker, BreakerState};
use hedge::{HedgeBudget, SlowAnswers};

/// The figures of one shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    breaker: Breaker,
    slow: SlowAnswers,
    budget: HedgeBudget,
    /// Of the connection on which the breaker knows the shard.
    connection: u64,
}

/// What to do with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Ask the shard. After this long without an answer its replica may be asked too.
    Ask { hedge_after: Option<Duration> },
    /// Do not ask the shard.
    Spare,
}

/// What became of a question to the shard itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered, whatever it said.
    Answered(Duration),
    TimedOut,
    /// Its replica was asked meanwhile and was faster: it is not known what became of it.
    Overtaken(Duration),
}

impl Health {
    /// `connection`: another number for each connection. A shard that has just greeted us is no longer what it was.
    pub(crate) fn admit(&mut self, connection: u64, now: Instant) -> Admission {
        if self.connection != connection {
            self.connection = connection;
            self.breaker = Breaker::default();
        }
        self.budget.note_request();
        match self.breaker.admit(now) {
            BreakerState::Closed => Admission::Ask { hedge_after: self.slow.threshold() },
            BreakerState::HalfOpen => Admission::Ask { hedge_after: None },
            BreakerState::Open => Admission::Spare,
        }
    }

    /// Whether the replica may be asked too, now that the time is over.
    pub(crate) fn may_hedge(&mut self) -> bool {
        self.breaker.state() == BreakerState::Closed && self.budget.take()
    }

    /// `chance`: uniform in 0 to 1.
    pub(crate) fn note(&mut self, outcome: Outcome, now: Instant, chance: f64) {
        match outcome {
            Outcome::Answered(took) => {
                self.slow.note(took);
                self.breaker.succeeded();
            }
            Outcome::Overtaken(after) => self.slow.note(after),
            Outcome::TimedOut => self.breaker.failed(now, chance),
        }
    }

    pub(crate) fn breaker(&self) -> BreakerState {
        self.breaker.state()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn practised() -> Health {
        let (mut health, now) = (Health::default(), Instant::now());
        for _ in 0..2_000 {
            health.admit(1, now);
            health.note(Outcome::Answered(MS), now, 0.5);
        }
        health
    }

    #[test]
    fn a_shard_that_is_known_may_be_hedged_and_a_sick_one_is_spared_and_never_hedged() {
        let (mut health, now) = (practised(), Instant::now());
        assert!(matches!(health.admit(1, now), Admission::Ask { hedge_after: Some(after) } if after >= MS));
        assert!(health.may_hedge());
        (0..32).for_each(|_| health.note(Outcome::TimedOut, now, 0.5));
        assert_eq!((health.admit(1, now), health.breaker()), (Admission::Spare, BreakerState::Open));
        assert!(!health.may_hedge());
        // After a while it is asked again, by few and without hedges.
        let later = now + Duration::from_secs(1);
        assert_eq!(health.admit(1, later), Admission::Ask { hedge_after: None });
        assert!(!health.may_hedge());
        // On a new connection it is trusted again.
        assert!(matches!(health.admit(2, later), Admission::Ask { hedge_after: Some(_) }));
    }

    #[test]
    fn before_anything_is_known_nothing_is_hedged() {
        let mut health = Health::default();
        assert_eq!(health.admit(1, Instant::now()), Admission::Ask { hedge_after: None });
        assert!(!health.may_hedge());
    }
}
