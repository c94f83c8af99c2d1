//! Holds the logs of all regions, and the ledger of acknowledgements, against each other. Pure: the reading is in
//! [`crate::logs`].

use std::collections::{BTreeMap, BTreeSet};

use domain::RegionName;
use serde::{Deserialize, Serialize};

use crate::{ledger::Entry, logs::Counts};

/// The logs of one kind of record (events, or decisions) in all regions.
#[derive(Debug, Clone, Default)]
pub struct Logs {
    /// What each region wrote itself.
    pub local: BTreeMap<RegionName, Counts>,
    /// (origin, region) -> the copy of the origin's log in that region.
    pub mirrored: BTreeMap<(RegionName, RegionName), Counts>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `us-east->eu-west`: distinct transaction ids at the origin and in the copy.
    pub mirror: BTreeMap<String, MirrorCounts>,
    /// Distinct transaction ids over the logs (own and mirrored) of each region.
    pub distinct: BTreeMap<String, u64>,
    /// Whether every region's logs hold the same transaction ids.
    pub equal: bool,
    /// Records beyond the first of one transaction id, by log.
    pub duplicates: BTreeMap<String, u64>,
    /// Entries of the ledger that promised that the event is kept.
    pub acknowledged: u64,
    /// Of these, absent from every region's logs.
    pub lost_for_good: u64,
    /// Some of them, to look for.
    pub lost_examples: Vec<String>,
    /// In a log without an acknowledgement: the client gave up waiting, or the answer was lost.
    pub unacknowledged: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorCounts {
    pub produced: u64,
    pub mirrored: u64,
}

const EXAMPLES_MAX: usize = 20;

/// `ledger` is `None` when no client kept one; then nothing is said of acknowledgements.
pub fn compare(logs: &Logs, ledger: Option<&BTreeMap<String, Entry>>) -> Report {
    let mut report = Report::default();
    for ((origin, region), copy) in &logs.mirrored {
        let produced = logs.local.get(origin).map_or(0, |counts| counts.len() as u64);
        report.mirror.insert(format!("{origin}->{region}"), MirrorCounts { produced, mirrored: copy.len() as u64 });
        report.duplicates.insert(format!("{origin}->{region}"), extra(copy));
    }
    let sets: BTreeMap<&RegionName, BTreeSet<&str>> = logs.local.keys().map(|region| (region, seen_in(logs, region))).collect();
    for (region, set) in &sets {
        report.distinct.insert(region.to_string(), set.len() as u64);
        report.duplicates.insert(region.to_string(), logs.local.get(*region).map_or(0, extra));
    }
    let mut all = sets.values();
    report.equal = all.next().is_some_and(|first| all.all(|other| other == first));
    if let Some(ledger) = ledger {
        let anywhere: BTreeSet<&str> = sets.values().flatten().copied().collect();
        judge_ledger(&mut report, ledger, &anywhere);
    }
    report
}

/// Records beyond the first of each transaction id.
fn extra(counts: &Counts) -> u64 {
    counts.values().map(|&count| u64::from(count.saturating_sub(1))).sum()
}

/// Every transaction id that stands in a log of `region`, its own or a copy.
fn seen_in<'a>(logs: &'a Logs, region: &RegionName) -> BTreeSet<&'a str> {
    let own = logs.local.get(region).into_iter();
    let copies = logs.mirrored.iter().filter(|((_, at), _)| at == region).map(|(_, counts)| counts);
    own.chain(copies).flat_map(|counts| counts.keys().map(String::as_str)).collect()
}

fn judge_ledger(report: &mut Report, ledger: &BTreeMap<String, Entry>, anywhere: &BTreeSet<&str>) {
    for entry in ledger.values().filter(|entry| entry.promised()) {
        report.acknowledged += 1;
        if !anywhere.contains(entry.transaction_id.as_str()) {
            report.lost_for_good += 1;
            if report.lost_examples.len() < EXAMPLES_MAX {
                report.lost_examples.push(entry.transaction_id.clone());
            }
        }
    }
    report.unacknowledged = anywhere.iter().filter(|id| !ledger.contains_key(**id)).count() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> RegionName {
        RegionName::new(name).unwrap()
    }

    fn counts(ids: &[&str]) -> Counts {
        ids.iter().fold(Counts::new(), |mut counts, id| {
            *counts.entry((*id).to_owned()).or_default() += 1;
            counts
        })
    }

    fn logs(east: &[&str], copy_in_west: &[&str]) -> Logs {
        let (us, eu) = (region("us-east"), region("eu-west"));
        Logs {
            local: [(us.clone(), counts(east)), (eu.clone(), counts(&[]))].into(),
            mirrored: [((us.clone(), eu.clone()), counts(copy_in_west)), ((eu, us), counts(&[]))].into(),
        }
    }

    fn ledger(entries: &[(&str, &str)]) -> BTreeMap<String, Entry> {
        entries
            .iter()
            .enumerate()
            .map(|(seq, (id, durability))| {
                let entry = Entry {
                    seq: seq as u64,
                    transaction_id: (*id).into(),
                    acknowledged_ms: 1,
                    verdict: "APPROVE".into(),
                    durability: (*durability).into(),
                };
                ((*id).to_owned(), entry)
            })
            .collect()
    }

    #[test]
    fn whole_copies_are_equal_even_when_a_record_stands_there_twice() {
        let report = compare(&logs(&["a", "b"], &["a", "b", "b"]), None);
        assert!(report.equal);
        assert_eq!(report.mirror["us-east->eu-west"], MirrorCounts { produced: 2, mirrored: 2 });
        assert_eq!(report.duplicates["us-east->eu-west"], 1);
    }

    #[test]
    fn a_record_that_did_not_arrive_makes_the_regions_unequal() {
        let report = compare(&logs(&["a", "b"], &["a"]), None);
        assert!(!report.equal);
        assert_eq!(report.distinct["eu-west"], 1);
    }

    #[test]
    fn what_was_promised_and_is_nowhere_is_lost_and_what_was_not_promised_is_not() {
        let report = compare(&logs(&["a"], &["a"]), Some(&ledger(&[("a", "KAFKA"), ("b", "KAFKA"), ("c", "NONE")])));
        assert_eq!((report.acknowledged, report.lost_for_good), (2, 1));
        assert_eq!(report.lost_examples, ["b"]);
    }

    #[test]
    fn no_regions_at_all_are_not_equal() {
        assert!(!compare(&Logs::default(), None).equal);
    }
}
