//! When to leave a shard alone, so that decisions do not wait for it in vain. Pure: time and chance are arguments.

use std::time::{Duration, Instant};

/// Of so many last outcomes ...
const OUTCOMES: u32 = 32;
/// ... so many failures open the breaker.
const FAILURES: u32 = 16;
const OPEN_MIN: Duration = Duration::from_millis(250);
const OPEN_MAX: Duration = Duration::from_secs(4);
/// So many questions in half-open decide; all of them must be answered.
const PROBES: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerState {
    /// Everybody asks.
    Closed,
    /// A few ask, to find out.
    HalfOpen,
    /// Nobody asks.
    Open,
}

/// Opens when half of the last outcomes were failures; after a time with jitter, which doubles with each opening in a row, a
/// few probes decide whether it closes.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    state: BreakerState,
    /// One bit an outcome, the last one lowest: 1 is a failure.
    failures: u32,
    /// In open: until when. In half-open: until when its probes may take.
    until: Option<Instant>,
    open_for: Duration,
    probes_sent: u32,
    probes_answered: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed, failures: 0, until: None, open_for: OPEN_MIN, probes_sent: 0, probes_answered: 0 }
    }
}

impl Breaker {
    pub(crate) fn state(&self) -> BreakerState {
        self.state
    }

    /// In which state the next question is: with `Open`, it is not to be asked.
    pub(crate) fn admit(&mut self, now: Instant) -> BreakerState {
        if self.state == BreakerState::Closed {
            return BreakerState::Closed;
        }
        // In half-open too: probes whose askers went away must not keep it there for ever.
        if self.until.is_none_or(|until| now >= until) {
            self.state = BreakerState::HalfOpen;
            self.until = Some(now + self.open_for);
            (self.probes_sent, self.probes_answered) = (0, 0);
        }
        if self.state == BreakerState::HalfOpen && self.probes_sent < PROBES {
            self.probes_sent += 1;
            return BreakerState::HalfOpen;
        }
        BreakerState::Open
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures <<= 1;
        if self.state == BreakerState::HalfOpen {
            self.probes_answered += 1;
            if self.probes_answered >= PROBES {
                *self = Self::default();
            }
        }
    }

    /// `chance`: uniform in 0 to 1, so that not all pods come back in the same millisecond.
    pub(crate) fn failed(&mut self, now: Instant, chance: f64) {
        self.failures = self.failures << 1 | 1;
        match self.state {
            BreakerState::Closed if self.failures.count_ones() >= FAILURES => self.open(now, chance),
            BreakerState::HalfOpen => {
                self.open_for = (self.open_for * 2).min(OPEN_MAX);
                self.open(now, chance);
            }
            // Those that were under way when it opened change nothing.
            BreakerState::Closed | BreakerState::Open => {}
        }
    }

    fn open(&mut self, now: Instant, chance: f64) {
        self.state = BreakerState::Open;
        self.until = Some(now + self.open_for.mul_f64(0.75 + chance.clamp(0.0, 1.0) / 2.0));
    }
}

const _: () = assert!(OUTCOMES == u32::BITS);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        (0..FAILURES).for_each(|_| breaker.failed(now, 0.5));
        breaker
    }

    #[test]
    fn a_few_failures_are_no_reason_and_half_of_the_last_ones_are() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..200 {
            breaker.failed(now, 0.5);
            (0..2).for_each(|_| breaker.succeeded());
        }
        assert_eq!(breaker.admit(now), BreakerState::Closed);
        assert_eq!(opened(now).admit(now), BreakerState::Open);
    }

    #[test]
    fn three_answers_close_it_and_one_failure_opens_it_for_longer() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let later = now + OPEN_MIN * 2;
        let states = [0; 5].map(|_| breaker.admit(later));
        use BreakerState::{HalfOpen, Open};
        assert_eq!(states, [HalfOpen, HalfOpen, HalfOpen, Open, Open]);
        breaker.succeeded();
        breaker.failed(later, 0.5);
        assert_eq!(breaker.admit(later + OPEN_MIN * 2 - Duration::from_millis(1)), Open);
        let again = later + OPEN_MIN * 3;
        (0..3).for_each(|_| assert_eq!(breaker.admit(again), HalfOpen));
        (0..3).for_each(|_| breaker.succeeded());
        assert_eq!(breaker.admit(again), BreakerState::Closed);
    }

    #[test]
    fn probes_whose_askers_went_away_do_not_keep_it_half_open() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let mut at = now;
        for _ in 0..5 {
            at += Duration::from_secs(5);
            (0..PROBES).for_each(|_| assert_eq!(breaker.admit(at), BreakerState::HalfOpen));
            assert_eq!(breaker.admit(at), BreakerState::Open);
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Ask,
        Answer,
        Fail(f64),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![Just(Step::Ask), Just(Step::Answer), (0.0..1.0).prop_map(Step::Fail), (0_u64..3_000).prop_map(Step::Wait)];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        /// Whatever happened before: it opens only when enough failed, asks only a few while it is not closed, and closes
        /// again as soon as the shard answers.
        #[test]
        fn it_always_recovers_and_never_asks_many(steps in steps()) {
            let (mut breaker, mut now) = (Breaker::default(), Instant::now());
            let (mut failures, mut probes) = (0, 0);
            for step in steps {
                let before = breaker.state();
                match step {
                    Step::Ask => {
                        let until = breaker.until;
                        let admitted = breaker.admit(now);
                        if breaker.until != until {
                            probes = 0;
                        }
                        probes += u32::from(admitted == BreakerState::HalfOpen);
                        prop_assert!(probes <= PROBES);
                    }
                    Step::Answer => breaker.succeeded(),
                    Step::Fail(chance) => {
                        failures += 1;
                        breaker.failed(now, chance);
                    }
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                }
                if before == BreakerState::Closed && breaker.state() == BreakerState::Open {
                    prop_assert!(failures >= FAILURES);
                    failures = 0;
                }
                if let (BreakerState::Open, Some(until)) = (breaker.state(), breaker.until) {
                    prop_assert!(until <= now + OPEN_MAX * 5 / 4);
                }
            }
            now += OPEN_MAX * 2;
            for _ in 0..PROBES {
                prop_assert_ne!(breaker.admit(now), BreakerState::Open);
                breaker.succeeded();
            }
            prop_assert_eq!(breaker.admit(now), BreakerState::Closed);
        }
    }
}
