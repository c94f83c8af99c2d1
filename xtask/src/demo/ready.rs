//! Waits until the pipeline is Ready in every region, and says meanwhile what it waits for: the operator's own words, from the conditions.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::regions::Sandbox;
use crate::{interrupt, progress};

const READY_MAX: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_secs(1);

/// What a FraudPipeline's status says, as far as the demo shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) ready: bool,
    pub(crate) active_region: Option<String>,
    pub(crate) epoch: Option<u64>,
    pub(crate) phase: Option<String>,
    /// Reason and message of the conditions that keep it from being Ready.
    pub(crate) why_not: String,
}

impl Seen {
    pub(crate) fn of(pipeline: &Value) -> Self {
        let status = &pipeline["status"];
        let text = |field: &str| status[field].as_str().map(str::to_string);
        // A condition about an older generation says nothing about what was applied last.
        let current = status["observedGeneration"].as_u64() == pipeline["metadata"]["generation"].as_u64();
        let ready = current && condition(status, "Ready").is_some_and(|condition| condition["status"] == "True");
        let why_not = if ready { String::new() } else { why_not(status, current) };
        Self { ready, active_region: text("activeRegion"), epoch: status["epoch"].as_u64(), phase: text("phase"), why_not }
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

fn why_not(status: &Value, current: bool) -> String {
    if !current {
        return "the operator has not looked at it yet".to_string();
    }
    let said = ["Accepted", "Ready"].iter().filter_map(|kind| condition(status, kind)).find(|condition| condition["status"] != "True");
    match said {
        Some(condition) => {
            let text = |field: &str| condition[field].as_str().unwrap_or("").to_string();
            format!("{}: {}", text("reason"), text("message"))
        }
        None => "the operator has not reported yet".to_string(),
    }
}

/// Returns the active region, which all regions agree on.
pub(crate) fn wait(sandbox: &Sandbox) -> Result<String> {
    let deadline = Instant::now() + READY_MAX;
    let mut shown = String::new();
    loop {
        interrupt::check()?;
        let seen = look(sandbox);
        let active: Vec<&Option<String>> = seen.iter().map(|(_, seen)| &seen.active_region).collect();
        let agreed = active.windows(2).all(|pair| pair[0] == pair[1]);
        if let Some(Some(region)) = active.first().filter(|_| agreed && seen.iter().all(|(_, seen)| seen.ready)) {
            progress::note(&format!("Ready in all regions; {region} is active"));
            return Ok(region.clone());
        }
        let text = waiting_for(&seen);
        if text != shown {
            progress::note(&text);
            shown = text;
        }
        if Instant::now() >= deadline {
            bail!(
                "not Ready in every region after {}: {shown}\nLook with `cargo xtask sandbox kubectl REGION -n fraud get pods`",
                progress::seconds(READY_MAX)
            );
        }
        std::thread::sleep(POLL);
    }
}

/// What every region says now; a cluster that does not answer says so in its own words.
pub(crate) fn look(sandbox: &Sandbox) -> Vec<(String, Seen)> {
    let regions = &sandbox.description.regions;
    let look_at = |region| match sandbox.pipeline(region) {
        Ok(pipeline) => Seen::of(&pipeline),
        Err(error) => Seen { why_not: format!("{error:#}").lines().last().unwrap_or_default().to_string(), ..Seen::default() },
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = regions.iter().map(|region| (region, scope.spawn(move || look_at(region)))).collect();
        threads.into_iter().map(|(region, thread)| (region.name.clone(), thread.join().unwrap_or_default())).collect()
    })
}

fn waiting_for(seen: &[(String, Seen)]) -> String {
    let waiting: Vec<String> =
        seen.iter().filter(|(_, seen)| !seen.ready).map(|(region, seen)| format!("{region}: {}", seen.why_not)).collect();
    if waiting.is_empty() { "the regions do not agree yet on who is active".to_string() } else { waiting.join("; ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pipeline(generation: u64, ready: &str, reason: &str) -> Value {
        json!({
            "metadata": {"generation": generation},
            "status": {
                "observedGeneration": 2, "activeRegion": "us-east", "epoch": 1, "phase": "Active",
                "conditions": [
                    {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
                    {"type": "Ready", "status": ready, "reason": reason, "message": "1 of 2 shards"},
                ],
            },
        })
    }

    #[test]
    fn a_region_is_ready_only_for_what_was_applied_last() {
        let seen = Seen::of(&pipeline(2, "True", "Ready"));
        assert_eq!((seen.ready, seen.active_region.as_deref(), seen.epoch), (true, Some("us-east"), Some(1)));
        assert!(!Seen::of(&pipeline(3, "True", "Ready")).ready);
        assert!(!Seen::of(&json!({"metadata": {"generation": 1}})).ready);
    }

    #[test]
    fn waiting_is_explained_in_the_operators_words() {
        let seen = [
            ("us-east".to_string(), Seen::of(&pipeline(2, "False", "ShardsNotReady"))),
            ("eu-west".to_string(), Seen::of(&pipeline(2, "True", "Ready"))),
        ];
        assert_eq!(waiting_for(&seen), "us-east: ShardsNotReady: 1 of 2 shards");
    }
}
