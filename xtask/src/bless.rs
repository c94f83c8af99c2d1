//! Writes generated files anew: runs the test that compares them, with `BLESS=1`. What changed is then a diff to read.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::place::Place;
use crate::{progress, tools};

/// The CustomResourceDefinitions, from their Rust types.
pub(crate) fn crds(place: &Place) -> Result<()> {
    run(place.cargo().args(["test", "--locked", "--package", "crds", "--test", "definitions"]))
}

/// The Rust code of the .proto files.
pub(crate) fn proto(place: &Place) -> Result<()> {
    run(place.cargo().args(["test", "--locked", "--package", "proto"]))
}

/// What helm renders from the chart for each case.
pub(crate) fn charts(place: &Place) -> Result<()> {
    let helm = tools::ensure_sandbox_tools(place, false)?.helm;
    let mut cargo = place.cargo();
    cargo.args(["test", "--locked", "--package", "crds", "--features", "helm", "--test", "chart"]).env("FRAUDPIPELINE_HELM", helm);
    run(&mut cargo)
}

fn run(cargo: &mut Command) -> Result<()> {
    let status = cargo.env("BLESS", "1").status().context("cannot start cargo")?;
    if !status.success() {
        bail!("writing the generated files failed ({status}); the message of the test is above");
    }
    progress::note("written; look at the changes with `git diff` before you commit them");
    Ok(())
}
