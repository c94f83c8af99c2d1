//! When a question is late enough to be asked elsewhere too, and how often that may be done. Pure.

use std::time::Duration;

/// Of so many answers one is slow: 2 %.
const ONE_IN: f64 = 50.0;
/// By how much the threshold moves at most: it follows the last few hundred answers.
const STEP: f64 = 0.05;
/// So many answers make a threshold that means something.
const ANSWERS_MIN: u32 = 200;
/// A timer does not fire earlier.
const THRESHOLD_MIN: Duration = Duration::from_millis(1);

/// A running estimate of how long all but the slowest 2 % take: each answer moves it a little, slower ones 49 times as far up
/// as faster ones down, so that it stands still where 2 % are slower.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlowAnswers {
    seconds: f64,
    answers: u32,
}

impl SlowAnswers {
    pub(crate) fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.answers = self.answers.saturating_add(1);
        self.seconds = if self.answers == 1 {
            took
        } else if took > self.seconds {
            // Not farther than there, so that one pause is no new normal.
            (self.seconds * (1.0 + STEP * (1.0 - 1.0 / ONE_IN)) + 1e-7).min(took)
        } else {
            self.seconds * (1.0 - STEP / ONE_IN)
        };
    }

    /// `None` until enough is known.
    pub(crate) fn threshold(&self) -> Option<Duration> {
        (self.answers >= ANSWERS_MIN).then(|| Duration::from_secs_f64(self.seconds).max(THRESHOLD_MIN))
    }
}

/// What one hedge costs, in requests: at most 2 % of them are hedged.
const COST: u32 = 50;
/// So many hedges may come at once after a quiet time.
const SAVED_MAX: u32 = 10 * COST;

/// Requests that have not been spent on a hedge yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct HedgeBudget {
    saved: u32,
}

impl HedgeBudget {
    pub(crate) fn note_request(&mut self) {
        self.saved = (self.saved + 1).min(SAVED_MAX);
    }

    pub(crate) fn take(&mut self) -> bool {
        let enough = self.saved >= COST;
        self.saved -= if enough { COST } else { 0 };
        enough
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::TestRng};

    use super::*;

    /// How much of what follows is slower than the threshold, once that has settled.
    fn share_slower(mut took: impl FnMut() -> Duration) -> f64 {
        let mut slow = SlowAnswers::default();
        (0..20_000).for_each(|_| slow.note(took()));
        let slower = (0..20_000).filter(|_| {
            let took = took();
            let slower = took.as_secs_f64() > slow.seconds;
            slow.note(took);
            slower
        });
        slower.count() as f64 / 20_000.0
    }

    #[test]
    fn about_two_percent_are_slower_than_the_threshold_whatever_their_distribution() {
        let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
        let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        let even = share_slower(|| Duration::from_secs_f64(0.001 + 0.009 * uniform()));
        let mut rng = TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha);
        let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        let long_tailed = share_slower(|| Duration::from_secs_f64(0.0003 / (1.0 - uniform()).max(1e-3)));
        for share in [even, long_tailed] {
            assert!((0.01..0.03).contains(&share), "{share}");
        }
    }

    #[test]
    fn a_shard_that_becomes_slow_as_a_whole_gets_another_threshold() {
        let mut slow = SlowAnswers::default();
        assert_eq!(slow.threshold(), None);
        (0..1_000).for_each(|_| slow.note(Duration::from_micros(400)));
        assert_eq!(slow.threshold(), Some(THRESHOLD_MIN));
        (0..1_000).for_each(|_| slow.note(Duration::from_millis(9)));
        assert!(slow.threshold().unwrap() > Duration::from_millis(8));
        slow.note(Duration::from_secs(9));
        assert!(slow.threshold().unwrap() < Duration::from_millis(12));
    }

    proptest! {
        #[test]
        fn never_more_than_one_hedge_in_fifty_requests(steps in prop::collection::vec(any::<bool>(), 0..3_000)) {
            let mut budget = HedgeBudget::default();
            let (mut requests, mut hedges) = (0_u32, 0_u32);
            for ask in steps {
                if ask {
                    requests += 1;
                    budget.note_request();
                } else {
                    hedges += u32::from(budget.take());
                }
                prop_assert!(hedges * COST <= requests);
            }
        }
    }
}
