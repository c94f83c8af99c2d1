//! The file of results, `target/bench/NAME.json`. Other programs read it, so what it must hold is checked before it is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Figures by key; the unit is part of the key.
pub type Figures = BTreeMap<String, f64>;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub name: String,
    pub machine: Machine,
    pub commit: String,
    pub cases: Vec<Case>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Case {
    pub case: String,
    pub ours: Figures,
    pub peers: BTreeMap<String, Figures>,
    /// Ours divided by the best peer of that key.
    pub ratios: Figures,
}

/// What the file of one benchmark holds at least.
#[derive(Debug, Clone, Copy)]
pub struct Contract {
    pub name: &'static str,
    pub peers: &'static [&'static str],
    pub cases: &'static [CaseContract],
}

#[derive(Debug, Clone, Copy)]
pub struct CaseContract {
    pub case: &'static str,
    /// Ours must have each of them, and these are compared with the peers. Figures beyond them only explain.
    pub keys: &'static [&'static str],
}

/// One of these is a part of every key that is not a plain count fixed by a contract.
const UNITS: &[&str] = &["ms", "us", "s", "bytes", "mb", "mib", "ratio", "share", "events", "decisions", "requests"];
/// Ends of keys of which more is better; of all others less is.
const MORE_IS_BETTER: &[&str] = &["_per_s", "_per_cpu_s", "_ratio"];

fn best(key: &str, values: impl Iterator<Item = f64>) -> Option<f64> {
    let more_is_better = MORE_IS_BETTER.iter().any(|end| key.ends_with(end));
    values.reduce(|best, value| if more_is_better { best.max(value) } else { best.min(value) })
}

impl Contract {
    /// A case with its ratios, which are computed here so that no benchmark computes them differently. A key that no peer has, or for which the best peer has
    /// 0, has none.
    ///
    /// # Errors
    /// When the case would be refused by [`Contract::write`].
    pub fn case(&self, name: &str, ours: Figures, peers: BTreeMap<String, Figures>) -> Result<Case> {
        let ratio = |key: &&str| {
            let best = best(key, peers.values().filter_map(|figures| figures.get(*key).copied())).filter(|best| *best != 0.0)?;
            Some(((*key).to_string(), ours.get(*key)? / best))
        };
        let ratios = self.find(name)?.keys.iter().filter_map(ratio).collect();
        let case = Case { case: name.to_string(), ours, peers, ratios };
        self.check(&case)?;
        Ok(case)
    }

    fn find(&self, name: &str) -> Result<&CaseContract> {
        self.cases.iter().find(|known| known.case == name).with_context(|| {
            let known: Vec<&str> = self.cases.iter().map(|known| known.case).collect();
            format!("benchmark {} has no case {name}: it has {}", self.name, known.join(", "))
        })
    }

    /// # Errors
    /// When the case or a peer is not known, a key that ours must have is missing, a key has no unit, or a figure is no number.
    pub fn check(&self, case: &Case) -> Result<()> {
        let contract = self.find(&case.case)?;
        if let Some(key) = contract.keys.iter().find(|key| !case.ours.contains_key(**key)) {
            bail!("case {} lacks {key}, which readers of {}.json rely on", case.case, self.name);
        }
        if let Some(peer) = case.peers.keys().find(|peer| !self.peers.contains(&peer.as_str())) {
            bail!("case {} has a peer {peer}: {}.json knows {}", case.case, self.name, self.peers.join(", "));
        }
        for (key, value) in case.peers.values().chain([&case.ours]).flatten() {
            if !contract.keys.contains(&key.as_str()) && !has_unit(key) {
                bail!("case {}: the key {key} does not say its unit: end it with one of {}", case.case, UNITS.join(", "));
            }
            if !value.is_finite() {
                bail!("case {}: {key} is {value}, which is no result", case.case);
            }
        }
        Ok(())
    }

    /// Writes `cases` into `<folder>/<name>.json`. Cases that an earlier run of the same commit on the same machine left there stay, unless they were measured
    /// again: a benchmark may be run case by case. Gives the path.
    ///
    /// # Errors
    /// When a case breaks the contract, or the file cannot be written; what was there stays then.
    pub fn write(&self, folder: &Path, machine: Machine, commit: String, cases: Vec<Case>) -> Result<PathBuf> {
        cases.iter().try_for_each(|case| self.check(case))?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join(format!("{}.json", self.name));
        let mut report = Report { name: self.name.to_string(), machine, commit, cases };
        if let Some(earlier) = read(&path) {
            report.keep(earlier);
        }
        report.cases.sort_by_key(|case| self.cases.iter().position(|known| known.case == case.case));
        // Renamed into its place, so that a reader never sees half a file.
        let partial = path.with_extension("json.partial");
        std::fs::write(&partial, serde_json::to_vec_pretty(&report)?).with_context(|| format!("cannot write {}", partial.display()))?;
        std::fs::rename(&partial, &path).with_context(|| format!("cannot move the result to {}", path.display()))?;
        Ok(path)
    }
}

