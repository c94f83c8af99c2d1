//! How long writes stop when all shards move to another region, whether an acknowledged one is lost, and how far a copy is
//! behind. Real Redis processes, with a slow line between the two sides; writes one file of results.
//!
//! The writer is a thread of its own that knows nothing of the promotions: it learns from refusals which side takes writes.
#![forbid(unsafe_code)]

mod audit;
mod lag;
mod moves;
mod stage;
mod targets;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use bench::machine::{Machine, commit};
use bench::report::{Case, Figures};
use bench::table;
use clap::Parser;

use crate::targets::{PROMOTION, TARGETS};

const EXAMPLES: &str = "\
Examples:
  bench-promotion --out target/bench                             50 promotions each of 2 and of 20 shards, and the lag
  bench-promotion --out target/bench --case shards2 --runs 5     one case, few promotions
  bench-promotion --out target/bench --quick                     does it work?

Cases: shards2, shards20, lag. They go to promotion.json.";

#[derive(Parser)]
#[command(about = "Benchmark of promotions and of replication lag.", after_help = EXAMPLES)]
struct Arguments {
    /// The folder of the result files.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Only this case.
    #[arg(long, value_parser = ["shards2", "shards20", "lag"])]
    case: Option<String>,
    /// Four promotions a case, and the lag for five seconds: to see that it works.
    #[arg(long)]
    quick: bool,
    /// Promotions of each case, back and forth.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Writes a second, over all shards.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    writes_per_s: u32,
    /// Milliseconds from one side to the other.
    #[arg(long, default_value_t = 40)]
    one_way_ms: u64,
    /// Milliseconds of writing between two promotions.
    #[arg(long, default_value_t = 1_500)]
    between_ms: u64,
    /// Events a second of the case lag.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    events_per_s: u32,
    /// Seconds that the case lag takes.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=600))]
    lag_s: u64,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<()> {
    if arguments.quick {
        (arguments.runs, arguments.lag_s) = (4, 5);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let (machine, commit) = (Machine::describe()?, commit(Path::new("."))?);
    let chosen = |name: &&str| arguments.case.as_deref().is_none_or(|case| case == *name);
    for name in ["shards2", "shards20", "lag"].iter().filter(|name| chosen(name)) {
        let case = runtime.block_on(Box::pin(measure(name, &arguments)))?;
        // Case by case, so that an interrupted run keeps those that it has measured.
        PROMOTION.write(&arguments.out, machine.clone(), commit.clone(), vec![case])?;
    }
    show(&arguments.out)
}

async fn measure(name: &str, arguments: &Arguments) -> Result<Case> {
    let one_way = Duration::from_millis(arguments.one_way_ms);
    let figures = match name {
        "shards2" => Box::pin(moves::measure(&wanted(2, arguments))).await?,
        "shards20" => Box::pin(moves::measure(&wanted(20, arguments))).await?,
        _ => Box::pin(lag::measure(arguments.events_per_s, one_way, Duration::from_secs(arguments.lag_s))).await?,
    };
    PROMOTION.case(name, figures, BTreeMap::new())
}

fn wanted(shards: u16, arguments: &Arguments) -> moves::Wanted {
    moves::Wanted {
        shards,
        runs: arguments.runs,
        writes_per_s: arguments.writes_per_s,
        one_way: Duration::from_millis(arguments.one_way_ms),
        between: Duration::from_millis(arguments.between_ms),
    }
}

/// Prints the file of results as a table, and writes that beside it.
fn show(folder: &Path) -> Result<()> {
    let path = folder.join("promotion.json");
    let report = bench::report::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = table::render(&report, &PROMOTION, TARGETS);
    let beside = path.with_extension("txt");
    std::fs::write(&beside, &text).with_context(|| format!("cannot write {}", beside.display()))?;
    println!("{text}\n{}\n{}", path.display(), beside.display());
    Ok(())
}

fn figures<const N: usize>(list: [(&str, f64); N]) -> Figures {
    list.into_iter().map(|(key, value)| (key.to_string(), value)).collect()
}

/// The value that so many of 1,000 do not exceed. 0 of an empty slice.
fn per_mille(sorted: &[f64], per_mille: usize) -> f64 {
    let rank = sorted.len().saturating_mul(per_mille).div_ceil(1_000).saturating_sub(1);
    sorted.get(rank).copied().unwrap_or(0.0)
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
