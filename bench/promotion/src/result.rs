//! The file of results.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::{Value, json};

pub(crate) fn write(path: &Path, cases: Vec<Value>) -> Result<()> {
    let result = json!({"name": "promotion", "machine": machine(), "commit": commit(), "cases": cases});
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, serde_json::to_string_pretty(&result)? + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores")
}

fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    let said = output.ok().filter(|output| output.status.success()).map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    said.unwrap_or_else(|| "unknown".to_owned())
}

/// The value that so many of 1,000 do not exceed. 0 of an empty slice.
pub(crate) fn per_mille(sorted: &[f64], per_mille: usize) -> f64 {
    let rank = sorted.len().saturating_mul(per_mille).div_ceil(1_000).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or(0.0)
}

/// Tenths of a millisecond say enough.
pub(crate) fn round(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((per_mille(&values, 500), per_mille(&values, 990), per_mille(&values, 1_000)), (100.0, 198.0, 200.0));
        assert_eq!(per_mille(&[], 990), 0.0);
        assert_eq!(per_mille(&[7.0], 500), 7.0);
    }
}
