//! The operator's own configuration: which region this is, and which images it may run. The chart writes it. Does no IO.

use std::{cmp::Ordering, collections::BTreeMap, net::SocketAddr};

use domain::RegionName;
use serde::{Deserialize, Serialize};

/// The file that `--config` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorConfig {
    /// The region of the cluster that this operator runs in.
    pub region: RegionName,
    /// The operators of the other regions. They do not talk to each other yet (issue 7).
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// Images of the data plane, by version.
    pub data_plane_versions: BTreeMap<String, Images>,
    /// Namespaces in which pipelines are looked for. Empty: all.
    #[serde(default)]
    pub watch_namespaces: Vec<String>,
    #[serde(default = "default_log_level")]
    pub log_level: String,
    /// `/livez`, `/readyz`, `/metrics`.
    #[serde(default = "default_admin")]
    pub admin: SocketAddr,
}

/// Another region's operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Peer {
    pub region: RegionName,
    pub address: String,
}

/// One version's images, by what they run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    pub decision: String,
    pub inference: String,
    pub builder: String,
    pub replicator: String,
    pub redis: String,
}

/// Who this process is, from the environment that the chart gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub namespace: String,
    pub pod: String,
}

fn default_log_level() -> String {
    "info".into()
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 9090))
}

/// A field with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    field: &'static str,
    problem: String,
}

impl OperatorConfig {
    /// # Errors
    /// When a field has a value that cannot work.
    pub fn check(&self) -> Result<(), InvalidField> {
        let invalid = |field, problem: &str| Err(InvalidField { field, problem: problem.to_owned() });
        if self.data_plane_versions.is_empty() {
            return invalid("dataPlaneVersions", "name at least one version with its images");
        }
        if let Some(bad) = self.data_plane_versions.keys().find(|version| Version::parse(version).is_none()) {
            return invalid("dataPlaneVersions", &format!("{bad:?} is not a version such as 0.3.0"));
        }
        if self.peers.iter().any(|peer| peer.region == self.region) {
            return invalid("peers", &format!("{} is this operator's own region: name the other regions only", self.region));
        }
        Ok(())
    }

    /// The newest version that there are images for.
    pub fn newest_version(&self) -> &str {
        let newest = self.data_plane_versions.keys().max_by(|a, b| Version::parse(a).cmp(&Version::parse(b)));
        newest.map_or("", String::as_str)
    }

    pub fn images(&self, version: &str) -> Option<&Images> {
        self.data_plane_versions.get(version)
    }

    /// All versions, for messages.
    pub fn known_versions(&self) -> String {
        self.data_plane_versions.keys().cloned().collect::<Vec<_>>().join(", ")
    }
}

/// `1.2.3` or `1.2.3-rc.1`, which comes before `1.2.3`.
#[derive(Debug, PartialEq, Eq)]
struct Version<'a> {
    numbers: [u64; 3],
    before: Option<&'a str>,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (numbers, before) = text.split_once('-').map_or((text, None), |(numbers, before)| (numbers, Some(before)));
        let mut parts = numbers.split('.').map(str::parse);
        let mut next = || parts.next()?.ok();
        let numbers = [next()?, next()?, next()?];
        parts.next().is_none().then_some(Self { numbers, before })
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let before = match (self.before, other.before) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => a.cmp(b),
        };
        self.numbers.cmp(&other.numbers).then(before)
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(versions: &[&str]) -> OperatorConfig {
        let images = r#"{"decision": "d", "inference": "i", "builder": "b", "replicator": "r", "redis": "s"}"#;
        let list: Vec<_> = versions.iter().map(|version| format!("{version:?}: {images}")).collect();
        serde_json::from_str(&format!(r#"{{"region": "us-east", "dataPlaneVersions": {{{}}}}}"#, list.join(","))).unwrap()
    }

    #[test]
    fn the_newest_version_is_so_by_number_and_not_by_text() {
        assert_eq!(config(&["0.9.0", "0.10.0", "0.10.0-rc.1"]).newest_version(), "0.10.0");
        assert_eq!(config(&["1.0.0-a", "1.0.0-b"]).newest_version(), "1.0.0-b");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_field() {
        assert!(config(&["0.1.0"]).check().is_ok());
        let refused = |config: &OperatorConfig| config.check().unwrap_err().to_string();
        assert!(refused(&config(&[])).starts_with("dataPlaneVersions"));
        assert!(refused(&config(&["newest"])).contains("newest"));
        let mut with_peer = config(&["0.1.0"]);
        with_peer.peers.push(Peer { region: RegionName::new("us-east").unwrap(), address: "a:1".into() });
        assert!(refused(&with_peer).starts_with("peers"));
    }
}
