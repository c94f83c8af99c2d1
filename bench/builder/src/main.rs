//! Measures the builder; `cargo xtask bench features` builds and starts it for the case `builder`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::machine::{Machine, commit};
use bench_builder::run::{Sizes, measure};
use bench_features::cases::{FEATURES, show};
use clap::Parser;
use kafka::testing::Broker;

const EXAMPLES: &str = "\
Examples:
  FRAUDPIPELINE_KAFKA_LIBS=LIBS bench-builder --builder scoring-builder --out target/bench
  FRAUDPIPELINE_KAFKA_LIBS=LIBS bench-builder --builder scoring-builder --out target/bench --quick

Writes the case `builder` of features.json.";

#[derive(Debug, Parser)]
#[command(about = "Benchmark of the feature builder on a real broker.", after_help = EXAMPLES)]
struct Cli {
    /// The program that is measured, of the release profile.
    #[arg(long, value_name = "PROGRAM")]
    builder: PathBuf,
    /// The folder of the result files.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// There is only one, `builder`.
    #[arg(long, value_parser = ["builder"])]
    case: Option<String>,
    /// Few events: to see that it works, not what it costs.
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start a runtime")?;
    let sizes = if cli.quick { Sizes::QUICK } else { Sizes::FULL };
    let (machine, commit) = (Machine::describe()?, commit(Path::new("."))?);
    eprintln!("   builder: starting a broker and shards");
    let broker = Broker::start()?;
    let ours = runtime.block_on(Box::pin(measure(broker.config(), &cli.builder, sizes)))?;
    let case = FEATURES.case("builder", ours, BTreeMap::new())?;
    let path = FEATURES.write(&cli.out, machine, commit, vec![case])?;
    show(&path, &FEATURES)
}
