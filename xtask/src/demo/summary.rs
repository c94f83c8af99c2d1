//! What a demo measured, with the keys that other programs read, and the criteria it is judged by. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) const REGIONS: usize = 3;
const DECISIONS_PER_S_MIN: f64 = 200.0;
const LATENCY_P99_MS_MAX: f64 = 100.0;
const FULL_SHARE_MIN: f64 = 0.95;
const FEATURE_LAG_S_MAX: f64 = 1.0;
const RECALL_MIN: f64 = 0.4;
const FALSE_POSITIVE_RATE_MAX: f64 = 0.01;
const RECALL_OVER_AMOUNT_ONLY_MIN: f64 = 2.0;
/// To the first decision when tools had to be built, and when they were there.
const FIRST_RUN_S_MAX: f64 = 35.0 * 60.0;
const LATER_RUN_S_MAX: f64 = 3.0 * 60.0;

/// `target/demo/summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    pub(crate) regions_ready: usize,
    pub(crate) decisions: u64,
    pub(crate) decisions_per_s: f64,
    pub(crate) errors: u64,
    pub(crate) unanswered: u64,
    pub(crate) latency_ms: Latency,
    /// Of the decisions of the full tier, how many had fresh features and the model's score.
    pub(crate) full_share: f64,
    pub(crate) quality: Quality,
    /// By `origin->region`.
    pub(crate) mirror: BTreeMap<String, Mirrored>,
    /// By region that follows.
    pub(crate) feature_lag_s: BTreeMap<String, f64>,
    pub(crate) seconds_to_first_decision: f64,
    pub(crate) commit: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Quality {
    pub(crate) recall: f64,
    pub(crate) false_positive_rate: f64,
    pub(crate) amount_only_recall: f64,
}

/// Distinct transaction ids in the log of the origin and in its mirror.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mirrored {
    pub(crate) produced: u64,
    pub(crate) mirrored: u64,
}

/// One sentence that holds or does not, with the number that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Criterion {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) holds: bool,
    /// Whether the number depends on what else the machine has to do.
    pub(crate) is_about_speed: bool,
}

impl Criterion {
    pub(crate) fn line(&self) -> String {
        format!("{}  {}: {}", if self.holds { "ok    " } else { "FAILED" }, self.name, self.value)
    }

    /// As a measurement, without a verdict.
    pub(crate) fn note(&self) -> String {
        format!("note    {}: {}", self.name, self.value)
    }

    fn about_speed(self) -> Self {
        Self { is_about_speed: true, ..self }
    }
}

/// Everything that must hold for a demo to end well. `first_run`: tools or images had to be built.
pub(crate) fn criteria(summary: &Summary, first_run: bool) -> Vec<Criterion> {
    let check = |name: String, value: String, holds: bool| Criterion { name, value, holds, is_about_speed: false };
    let start_s_max = if first_run { FIRST_RUN_S_MAX } else { LATER_RUN_S_MAX };
    let quality = summary.quality;
    let mut all = vec![
        check(format!("{REGIONS} regions Ready"), summary.regions_ready.to_string(), summary.regions_ready == REGIONS),
        check(
            format!("at least {DECISIONS_PER_S_MIN} decisions/s"),
            format!("{:.1}", summary.decisions_per_s),
            summary.decisions > 0 && summary.decisions_per_s >= DECISIONS_PER_S_MIN,
        ),
        check("no errors".to_string(), summary.errors.to_string(), summary.errors == 0),
        check("no request unanswered".to_string(), summary.unanswered.to_string(), summary.unanswered == 0),
        check(
            format!("p99 below {LATENCY_P99_MS_MAX} ms"),
            format!("{:.1} ms", summary.latency_ms.p99),
            summary.latency_ms.p99 < LATENCY_P99_MS_MAX,
        )
        .about_speed(),
        check(
            format!("at least {:.0} % of full-tier decisions with fresh features and inference", FULL_SHARE_MIN * 100.0),
            format!("{:.2} %", summary.full_share * 100.0),
            summary.full_share >= FULL_SHARE_MIN,
        )
        .about_speed(),
        check(format!("recall above {RECALL_MIN}"), format!("{:.3}", quality.recall), quality.recall > RECALL_MIN),
        check(
            format!("false positives below {:.0} %", FALSE_POSITIVE_RATE_MAX * 100.0),
            format!("{:.3} %", quality.false_positive_rate * 100.0),
            quality.false_positive_rate < FALSE_POSITIVE_RATE_MAX,
        ),
        check(
            format!("at least {RECALL_OVER_AMOUNT_ONLY_MIN} times the recall of the amount alone"),
            format!("{:.3} and {:.3}", quality.recall, quality.amount_only_recall),
            quality.recall >= RECALL_OVER_AMOUNT_ONLY_MIN * quality.amount_only_recall,
        ),
        check(
            format!("first decision within {start_s_max:.0} s"),
            format!("{:.0} s", summary.seconds_to_first_decision),
            summary.seconds_to_first_decision < start_s_max,
        )
        .about_speed(),
    ];
    all.extend(feature_lag(summary));
    all.extend(mirrors(summary));
    all
}

