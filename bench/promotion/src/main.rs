//! How long writes stop when all shards move to another region, whether an acknowledged one is lost, and how far a copy is
//! behind. Real Redis processes, with a slow line between the two sides; writes one file of results.
//!
//! The writer is a thread of its own that knows nothing of the promotions: it learns from refusals which side takes writes.
#![forbid(unsafe_code)]

mod audit;
mod lag;
mod moves;
mod result;
mod stage;
mod writer;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use clap::Parser;
use serde_json::{Value, json};

#[derive(Parser)]
#[command(
    about = "Benchmark of promotions and of replication lag",
    after_help = "Examples:\n  bench-promotion                              50 promotions each of 2 and of 20 shards, and the lag\n  bench-promotion --shards 2 --runs 5 --skip-lag"
)]
struct Arguments {
    /// Promotions of each case, back and forth
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// Numbers of shards, one case each
    #[arg(long, value_delimiter = ',', default_values_t = [2, 20])]
    shards: Vec<u16>,
    /// Writes a second, over all shards
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    writes_per_s: u32,
    /// Milliseconds from one side to the other
    #[arg(long, default_value_t = 40)]
    one_way_ms: u64,
    /// Milliseconds of writing between two promotions
    #[arg(long, default_value_t = 1_500)]
    between_ms: u64,
    /// Leave out the case `lag`
    #[arg(long)]
    skip_lag: bool,
    /// Events a second of the case `lag`
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    events_per_s: u32,
    /// Seconds that the case `lag` takes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=600))]
    lag_s: u64,
    #[arg(long, default_value = "target/bench/promotion.json")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(arguments.shards.iter().all(|shards| (1..=100).contains(shards)), "--shards: from 1 to 100");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let cases = runtime.block_on(Box::pin(cases(&arguments)))?;
    result::write(&arguments.out, cases)
}

async fn cases(arguments: &Arguments) -> Result<Vec<Value>> {
    let one_way = Duration::from_millis(arguments.one_way_ms);
    let mut cases = Vec::new();
    for &shards in &arguments.shards {
        let wanted = moves::Wanted {
            shards,
            runs: arguments.runs,
            writes_per_s: arguments.writes_per_s,
            one_way,
            between: Duration::from_millis(arguments.between_ms),
        };
        let ours = Box::pin(moves::measure(&wanted)).await?;
        cases.push(case(&format!("shards{shards}"), &ours));
    }
    if !arguments.skip_lag {
        let ours = Box::pin(lag::measure(arguments.events_per_s, one_way, Duration::from_secs(arguments.lag_s))).await?;
        cases.push(case("lag", &ours));
    }
    Ok(cases)
}

fn case(name: &str, ours: &Value) -> Value {
    eprintln!("{name}: {ours}");
    json!({"case": name, "ours": ours, "peers": {}, "ratios": {}})
}
