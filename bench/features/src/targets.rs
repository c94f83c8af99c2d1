//! What the figures are to reach. Pure.

use bench::target::{Bound, Target};

/// Where the machine itself adds much to every latency, so does it to the slowest decisions.
const P99_MS: Bound = Bound::AtMostWhere { key: "ping_p99_ms", below: 0.2, then: 2.0, otherwise: 5.0 };

pub const TARGETS: &[Target] = &[
    at_most("keys20", "p50_ms", 0.5),
    Target { case: "keys20", key: "p99_ms", bound: P99_MS },
    at_most("keys20", "redis_cpu_us_per_entity", 20.0),
    at_most("keys20", "bytes_per_event", 45.0),
    at_most("keys20", "bytes_per_key_at_one", 200.0),
    at_most("keys500", "p50_ms", 0.5),
    Target { case: "keys500", key: "p99_ms", bound: P99_MS },
    at_most("keys500", "redis_cpu_us_per_entity", 25.0),
    at_most("keys500", "bytes_per_event", 45.0),
    at_most("keys500", "bytes_per_key_at_one", 200.0),
    at_most("burst", "bursts_missed", 0.0),
    Target { case: "builder", key: "events_per_cpu_s", bound: Bound::AtLeast(50_000.0) },
    Target { case: "builder", key: "catch_up_ratio", bound: Bound::AtLeast(5.0) },
    at_most("builder", "events_lost", 0.0),
    at_most("builder", "events_double", 0.0),
];

const fn at_most(case: &'static str, key: &'static str, most: f64) -> Target {
    Target { case, key, bound: Bound::AtMost(most) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::FEATURES;

    #[test]
    fn targets_are_of_figures_that_every_run_has() {
        for target in TARGETS {
            let case = FEATURES.cases.iter().find(|case| case.case == target.case);
            assert!(case.is_some_and(|case| case.keys.contains(&target.key)), "{target:?}");
        }
    }
}
