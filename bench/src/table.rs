//! A report for people: a table for each case, ours beside what is to be reached and beside the peers. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::report::{Case, Contract, Figures, Report};
use crate::target::Target;

const MISSING: &str = "-";

/// Keys of the contract come first, then those that only explain.
pub fn render(report: &Report, contract: &Contract, targets: &[Target]) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "{}  commit {}\n{}, {} cores, {} MiB, Linux {}\n",
        report.name, report.commit, machine.cpu_model, machine.cores, machine.memory_mib, machine.kernel
    );
    for case in &report.cases {
        let first = contract.cases.iter().find(|known| known.case == case.case).map_or(&[][..], |known| known.keys);
        text.push('\n');
        text.push_str(&aligned(&rows(case, first, targets)));
    }
    text
}

fn rows(case: &Case, first: &[&str], targets: &[Target]) -> Vec<Vec<String>> {
    let mut head = vec![case.case.clone(), "ours".to_string(), "target".to_string(), String::new()];
    head.extend(case.peers.keys().cloned());
    if !case.peers.is_empty() {
        head.push("ours/best".to_string());
    }
    let mut rows = vec![head];
    for key in keys(case, first) {
        let mut row = vec![format!("  {key}"), shown(&case.ours, key)];
        row.extend(judged(case, key, targets));
        row.extend(case.peers.values().map(|figures| shown(figures, key)));
        if !case.peers.is_empty() {
            row.push(shown(&case.ratios, key));
        }
        rows.push(row);
    }
    rows
}

fn keys<'a>(case: &'a Case, first: &[&'a str]) -> Vec<&'a str> {
    let all: BTreeSet<&str> = case.peers.values().chain([&case.ours]).flat_map(|figures| figures.keys().map(String::as_str)).collect();
    let (known, other): (Vec<&str>, Vec<&str>) = all.into_iter().partition(|key| first.contains(key));
    first.iter().copied().filter(|key| known.contains(key)).chain(other).collect()
}

/// The target of a figure, and whether it is met.
fn judged(case: &Case, key: &str, targets: &[Target]) -> [String; 2] {
    let target = targets.iter().find(|target| target.case == case.case && target.key == key);
    let Some((target, value)) = target.zip(case.ours.get(key)) else { return Default::default() };
    let verdict = if target.bound.is_met(*value, &case.ours) { "ok" } else { "MISSED" };
    [target.bound.beside(&case.ours).to_string(), verdict.to_string()]
}

fn shown(figures: &Figures, key: &str) -> String {
    figures.get(key).map_or_else(|| MISSING.to_string(), |value| number(*value))
}

/// Three significant digits; whole numbers whole.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        _ if value.fract() == 0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// The first column to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Writing to a String cannot fail.
            let _ = if column == 0 { write!(line, "{cell:width$}") } else { write!(line, "  {cell:>width$}") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::machine::Machine;
    use crate::report::CaseContract;
    use crate::target::Bound;

    const CONTRACT: Contract =
        Contract { name: "mirror", peers: &["old"], cases: &[CaseContract { case: "small", keys: &["p99_ms", "lost"] }] };

    fn figures(list: &[(&str, f64)]) -> Figures {
        list.iter().map(|(key, value)| ((*key).to_string(), *value)).collect()
    }

    #[test]
    fn ours_stands_beside_its_target_and_its_peers() {
        let peers = BTreeMap::from([("old".to_string(), figures(&[("p99_ms", 4.0), ("extra_s", 1.5)]))]);
        let case = CONTRACT.case("small", figures(&[("lost", 0.0), ("p99_ms", 2.125), ("a_ms", 1234.5)]), peers).unwrap();
        let machine = Machine { cpu_model: "x".to_string(), cores: 2, memory_mib: 1, kernel: "6".to_string() };
        let report = Report { name: "mirror".to_string(), machine, commit: "c".to_string(), cases: vec![case] };
        let targets = [
            Target { case: "small", key: "p99_ms", bound: Bound::AtMost(2.0) },
            Target { case: "small", key: "lost", bound: Bound::AtMost(0.0) },
            Target { case: "large", key: "a_ms", bound: Bound::AtMost(0.0) },
        ];
        let expected = "\
mirror  commit c
x, 2 cores, 1 MiB, Linux 6

small      ours  target           old  ours/best
  p99_ms   2.12    <= 2  MISSED     4      0.531
  lost        0    <= 0      ok     -          -
  a_ms     1234                     -          -
  extra_s     -                  1.50          -
";
        assert_eq!(render(&report, &CONTRACT, &targets), expected);
    }
}
