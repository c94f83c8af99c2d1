//! The drill of a region's death, through the real command. Nothing takes over yet (failover comes with issue 7), and that is what it has to say.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{INSTANCE, Run, own_program};
use crate::demo::ready;

const SCENARIO: &str = "region-kill";
/// Of the file and of each run in it. Other programs read them; what was not measured is null.
const KEYS: &[&str] = &["scenario", "commit", "runs", "p50", "p99"];
const RUN_KEYS: &[&str] = &[
    "verdict",
    "rto_s",
    "rto_multi_endpoint_s",
    "phases_s",
    "acknowledged",
    "lost_for_good",
    "late",
    "duplicates",
    "failed_requests",
    "rpo_s",
    "takeover_s",
    "total_s",
    "write_gap_ms",
    "thresholds_raised",
    "thresholds_lowered",
    "invariants_violated",
    "failovers",
    "loss_reported",
    "unanswered",
    "degradation_mismatches",
    "full_again_s",
];

pub(super) fn run(run: &mut Run) -> Result<()> {
    ready::wait(&run.sandbox)?;
    let file = run.place.target.join("drill").join(format!("{SCENARIO}.json"));
    if file.exists() {
        std::fs::remove_file(&file).with_context(|| format!("cannot replace {}", file.display()))?;
    }
    let status = own_program()?
        .args(["sandbox", "--instance", INSTANCE, "drill", SCENARIO, "--runs", "1"])
        .status()
        .context("cannot start the drill")?;
    let ended = if status.code() == Some(1) { Ok(status.to_string()) } else { Err(anyhow::anyhow!("{status}")) };
    run.checks.check("drill: a region that nobody takes over is no success", ended);
    let bytes = std::fs::read(&file).with_context(|| format!("the drill left no {}", file.display()))?;
    let result: Value = serde_json::from_slice(&bytes).with_context(|| format!("{} is no JSON", file.display()))?;
    run.checks.check("drill: its file has the keys that other programs read", keys(&result));
    run.checks.check("drill: the verdict is NotTakenOver, and nothing acknowledged is lost", verdict(&result));
    Ok(())
}

fn keys(result: &Value) -> Result<String> {
    let run = &result["runs"][0];
    let missing = |value: &Value, keys: &[&str]| -> Vec<String> {
        keys.iter().filter(|key| value.get(key).is_none()).map(ToString::to_string).collect()
    };
    let missing = [missing(result, KEYS), missing(run, RUN_KEYS)].concat();
    if !missing.is_empty() {
        bail!("missing: {}", missing.join(", "));
    }
    Ok(format!("{} keys of a run", RUN_KEYS.len()))
}

fn verdict(result: &Value) -> Result<String> {
    let run = &result["runs"][0];
    let (verdict, lost, acknowledged) = (&run["verdict"], &run["lost_for_good"], run["acknowledged"].as_u64());
    ensure!(verdict == "NotTakenOver", "the verdict is {verdict}");
    ensure!(lost == 0, "{lost} lost for good");
    let acknowledged = acknowledged.filter(|count| *count > 0).context("nothing was acknowledged")?;
    Ok(format!(
        "{acknowledged} acknowledged, {} failed, {} unanswered, {} s in all",
        run["failed_requests"], run["unanswered"], run["total_s"]
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_key_is_named_and_a_null_one_is_there() {
        let mut run: Value = RUN_KEYS.iter().map(|key| ((*key).to_string(), Value::Null)).collect::<serde_json::Map<_, _>>().into();
        let file = |run: &Value| json!({"scenario": "s", "commit": "c", "runs": [run], "p50": {}, "p99": {}});
        assert!(keys(&file(&run)).is_ok());
        run.as_object_mut().unwrap().remove("rpo_s");
        assert_eq!(keys(&file(&run)).unwrap_err().to_string(), "missing: rpo_s");
    }

    #[test]
    fn an_empty_ledger_proves_nothing() {
        let file = |acknowledged| json!({"runs": [{"verdict": "NotTakenOver", "lost_for_good": 0, "acknowledged": acknowledged}]});
        assert!(verdict(&file(10)).is_ok());
        assert!(verdict(&file(0)).is_err());
    }
}
