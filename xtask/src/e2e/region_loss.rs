//! A power cut in the active region: the other clusters do not notice it, and after the heal all is as before.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::cluster::{self, Pod};
use super::{Run, all_answered, whole_stream};
use crate::demo::regions::{Region, Sandbox};
use crate::demo::stream::Files;
use crate::demo::{conclude, ready};
use crate::progress;

const OUTAGE: Duration = Duration::from_secs(25);
const RATE: u32 = 10;
const RATE_AFTERWARDS: u32 = 50;

pub(super) fn run(run: &mut Run) -> Result<()> {
    let active = ready::wait(&run.sandbox)?;
    let active = run.sandbox.region(&active)?.clone();
    let others: Vec<Region> = run.sandbox.description.regions.iter().filter(|region| region.name != active.name).cloned().collect();
    let before = others.iter().map(|region| Seen::now(&run.sandbox, region)).collect::<Result<Vec<_>>>()?;

    let killed = Instant::now();
    progress::output(&mut run.sandbox.verb(&["kill", &active.name]))?;
    let mut ledgers = during(run, &others)?;
    std::thread::sleep(OUTAGE.saturating_sub(killed.elapsed()));
    for (region, before) in others.iter().zip(&before) {
        let pods = Seen::now(&run.sandbox, region).and_then(|now| before.compare(&now));
        run.checks.check(&format!("{}: no pod was lost while {} was dead", region.name, active.name), pods);
    }

    let healing = Instant::now();
    progress::output(&mut run.sandbox.verb(&["heal", &active.name]))?;
    let is_ready = ready::wait(&run.sandbox).map(|region| format!("after {}; {region} is active", progress::seconds(healing.elapsed())));
    run.checks.check(&format!("heal brings {} back to Ready", active.name), is_ready);
    for (region, before) in others.iter().zip(&before) {
        let pods = Seen::now(&run.sandbox, region).and_then(|now| before.compare(&now));
        run.checks.check(&format!("{}: no pod was lost by the heal", region.name), pods);
    }
    let (stream, files) = run.stream("after-heal", &active, RATE_AFTERWARDS, Duration::from_secs(10))?;
    run.checks.check(&format!("{}: payments are decided after the heal", active.name), all_answered(&whole_stream(stream)?));
    ledgers.push(files);
    audit(run, &ledgers)
}

/// Real payments to the regions that live.
fn during(run: &mut Run, others: &[Region]) -> Result<Vec<Files>> {
    let mut streams = Vec::new();
    for region in others {
        streams.push(run.stream(&format!("outage-{}", region.name), region, RATE, OUTAGE)?);
    }
    let mut ledgers = Vec::new();
    for (region, (stream, files)) in others.iter().zip(streams) {
        let answered = whole_stream(stream).and_then(|ended| all_answered(&ended));
        run.checks.check(&format!("{}: the decision service goes on answering", region.name), answered);
        ledgers.push(files);
    }
    Ok(ledgers)
}

/// Everything that any of the streams was told is accepted.
fn audit(run: &mut Run, ledgers: &[Files]) -> Result<()> {
    let mut text = String::new();
    for files in ledgers {
        text.push_str(&std::fs::read_to_string(&files.ledger).with_context(|| format!("cannot read {}", files.ledger.display()))?);
    }
    let all = Files { summary: run.folder.join("loss-audit.json"), ledger: run.folder.join("loss-ledger.jsonl") };
    std::fs::write(&all.ledger, text).with_context(|| format!("cannot write {}", all.ledger.display()))?;
    let audit = conclude::audit(&run.sandbox, &all, &all.summary)?;
    conclude::audit_criteria(&audit).iter().for_each(|criterion| run.checks.criterion(criterion));
    Ok(())
}

/// A cluster's pods, and how many of each component its autoscalers want.
struct Seen {
    pods: BTreeMap<String, Pod>,
    wanted: BTreeMap<String, u64>,
}

impl Seen {
    fn now(sandbox: &Sandbox, region: &Region) -> Result<Self> {
        let scalers = cluster::labelled(sandbox, region, &["horizontalpodautoscalers.autoscaling"])?;
        Ok(Self { pods: cluster::pods(sandbox, region)?, wanted: scalers.iter().map(wanted).collect() })
    }

    /// Pods that an autoscaler wants no longer are not lost.
    fn compare(&self, now: &Self) -> Result<String> {
        let gone: Vec<(&String, &Pod)> = self.pods.iter().filter(|(name, pod)| now.pods.get(*name) != Some(pod)).collect();
        let mut surplus: BTreeMap<&str, u64> = BTreeMap::new();
        for (component, before) in &self.wanted {
            surplus.insert(component, before.saturating_sub(now.wanted.get(component).copied().unwrap_or_default()));
        }
        let mut lost = Vec::new();
        for (name, pod) in &gone {
            match surplus.get_mut(pod.component.as_str()) {
                Some(left) if *left > 0 && !now.pods.contains_key(*name) => *left -= 1,
                _ => lost.push(name.as_str()),
            }
        }
        ensure!(lost.is_empty(), "gone or started again: {}", lost.join(", "));
        let scaled_in = if gone.is_empty() { String::new() } else { format!(", {} scaled in", gone.len()) };
        Ok(format!("{} pods, the same and not restarted{scaled_in}", self.pods.len() - gone.len()))
    }
}

fn wanted(scaler: &Value) -> (String, u64) {
    let component = scaler["metadata"]["labels"]["app.kubernetes.io/component"].as_str().unwrap_or_default();
    (component.to_string(), scaler["status"]["desiredReplicas"].as_u64().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pods: &[(&str, u64)], decisions_wanted: u64) -> Seen {
        let pod = |restarts| Pod { uid: "u".to_string(), restarts, component: "decision".to_string() };
        let pods = pods.iter().map(|(name, restarts)| ((*name).to_string(), pod(*restarts))).collect();
        Seen { pods, wanted: [("decision".to_string(), decisions_wanted)].into() }
    }

    #[test]
    fn a_pod_that_is_gone_or_restarted_is_lost_unless_an_autoscaler_gave_it_up() {
        let before = seen(&[("d-0", 0), ("d-1", 0)], 2);
        assert!(before.compare(&seen(&[("d-0", 0), ("d-1", 0), ("d-2", 0)], 3)).is_ok());
        assert!(before.compare(&seen(&[("d-0", 0), ("d-1", 1)], 2)).is_err());
        assert!(before.compare(&seen(&[("d-0", 0)], 2)).is_err());
        assert!(before.compare(&seen(&[("d-0", 0)], 1)).unwrap().ends_with("1 scaled in"));
        assert!(before.compare(&seen(&[], 1)).is_err());
        assert!(before.compare(&seen(&[("d-0", 0), ("d-1", 1)], 1)).is_err(), "a restart is no scaling");
    }
}