/// A region whose lag is not known has not been shown to follow, so the count of regions is a criterion too.
fn feature_lag(summary: &Summary) -> Vec<Criterion> {
    let known = summary.feature_lag_s.len();
    let mut all = vec![Criterion {
        name: "feature lag known in every following region".to_string(),
        value: known.to_string(),
        holds: known == REGIONS - 1,
        is_about_speed: false,
    }];
    all.extend(summary.feature_lag_s.iter().map(|(region, lag_s)| Criterion {
        name: format!("feature lag of {region} below {FEATURE_LAG_S_MAX} s"),
        value: format!("{lag_s:.3} s"),
        holds: *lag_s < FEATURE_LAG_S_MAX,
        is_about_speed: true,
    }));
    all
}

fn mirrors(summary: &Summary) -> Vec<Criterion> {
    let expected = REGIONS * (REGIONS - 1);
    let known = summary.mirror.len();
    let produced: u64 = summary.mirror.values().map(|mirror| mirror.produced).sum();
    let mut all = vec![
        Criterion {
            name: "every mirror was audited".to_string(),
            value: format!("{known} of {expected}"),
            holds: known == expected,
            is_about_speed: false,
        },
        Criterion { name: "something was mirrored".to_string(), value: produced.to_string(), holds: produced > 0, is_about_speed: false },
    ];
    all.extend(summary.mirror.iter().map(|(pair, mirror)| Criterion {
        name: format!("mirror {pair} holds what was produced"),
        value: format!("{} of {}", mirror.mirrored, mirror.produced),
        holds: mirror.mirrored == mirror.produced,
        is_about_speed: false,
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Summary {
        let regions = ["us-east", "eu-west", "ap-south"];
        let pairs = regions.iter().flat_map(|from| regions.iter().filter(move |to| *to != from).map(move |to| (from, to)));
        let produced = |from: &str| if from == "us-east" { 30_000 } else { 0 };
        Summary {
            regions_ready: 3,
            decisions: 30_000,
            decisions_per_s: 249.8,
            errors: 0,
            unanswered: 0,
            latency_ms: Latency { p50: 6.0, p99: 31.0 },
            full_share: 0.99,
            quality: Quality { recall: 0.55, false_positive_rate: 0.008, amount_only_recall: 0.2 },
            mirror: pairs
                .map(|(from, to)| (format!("{from}->{to}"), Mirrored { produced: produced(from), mirrored: produced(from) }))
                .collect(),
            feature_lag_s: [("eu-west".to_string(), 0.2), ("ap-south".to_string(), 0.3)].into(),
            seconds_to_first_decision: 95.0,
            commit: "0123456".to_string(),
        }
    }

    #[test]
    fn a_good_demo_meets_every_criterion() {
        let failed: Vec<Criterion> = criteria(&good(), false).into_iter().filter(|criterion| !criterion.holds).collect();
        assert_eq!(failed, []);
    }

    #[test]
    fn every_number_can_fail_the_demo() {
        let edits: &[fn(&mut Summary)] = &[
            |s| s.regions_ready = 2,
            |s| s.decisions_per_s = 199.9,
            |s| s.decisions = 0,
            |s| s.errors = 1,
            |s| s.unanswered = 1,
            |s| s.latency_ms.p99 = 100.0,
            |s| s.full_share = 0.949,
            |s| s.quality.recall = 0.4,
            |s| s.quality.false_positive_rate = 0.01,
            |s| s.quality.amount_only_recall = 0.3,
            |s| s.seconds_to_first_decision = 181.0,
            |s| s.feature_lag_s.clear(),
            |s| *s.feature_lag_s.get_mut("eu-west").unwrap() = 1.0,
            |s| s.mirror.get_mut("us-east->eu-west").unwrap().mirrored -= 1,
            |s| s.mirror.retain(|pair, _| pair != "eu-west->us-east"),
            |s| s.mirror.values_mut().for_each(|mirror| *mirror = Mirrored { produced: 0, mirrored: 0 }),
        ];
        for (index, edit) in edits.iter().enumerate() {
            let mut summary = good();
            edit(&mut summary);
            assert!(criteria(&summary, false).iter().any(|criterion| !criterion.holds), "edit {index} fails nothing");
        }
    }

    #[test]
    fn numbers_that_are_not_numbers_fail() {
        let mut summary = good();
        summary.latency_ms.p99 = f64::NAN;
        summary.quality.recall = f64::NAN;
        assert!(criteria(&summary, false).iter().filter(|criterion| !criterion.holds).count() >= 2);
    }

    #[test]
    fn the_first_run_may_take_longer() {
        let mut summary = good();
        summary.seconds_to_first_decision = 1500.0;
        assert!(criteria(&summary, true).iter().all(|criterion| criterion.holds));
    }

    #[test]
    fn the_keys_are_those_that_other_programs_read() {
        let value = serde_json::to_value(good()).unwrap();
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = [
            "regions_ready",
            "decisions",
            "decisions_per_s",
            "errors",
            "unanswered",
            "latency_ms",
            "full_share",
            "quality",
            "mirror",
            "feature_lag_s",
            "seconds_to_first_decision",
            "commit",
        ];
        expected.sort_unstable();
        let mut keys = keys;
        keys.sort_unstable();
        assert_eq!(keys, expected);
        assert_eq!(value["mirror"]["us-east->eu-west"]["produced"], 30_000);
    }
}
