//! Measures the feature store and its peers; `cargo xtask bench features` builds and starts it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use bench::machine::{Machine, commit};
use bench_features::cases::{self, NAMES, Settings, show};
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  bench-features --out target/bench --feast-python PYTHON     all cases
  bench-features --out target/bench --case encoding --quick   only one, in a minute

Cases: keys20, keys500 (events a key), panes500 (over a day) and burst go to features.json, encoding to features-encoding.json.";

#[derive(Debug, Parser)]
#[command(about = "Benchmark of the feature store and its peers.", after_help = EXAMPLES)]
struct Cli {
    /// The folder of the result files.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Only this case.
    #[arg(long)]
    case: Option<String>,
    /// Few keys for a few seconds: to see that it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// The Python in which Feast is installed; left out, that peer is not measured.
    #[arg(long, value_name = "PROGRAM")]
    feast_python: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    // As many threads as the smallest machine has processors, on every machine alike.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start a runtime")?;
    let settings = Settings { quick: cli.quick, feast_python: cli.feast_python };
    let chosen = cli.case.as_deref().map_or_else(|| NAMES.to_vec(), |case| vec![case]);
    let (machine, commit) = (Machine::describe()?, commit(Path::new("."))?);
    let mut written = BTreeMap::new();
    for name in chosen {
        let (contract, cases) = runtime.block_on(cases::run(name, &settings))?;
        // Case by case, so that an interrupted run keeps those that it has measured.
        written.insert(contract.write(&cli.out, machine.clone(), commit.clone(), cases)?, contract);
    }
    written.iter().try_for_each(|(path, contract)| show(path, contract))
}