impl Report {
    fn keep(&mut self, earlier: Self) {
        if earlier.machine != self.machine || earlier.commit != self.commit {
            return;
        }
        let measured_again = |old: &Case| self.cases.iter().any(|case| case.case == old.case);
        let kept: Vec<Case> = earlier.cases.into_iter().filter(|old| !measured_again(old)).collect();
        self.cases.extend(kept);
    }
}

/// A file that cannot be read is of an older program, and worth nothing.
pub fn read(path: &Path) -> Option<Report> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn has_unit(key: &str) -> bool {
    key.split('_').any(|part| UNITS.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTRACT: Contract = Contract {
        name: "mirror",
        peers: &["old", "older"],
        cases: &[
            CaseContract { case: "small", keys: &["p99_ms", "lost"] },
            CaseContract { case: "large", keys: &["p99_ms"] },
            CaseContract { case: "fast", keys: &["p99_ms", "mb_per_s", "rss_mb"] },
        ],
    };

    fn figures(list: &[(&str, f64)]) -> Figures {
        list.iter().map(|(key, value)| ((*key).to_string(), *value)).collect()
    }

    fn case(name: &str, ours: &[(&str, f64)]) -> Result<Case> {
        CONTRACT.case(name, figures(ours), BTreeMap::new())
    }

    fn machine() -> Machine {
        Machine { cpu_model: "x".to_string(), cores: 2, memory_mib: 1, kernel: "6".to_string() }
    }

    #[test]
    fn ours_is_compared_with_the_peer_that_is_best_at_that_figure() {
        let peers = BTreeMap::from([
            ("old".to_string(), figures(&[("p99_ms", 4.0), ("mb_per_s", 10.0), ("rss_mb", 0.0), ("measured_s", 3.0)])),
            ("older".to_string(), figures(&[("p99_ms", 8.0), ("mb_per_s", 40.0)])),
        ]);
        let ours = figures(&[("p99_ms", 2.0), ("mb_per_s", 20.0), ("rss_mb", 3.0), ("measured_s", 3.0)]);
        assert_eq!(CONTRACT.case("fast", ours, peers).unwrap().ratios, figures(&[("p99_ms", 0.5), ("mb_per_s", 0.5)]));
    }

    #[test]
    fn a_result_that_readers_could_not_use_is_refused() {
        let problem = |result: Result<Case>| result.unwrap_err().to_string();
        assert!(problem(case("medium", &[])).contains("it has small, large, fast"));
        assert!(problem(case("small", &[("p99_ms", 1.0)])).contains("lacks lost"));
        assert!(problem(case("large", &[("p99_ms", 1.0), ("speed", 1.0)])).contains("speed does not say its unit"));
        assert!(problem(case("large", &[("p99_ms", f64::NAN)])).contains("no result"));
        let strange = BTreeMap::from([("new".to_string(), Figures::new())]);
        assert!(problem(CONTRACT.case("large", figures(&[("p99_ms", 1.0)]), strange)).contains("peer new"));
        case("small", &[("p99_ms", 1.0), ("lost", 0.0), ("cpu_us_per_event", 2.0)]).unwrap();
    }

    #[test]
    fn cases_run_one_by_one_come_together_until_the_code_changes() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |commit: &str, case: Result<Case>| CONTRACT.write(folder.path(), machine(), commit.to_string(), vec![case.unwrap()]).unwrap();
        let names = |path: &Path| read(path).unwrap().cases.iter().map(|case| (case.case.clone(), case.ours["p99_ms"])).collect::<Vec<_>>();
        write("a", case("large", &[("p99_ms", 1.0)]));
        write("a", case("small", &[("p99_ms", 2.0), ("lost", 0.0)]));
        let path = write("a", case("large", &[("p99_ms", 3.0)]));
        assert_eq!(names(&path), [("small".to_string(), 2.0), ("large".to_string(), 3.0)]);
        let path = write("b", case("large", &[("p99_ms", 4.0)]));
        assert_eq!(names(&path), [("large".to_string(), 4.0)]);
    }
}
