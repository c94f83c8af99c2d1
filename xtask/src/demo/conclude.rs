//! The end of a demo: the logs of all regions are audited, everything measured is put together, and judged.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::ready;
use super::regions::Sandbox;
use super::stream::{Ended, Files};
use super::summary::{Criterion, Latency, Mirrored, Quality, Summary};
use crate::progress;

/// What the auditor writes: a report about events, and one about decisions.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Audit {
    events: Report,
    decisions: Report,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Report {
    mirror: BTreeMap<String, Mirrored>,
    /// Whether the logs of every region, its own and the mirrored ones, hold the same transaction ids.
    equal: bool,
    acknowledged: u64,
    lost_for_good: u64,
}

/// Reads the logs of all regions with a program that knows nothing of the pipeline but its topics. It waits for the mirrors itself.
pub(crate) fn audit(sandbox: &Sandbox, files: &Files, out: &Path) -> Result<Audit> {
    let place = sandbox.place;
    let mut command = place.unprivileged(place.binary("fraud-chaos"));
    command.arg("audit");
    for region in &sandbox.description.regions {
        command.args(["--region", &format!("{}={}", region.name, region.kafka)]);
    }
    command.arg("--ledger").arg(&files.ledger).arg("--out").arg(out);
    if out.exists() {
        std::fs::remove_file(out).with_context(|| format!("cannot replace {}", out.display()))?;
    }
    // It fails when the logs differ; the report says so too, and by how much, so the exit code says nothing more.
    let status = command.status().context("cannot start fraud-chaos")?;
    let bytes = std::fs::read(out).with_context(|| format!("fraud-chaos left no {} ({status}); its message is above", out.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not what fraud-chaos should write", out.display()))
}

/// `start_s`: from the beginning of the demo to the start of the stream.
pub(crate) fn summarize(sandbox: &Sandbox, ended: &Ended, audit: &Audit, feature_lag_s: BTreeMap<String, f64>, start_s: f64) -> Summary {
    let regions_ready = ready::look(sandbox).iter().filter(|(_, seen)| seen.ready).count();
    // A number that nobody could measure is no zero: it is not a number, and fails its criterion.
    let known = |value: Option<f64>| value.unwrap_or(f64::NAN);
    Summary {
        regions_ready,
        decisions: ended.decisions,
        decisions_per_s: ended.decisions_per_s,
        errors: ended.errors,
        unanswered: ended.unanswered,
        latency_ms: Latency { p50: ended.latency_ms.p50, p99: ended.latency_ms.p99 },
        full_share: known(ended.full_share),
        quality: Quality {
            recall: known(ended.quality.and_then(|quality| quality.recall)),
            false_positive_rate: known(ended.quality.and_then(|quality| quality.false_positive_rate)),
            amount_only_recall: known(ended.quality.and_then(|quality| quality.amount_only_recall)),
        },
        mirror: audit.events.mirror.clone(),
        feature_lag_s,
        seconds_to_first_decision: start_s + known(ended.seconds_to_first_decision),
        commit: commit(sandbox),
    }
}

/// What the audit says beyond the counts that stand in the summary.
pub(crate) fn audit_criteria(audit: &Audit) -> Vec<Criterion> {
    let equal = |name: &str, report: &Report| Criterion {
        name: format!("the logs of all regions hold the same {name}"),
        value: if report.equal { "equal" } else { "different" }.to_string(),
        holds: report.equal,
        is_about_speed: false,
    };
    vec![
        equal("events", &audit.events),
        equal("decisions", &audit.decisions),
        Criterion {
            name: "no acknowledged payment is missing".to_string(),
            value: format!("{} of {} missing", audit.events.lost_for_good, audit.events.acknowledged),
            holds: audit.events.lost_for_good == 0 && audit.events.acknowledged > 0,
            is_about_speed: false,
        },
    ]
}

fn commit(sandbox: &Sandbox) -> String {
    let mut command = sandbox.place.unprivileged("git");
    command.args(["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]);
    progress::output(&mut command).map_or_else(|_| "unknown".to_string(), |said| said.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(equal: bool, lost_for_good: u64) -> Report {
        Report { mirror: BTreeMap::new(), equal, acknowledged: 10, lost_for_good }
    }

    #[test]
    fn logs_that_differ_and_lost_payments_fail_the_demo() {
        let failed = |audit: &Audit| audit_criteria(audit).iter().filter(|criterion| !criterion.holds).count();
        assert_eq!(failed(&Audit { events: report(true, 0), decisions: report(true, 0) }), 0);
        assert_eq!(failed(&Audit { events: report(false, 0), decisions: report(true, 0) }), 1);
        assert_eq!(failed(&Audit { events: report(true, 1), decisions: report(false, 0) }), 2);
    }

    #[test]
    fn the_auditors_file_is_read_by_its_keys() {
        let report = r#"{"mirror": {"a->b": {"produced": 2, "mirrored": 1}}, "distinct": {}, "equal": false, "acknowledged": 2, "lost_for_good": 1}"#;
        let audit: Audit = serde_json::from_str(&format!(r#"{{"events": {report}, "decisions": {report}}}"#)).unwrap();
        assert_eq!(audit.events.mirror["a->b"], Mirrored { produced: 2, mirrored: 1 });
    }
}
