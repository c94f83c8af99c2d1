//! Which processes a command is about: a region of the file, or addresses as they are.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, bail, ensure};
use domain::HostPort;
use serde::Deserialize;

/// More shards nobody has.
const SHARDS_MAX: usize = 1_024;

#[derive(Default)]
pub(crate) struct Addresses {
    regions: BTreeMap<String, Vec<HostPort>>,
    exposed: BTreeMap<String, Vec<HostPort>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    regions: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    exposed: BTreeMap<String, Vec<String>>,
}

impl Addresses {
    pub(crate) fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("--addresses {} cannot be read", path.display()))?;
        Self::parse(&text).with_context(|| format!("--addresses {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: File = serde_yaml::from_str(text)?;
        let (regions, exposed) = (sides(file.regions, "regions")?, sides(file.exposed, "exposed")?);
        for (region, addresses) in &exposed {
            let Some(own) = regions.get(region) else { bail!("exposed.{region}: regions has no {region}") };
            ensure!(
                own.len() == addresses.len(),
                "exposed.{region} has {} addresses and regions.{region} has {}",
                addresses.len(),
                own.len()
            );
        }
        Ok(Self { regions, exposed })
    }

    /// The processes of a side, by shard.
    pub(crate) fn side(&self, side: &str) -> anyhow::Result<Vec<HostPort>> {
        if side.contains(':') {
            return list(side.split(','));
        }
        let known = || self.regions.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.regions.get(side) {
            Some(addresses) => Ok(addresses.clone()),
            None if self.regions.is_empty() => {
                bail!("{side} is no address HOST:PORT: write one, or name a file of regions with --addresses")
            }
            None => bail!("{side} is no address HOST:PORT and no region of the file, which has {}", known()),
        }
    }

    /// How the processes of a side are reached by shards of other regions.
    pub(crate) fn exposed(&self, side: &str, instead: Option<&str>) -> anyhow::Result<Vec<HostPort>> {
        match (instead, self.exposed.get(side)) {
            (Some(instead), _) => self.side(instead),
            (None, Some(addresses)) => Ok(addresses.clone()),
            (None, None) => self.side(side),
        }
    }

    /// All processes of the file.
    pub(crate) fn all(&self) -> anyhow::Result<Vec<HostPort>> {
        ensure!(!self.regions.is_empty(), "no shards are named: name some with --of, or a file of regions with --addresses");
        Ok(self.regions.values().flatten().cloned().collect())
    }
}

/// Pairs what belongs to the same shard.
pub(crate) fn same_length(first: (&str, usize), second: (&str, usize)) -> anyhow::Result<()> {
    ensure!(first.1 == second.1, "{} has {} shards and {} has {}: name one address for each shard", first.0, first.1, second.0, second.1);
    Ok(())
}

fn sides(sides: BTreeMap<String, Vec<String>>, field: &str) -> anyhow::Result<BTreeMap<String, Vec<HostPort>>> {
    let parsed = |(region, addresses): (String, Vec<String>)| {
        let list = list(addresses.iter().map(String::as_str)).with_context(|| format!("{field}.{region}"))?;
        Ok((region, list))
    };
    sides.into_iter().map(parsed).collect()
}

fn list<'a>(addresses: impl Iterator<Item = &'a str>) -> anyhow::Result<Vec<HostPort>> {
    let list: Vec<HostPort> = addresses.map(address).collect::<anyhow::Result<_>>()?;
    ensure!(!list.is_empty() && list.len() <= SHARDS_MAX, "there must be 1 to {SHARDS_MAX} addresses, and there are {}", list.len());
    Ok(list)
}

/// `host:port`, or `[address]:port` for IPv6.
fn address(text: &str) -> anyhow::Result<HostPort> {
    let parts = text.trim().rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok().filter(|port| *port > 0)?)));
    let Some((host, port)) = parts else { bail!("{text:?} is no address HOST:PORT") };
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    ensure!(!host.is_empty() && !host.contains(['[', ']', ' ', '/', '@']), "{text:?} is no address HOST:PORT");
    Ok(HostPort { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "regions: {us-east: [\"a:1\", \"b:2\"], eu-west: [\"c:3\", \"d:4\"]}\nexposed: {eu-west: [\"x:5\", \"x:6\"]}";

    fn texts(addresses: &[HostPort]) -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_side_is_a_region_of_the_file_or_addresses_as_they_are() {
        let addresses = Addresses::parse(FILE).unwrap();
        assert_eq!(texts(&addresses.side("us-east").unwrap()), ["a:1", "b:2"]);
        assert_eq!(texts(&addresses.side("h:7, [::1]:8").unwrap()), ["h:7", "::1:8"]);
        assert_eq!(texts(&addresses.exposed("eu-west", None).unwrap()), ["x:5", "x:6"]);
        assert_eq!(texts(&addresses.exposed("us-east", None).unwrap()), ["a:1", "b:2"]);
        assert_eq!(texts(&addresses.exposed("eu-west", Some("y:9")).unwrap()), ["y:9"]);
        assert_eq!(addresses.all().unwrap().len(), 4);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let addresses = Addresses::parse(FILE).unwrap();
        assert!(addresses.side("mars").unwrap_err().to_string().contains("eu-west, us-east"));
        for wrong in ["h:", "h:0", "h:65536", ":1", "http://h:1", "u@h:1"] {
            assert!(addresses.side(wrong).unwrap_err().to_string().contains("is no address"), "{wrong}");
        }
        let error = |text: &str| format!("{:#}", Addresses::parse(text).err().unwrap());
        assert!(error("regions: {a: [\"x:1\"]}\nexposed: {a: [\"x:1\", \"y:1\"]}").contains("exposed.a has 2 addresses"));
        assert!(error("regions: {a: [\"x\"]}").contains("regions.a"));
        assert!(error("regions: {}\nexposd: {}").contains("exposd"));
        assert!(Addresses::default().all().is_err());
    }
}
