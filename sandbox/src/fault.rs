//! Faults of processes and links: what a target's name means, and the holds that a region's supervisor carries out. IO on the
//! folder of holds; the parsing is pure.
//!
//! A hold is a file, so a fault outlasts the command that asked for it and a supervisor that dies, and ends by itself when it has
//! an end.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::instance::{Region, private_folder, read_json, write_json};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Hold {
    /// Killed, and not started again.
    Kill,
    Pause,
    /// Gets only what is left of the machine's time after this share is taken away.
    Slow {
        percent: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HoldFile {
    pub hold: Hold,
    until_unix_ms: Option<u64>,
    /// Of a pod; nothing for a process of the region itself.
    pub cgroup: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Process {
        region: String,
        process: String,
    },
    Pod {
        region: String,
        namespace: String,
        pod: String,
    },
    /// Directed links.
    Links(Vec<(String, String)>),
}

/// `us-east/kafka`, `us-east/pod/NAMESPACE/NAME`, `us-east->eu-west` or `us-east<->eu-west`.
pub(crate) fn parse_target(text: &str) -> Result<Target> {
    let target = if let Some((from, to)) = text.split_once("<->") {
        Target::Links(crate::wan::directions(from, to, false))
    } else if let Some((from, to)) = text.split_once("->") {
        Target::Links(crate::wan::directions(from, to, true))
    } else {
        match text.split('/').collect::<Vec<_>>().as_slice() {
            [region, process] => Target::Process { region: (*region).to_owned(), process: (*process).to_owned() },
            [region, "pod", namespace, pod] => {
                Target::Pod { region: (*region).to_owned(), namespace: (*namespace).to_owned(), pod: (*pod).to_owned() }
            }
            _ => bail!(
                "{text:?} is no process (us-east/kafka), pod (us-east/pod/NAMESPACE/NAME) or link (\"us-east->eu-west\", \"us-east<->eu-west\")"
            ),
        }
    };
    let complete = match &target {
        Target::Process { region, process } => !region.is_empty() && !process.is_empty(),
        Target::Pod { region, namespace, pod } => !region.is_empty() && !namespace.is_empty() && !pod.is_empty(),
        Target::Links(links) => links.iter().all(|(from, to)| !from.is_empty() && !to.is_empty()),
    };
    ensure!(complete, "{text:?} lacks a name beside its separator");
    Ok(target)
}

/// `500ms`, `10s` or `2m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is no duration; give for example 500ms, 10s or 2m"))?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("{text:?} has no known unit; give for example 500ms, 10s or 2m")),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

/// The name under which a pod is held. A namespace has no dot, so no two pods share one.
pub(crate) fn pod_key(namespace: &str, pod: &str) -> String {
    format!("pod.{namespace}.{pod}")
}

/// Holds a process of the region by its name, or a pod by its key and cgroup.
pub(crate) fn hold(region: &Region, name: &str, hold: Hold, cgroup: Option<String>, duration: Option<Duration>) -> Result<()> {
    let until_unix_ms = duration.map(|duration| unix_ms().saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)));
    private_folder(&region.path("holds"))?;
    write_json(&region.path(&format!("holds/{name}")), &HoldFile { hold, until_unix_ms, cgroup })
}

/// Ends a hold. Says whether there was one.
pub(crate) fn release(region: &Region, process: &str) -> Result<bool> {
    match fs::remove_file(region.path(&format!("holds/{process}"))) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot end the fault of {process}")),
    }
}

pub(crate) fn release_all(region: &Region) {
    let _ = fs::remove_dir_all(region.path("holds"));
}

/// The holds in force, by name. Those whose time is over are removed.
pub(crate) fn read_holds(region: &Region) -> BTreeMap<String, HoldFile> {
    let Ok(entries) = fs::read_dir(region.path("holds")) else { return BTreeMap::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(|name| !name.starts_with('.'));
    names
        .filter_map(|name| {
            let file: HoldFile = read_json(&region.path(&format!("holds/{name}"))).ok().flatten()?;
            if file.until_unix_ms.is_some_and(|until| until <= unix_ms()) {
                let _ = release(region, &name);
                return None;
            }
            Some((name, file))
        })
        .collect()
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_processes_or_links() {
        assert_eq!(parse_target("us-east/kafka").unwrap(), Target::Process { region: "us-east".to_owned(), process: "kafka".to_owned() });
        assert!(
            matches!(parse_target("us-east/pod/fraud/payments-decision-0").unwrap(), Target::Pod { namespace, .. } if namespace == "fraud")
        );
        assert_eq!(parse_target("us-east->eu-west").unwrap(), Target::Links(vec![("us-east".to_owned(), "eu-west".to_owned())]));
        assert!(matches!(parse_target("us-east<->eu-west").unwrap(), Target::Links(links) if links.len() == 2));
        for bad in ["kafka", "", "/kafka", "us-east/", "->eu-west", "us-east->", "us-east/pod/x", "us-east/pod//x", "a/b/c"] {
            assert!(parse_target(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["10", "s", "-1s", "1.5s", "10 s", "99999999999999999999s", "18446744073709551615h"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_hold_ends_by_itself_when_its_time_is_over() {
        let mut region = crate::render::tests::region();
        region.folder = std::env::temp_dir().join(format!("sandbox-holds-{}", std::process::id()));
        fs::create_dir_all(&region.folder).unwrap();
        hold(&region, "kafka", Hold::Pause, None, None).unwrap();
        hold(&region, "etcd", Hold::Kill, None, Some(Duration::ZERO)).unwrap();
        let holds: Vec<(String, Hold)> = read_holds(&region).into_iter().map(|(name, file)| (name, file.hold)).collect();
        assert_eq!(holds, [("kafka".to_owned(), Hold::Pause)]);
        assert!(!region.path("holds/etcd").exists());
        assert!(release(&region, "kafka").unwrap());
        assert!(!release(&region, "kafka").unwrap());
        fs::remove_dir_all(&region.folder).unwrap();
    }
}
