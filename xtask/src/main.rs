//! Drives builds, tests, the sandbox, the demo and the benchmarks: `cargo xtask --help`.
//!
//! Light on purpose: it is built before anything else, so it depends on nothing that takes long to compile. One file per command.

#![forbid(unsafe_code)]

mod bench;
mod bless;
mod demo;
mod docker_archive;
mod doctor;
mod e2e;
mod images;
mod interrupt;
mod place;
mod progress;
mod recipes;
mod results;
mod sandbox;
mod soak;
mod stages;
mod tar;
mod test;
mod tidy;
mod tools;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::place::Place;

const EXAMPLES: &str = "\
Examples:
  cargo xtask doctor                      what does this machine lack?
  cargo xtask demo                        three regions and a payment stream
  cargo xtask test --quick                before a commit: no root, no cluster
  cargo xtask test                        all that CI runs
  cargo xtask sandbox up                  three clusters, nothing installed in them
  cargo xtask sandbox kubectl us-east get pods -A
  cargo xtask sandbox drill region-kill --runs 1
  cargo xtask sandbox down
  cargo xtask bench features              what it costs, peers beside it
  cargo xtask soak builder-kills          does the builder survive 100 kills?

Built tools are kept in $FRAUDPIPELINE_CACHE (default: ~/.cache/fraudpipeline).";

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Builds, tests and shows FraudPipeline.", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Three regions, the operator in each, a payment stream, and a verdict.
    Demo(demo::Arguments),
    /// List at once everything this machine lacks, with the command that mends each.
    Doctor {
        /// Write JSON to standard output.
        #[arg(long)]
        json: bool,
        /// Install the missing Debian packages first (needs root).
        #[arg(long)]
        fix: bool,
    },
    /// Build the programs of other projects that the sandbox runs, or one of them; print where they are.
    Tools {
        /// One tool: kubebox, helm, coredns, metrics-server, kafka, onnxruntime, cargo-deny, feast or python.
        name: Option<String>,
        /// Build again what is there already.
        #[arg(long)]
        fresh: bool,
    },
    /// Build our binaries and make container images of them.
    Images,
    /// Run the sandbox program as root, with everything it needs built first.
    Sandbox {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<OsString>,
    },
    /// Write the CustomResourceDefinitions from their Rust types.
    Crds,
    /// Write the Rust code of the .proto files.
    Proto,
    /// Write what helm renders from the chart, for the tests to compare with.
    Charts,
    /// What CI runs, in stages.
    Test(test::Arguments),
    /// Measure ours and its peers in one run; write target/bench/NAME.json.
    Bench(bench::Arguments),
    /// A test many times longer than CI runs it; results of each run, resumable.
    Soak(soak::Arguments),
    /// Only the rules of this project that no compiler knows.
    Tidy,
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
    let place = Place::find()?;
    if place.target.exists() {
        place.give_to_user(&place.target)?;
    }
    match cli.verb {
        Verb::Demo(arguments) => demo::command(&place, &arguments),
        Verb::Doctor { json, fix } => doctor::command(&place, json, fix),
        Verb::Tools { name, fresh } => tools::command(&place, name.as_deref(), fresh),
        Verb::Images => {
            let tools = tools::ensure_sandbox_tools(&place, false)?;
            images::ensure(&place, &tools)?.iter().for_each(|image| println!("{} {}", image.component, image.name));
            Ok(())
        }
        Verb::Sandbox { arguments } => sandbox::command(&place, &arguments),
        Verb::Crds => bless::crds(&place),
        Verb::Proto => bless::proto(&place),
        Verb::Charts => bless::charts(&place),
        Verb::Test(arguments) => test::command(&place, &arguments),
        Verb::Bench(arguments) => bench::command(&place, &arguments),
        Verb::Soak(arguments) => soak::command(&place, &arguments),
        Verb::Tidy => tidy::command(&place),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
