//! `cargo xtask bench NAME`: builds a benchmark in the release profile, with its peers, and runs it. It writes `target/bench/NAME.json`, and a table beside it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::recipes::{self, Recipe};
use crate::{progress, tools};

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench features                            all its cases, peers beside ours
  cargo xtask bench features --case keys20
  cargo xtask bench features --quick                    does it work? Its figures are worth little
  cargo xtask bench promotion
  cargo xtask bench promotion --case shards2 -- --runs 10

Results: target/bench/NAME.json and, as a table, NAME.txt; docs/benchmarks.md says what they mean. Nothing else should run on the machine meanwhile.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The benchmark; an unknown name lists the known ones.
    name: String,
    /// Only this case of it.
    #[arg(long)]
    case: Option<String>,
    /// Small and short, to see that it works.
    #[arg(long)]
    quick: bool,
    /// Behind `--`: more options of the benchmark's own program. Its `--help` lists them.
    #[arg(last = true, value_name = "OPTION")]
    more: Vec<OsString>,
}

struct Bench {
    name: &'static str,
    about: &'static str,
    programs: &'static [Program],
}

/// What measures some of the cases.
struct Program {
    /// The package and its only binary.
    package: &'static str,
    cases: &'static [&'static str],
    /// Features of cargo that it needs, `package/feature`.
    features: &'static [&'static str],
    needs: &'static [Need],
}

/// Something that is built before the program runs, and how the program is told of it.
enum Need {
    /// A program of another project, whose path is told with this option.
    Tool { option: &'static str, recipe: fn() -> Recipe },
    /// The same in a variable of the environment.
    ToolInVariable { variable: &'static str, recipe: fn() -> Recipe },
    /// A program of ours, in the release profile too.
    Ours { option: &'static str, package: &'static str },
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "features",
        about: "the feature store: record and read beside Lua counters and Feast, bursts, encodings, the builder",
        programs: &[
            Program {
                package: "bench-features",
                cases: &["keys20", "keys500", "panes500", "burst", "encoding"],
                features: &[],
                needs: &[Need::Tool { option: "--feast-python", recipe: recipes::feast }],
            },
            Program {
                package: "bench-builder",
                cases: &["builder"],
                features: &["bench-builder/broker"],
                needs: &[
                    Need::ToolInVariable { variable: "FRAUDPIPELINE_KAFKA_LIBS", recipe: recipes::kafka },
                    Need::Ours { option: "--builder", package: "scoring-builder" },
                ],
            },
        ],
    },
    Bench {
        name: "promotion",
        about: "moving the shards to another region under writes, and how far copies lag",
        programs: &[Program { package: "bench-promotion", cases: &["shards2", "shards20", "lag"], features: &[], needs: &[] }],
    },
];

pub(crate) fn command(place: &Place, arguments: &Arguments) -> Result<()> {
    let bench = find(&arguments.name)?;
    let programs = choose(bench, arguments.case.as_deref())?;
    if programs.len() > 1 && !arguments.more.is_empty() {
        bail!("options behind `--` are those of one program, and {} has several: choose a case with --case", bench.name);
    }
    progress::heading(&format!("{}: {}", bench.name, bench.about));
    let out = place.target.join("bench");
    place.make_folder(&out)?;
    for program in programs {
        build(place, program)?;
        run(&mut invocation(place, program, arguments, &out)?, bench.name)?;
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Bench> {
    BENCHES.iter().find(|bench| bench.name == name).with_context(|| {
        let known: Vec<String> = BENCHES.iter().map(|bench| format!("\n  {:10} {}", bench.name, bench.about)).collect();
        format!("no benchmark is called {name}: choose one of{}", known.concat())
    })
}

/// The programs that have the case; all of them without one.
fn choose(bench: &'static Bench, case: Option<&str>) -> Result<Vec<&'static Program>> {
    let has = |program: &&Program| case.is_none_or(|case| program.cases.contains(&case));
    let chosen: Vec<&Program> = bench.programs.iter().filter(has).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = bench.programs.iter().flat_map(|program| program.cases).copied().collect();
        bail!("benchmark {} has no case {}: choose one of {}", bench.name, case.unwrap_or_default(), known.join(", "));
    }
    Ok(chosen)
}

/// Only the packages that are needed: a release build of everything would take very long.
fn build(place: &Place, program: &Program) -> Result<()> {
    let mut cargo = place.cargo();
    cargo.args(["build", "--locked", "--release", "--package", program.package]);
    for need in program.needs {
        if let Need::Ours { package, .. } = need {
            cargo.args(["--package", package]);
        }
    }
    if !program.features.is_empty() {
        cargo.args(["--features", &program.features.join(",")]);
    }
    let status = cargo.status().context("cannot start cargo")?;
    if !status.success() {
        bail!("{} does not build ({status}); the message of the compiler is above", program.package);
    }
    Ok(())
}

fn invocation(place: &Place, program: &Program, arguments: &Arguments, out: &Path) -> Result<Command> {
    let mut command = place.unprivileged(built(place, program.package));
    for need in program.needs {
        match need {
            Need::Tool { option, recipe } => command.arg(option).arg(tools::ensure(place, &recipe(), false)?),
            Need::ToolInVariable { variable, recipe } => command.env(variable, tools::ensure(place, &recipe(), false)?),
            Need::Ours { option, package } => command.arg(option).arg(built(place, package)),
        };
    }
    command.arg("--out").arg(out);
    if let Some(case) = &arguments.case {
        command.args(["--case", case]);
    }
    if arguments.quick {
        command.arg("--quick");
    }
    command.args(&arguments.more);
    Ok(command)
}

fn built(place: &Place, package: &str) -> PathBuf {
    place.target.join("release").join(package)
}

/// Its output is the terminal's: progress on standard error, results on standard output.
fn run(command: &mut Command, name: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", progress::describe(command)))?;
    if !status.success() {
        bail!("benchmark {name} failed ({status}); why is above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_and_cases_list_the_known_ones() {
        let error = find("featurs").err().unwrap().to_string();
        assert!(error.contains("no benchmark is called featurs") && error.contains("features   the feature store"), "{error}");
        let bench = find("features").unwrap();
        let error = choose(bench, Some("keys5")).err().unwrap().to_string();
        assert_eq!(error, "benchmark features has no case keys5: choose one of keys20, keys500, panes500, burst, encoding, builder");
    }

    #[test]
    fn a_case_is_measured_by_the_program_that_has_it() {
        let packages = |case| choose(find("features").unwrap(), case).unwrap().iter().map(|program| program.package).collect::<Vec<_>>();
        assert_eq!(packages(Some("encoding")), ["bench-features"]);
        assert_eq!(packages(Some("builder")), ["bench-builder"]);
        assert_eq!(packages(None), ["bench-features", "bench-builder"]);
    }
}
