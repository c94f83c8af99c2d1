//! How one absolute deadline is divided. Pure: times are durations that the caller measured.
//!
//! A stage gets the smaller of its own budget and what is left once the stages that must still follow have theirs. A
//! client with less time than the pipeline's deadline shrinks the reserves in proportion, so that the first stage
//! cannot eat the time of all others.

use std::time::Duration;

use crate::config::Budgets;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Features,
    Inference,
    Handover,
}

#[derive(Debug, Clone, Copy)]
pub struct Split {
    budgets: Budgets,
    /// Time that this request has, as a share of the pipeline's deadline; at most 1.
    scale: f64,
}

impl Split {
    pub fn new(budgets: Budgets, total: Duration, pipeline_deadline: Duration) -> Self {
        let scale = (total.as_secs_f64() / pipeline_deadline.as_secs_f64().max(1e-6)).clamp(0.0, 1.0);
        Self { budgets, scale }
    }

    /// Most time for `stage` when `left` remains until the deadline. Zero: do not start it.
    pub fn allowance(&self, stage: Stage, left: Duration) -> Duration {
        let b = &self.budgets;
        let (own, reserve) = match stage {
            Stage::Features => (b.features, b.rules + b.inference + b.decision + b.handover),
            Stage::Inference => (b.inference, b.rules + b.decision + b.handover),
            Stage::Handover => (b.handover, b.decision),
        };
        own.min(left.saturating_sub(reserve.mul_f64(self.scale)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn with_the_whole_deadline_every_stage_gets_its_budget() {
        let split = Split::new(Budgets::default(), ms(100), ms(100));
        assert_eq!(split.allowance(Stage::Features, ms(100)), ms(15));
        assert_eq!(split.allowance(Stage::Inference, ms(80)), ms(30));
        assert_eq!(split.allowance(Stage::Handover, ms(40)), ms(5));
    }

    #[test]
    fn a_late_stage_gets_what_is_left_after_the_reserve() {
        let split = Split::new(Budgets::default(), ms(100), ms(100));
        assert_eq!(split.allowance(Stage::Inference, ms(20)), ms(7));
        assert_eq!(split.allowance(Stage::Inference, ms(13)), ms(0));
        assert_eq!(split.allowance(Stage::Handover, ms(2)), ms(0));
    }

    #[test]
    fn a_short_client_deadline_still_leaves_time_for_inference() {
        let split = Split::new(Budgets::default(), ms(20), ms(100));
        let features = split.allowance(Stage::Features, ms(20));
        assert!(features > ms(5) && features < ms(15), "{features:?}");
        let inference = split.allowance(Stage::Inference, ms(20) - features);
        assert!(inference > ms(3), "{inference:?}");
    }

    #[test]
    fn no_stage_starts_when_nothing_is_left() {
        for total in [0, 1, 50, 100] {
            let split = Split::new(Budgets::default(), ms(total), ms(100));
            for stage in [Stage::Features, Stage::Inference, Stage::Handover] {
                assert_eq!(split.allowance(stage, Duration::ZERO), Duration::ZERO);
            }
        }
    }
}
