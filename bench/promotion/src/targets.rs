//! What the file of results holds, and what the figures are to reach. Pure.

use bench::report::{CaseContract, Contract};
use bench::target::{Bound, Target};

/// Plain counts have no unit. `worst_run` is the number of the promotion with the longest gap; odd ones lead out of the writer's region, even ones home.
const MOVE_KEYS: &[&str] =
    &["write_gap_max_ms", "lost", "partial_resyncs", "full_resyncs", "promotions", "shards", "worst_run", "writes_acknowledged"];

pub(crate) const PROMOTION: Contract = Contract {
    name: "promotion",
    peers: &[],
    cases: &[
        CaseContract { case: "shards2", keys: MOVE_KEYS },
        CaseContract { case: "shards20", keys: MOVE_KEYS },
        CaseContract { case: "lag", keys: &["p99_ms", "shards"] },
    ],
};

pub(crate) const TARGETS: &[Target] = &[
    at_most("shards2", "write_gap_max_ms", 300.0),
    at_most("shards2", "lost", 0.0),
    at_most("shards2", "full_resyncs", 0.0),
    at_most("shards20", "write_gap_max_ms", 300.0),
    at_most("shards20", "lost", 0.0),
    at_most("shards20", "full_resyncs", 0.0),
    at_most("lag", "p99_ms", 1_000.0),
];

const fn at_most(case: &'static str, key: &'static str, most: f64) -> Target {
    Target { case, key, bound: Bound::AtMost(most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_of_figures_that_every_run_has() {
        for target in TARGETS {
            let case = PROMOTION.cases.iter().find(|case| case.case == target.case);
            assert!(case.is_some_and(|case| case.keys.contains(&target.key)), "{target:?}");
        }
    }
}
