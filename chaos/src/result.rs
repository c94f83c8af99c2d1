//! Results of drills, as files with fixed keys that other programs read. What was not measured is `null`, never 0.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde::{Serialize, Serializer};

/// `target/drill/<scenario>.json`.
#[derive(Debug, Serialize)]
pub struct DrillResult {
    pub scenario: String,
    pub commit: String,
    pub runs: Vec<Run>,
    pub p50: Summary,
    pub p99: Summary,
}

/// How a drill ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Another region took over, and every objective was met.
    Passed,
    /// No other region took over while the fault lasted.
    NotTakenOver,
    /// Another region took over, and an objective was missed.
    ObjectiveMissed,
}

#[derive(Debug, Clone, Serialize)]
pub struct Run {
    pub verdict: Verdict,
    /// Last good answer before the fault to the first good one after it.
    pub rto_s: Option<f64>,
    /// Fault to the first plan with a higher epoch in a surviving region.
    pub takeover_s: Option<f64>,
    pub acknowledged: u64,
    pub lost_for_good: u64,
    pub duplicates: u64,
    pub failed_requests: u64,
    pub unanswered: u64,
    /// Changes of the active region that the surviving regions committed.
    pub failovers: u64,
    /// From the start of the run to its end, repair included.
    pub total_s: f64,
    #[serde(flatten)]
    pub not_measured: NotMeasured,
}

/// Keys that the file has and that no drill measures yet.
const NOT_MEASURED: [&str; 11] = [
    "rto_multi_endpoint_s",
    "phases_s",
    "late",
    "rpo_s",
    "write_gap_ms",
    "thresholds_raised",
    "thresholds_lowered",
    "invariants_violated",
    "loss_reported",
    "degradation_mismatches",
    "full_again_s",
];

/// Is written as `null` under each of these keys.
#[derive(Debug, Clone, Copy, Default)]
pub struct NotMeasured;

impl Serialize for NotMeasured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(NOT_MEASURED.map(|key| (key, ())))
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub rto_s: Option<f64>,
    pub takeover_s: Option<f64>,
}

impl DrillResult {
    pub fn of(scenario: &str, runs: Vec<Run>) -> Self {
        let summary = |share| Summary {
            rto_s: quantile(runs.iter().filter_map(|run| run.rto_s), share),
            takeover_s: quantile(runs.iter().filter_map(|run| run.takeover_s), share),
        };
        Self { scenario: scenario.to_owned(), commit: commit(), p50: summary(0.5), p99: summary(0.99), runs }
    }

    pub fn passed(&self) -> bool {
        !self.runs.is_empty() && self.runs.iter().all(|run| run.verdict == Verdict::Passed)
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let path = folder.join(format!("{}.json", self.scenario));
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n").with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// The smallest value that at least `share` of the values do not exceed (nearest rank).
fn quantile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a rank between 0 and the number of values
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let text = output.ok().filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(verdict: Verdict, rto_s: Option<f64>) -> Run {
        Run {
            verdict,
            rto_s,
            takeover_s: None,
            acknowledged: 1,
            lost_for_good: 0,
            duplicates: 0,
            failed_requests: 0,
            unanswered: 0,
            failovers: 0,
            total_s: 1.0,
            not_measured: NotMeasured,
        }
    }

    #[test]
    fn what_was_not_measured_is_null_and_no_drill_without_runs_passes() {
        let result = DrillResult::of("region-kill", vec![run(Verdict::NotTakenOver, None)]);
        assert!(!result.passed());
        let json = serde_json::to_value(&result).unwrap();
        assert!(json["p50"]["rto_s"].is_null() && json["runs"][0]["takeover_s"].is_null());
        assert_eq!(json["runs"][0].get("rpo_s"), Some(&serde_json::Value::Null));
        assert!(!DrillResult::of("region-kill", vec![]).passed());
    }

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(quantile(values.into_iter(), 0.5), Some(2.0));
        assert_eq!(quantile(values.into_iter(), 0.99), Some(4.0));
        assert_eq!(quantile([].into_iter(), 0.5), None);
    }
}
