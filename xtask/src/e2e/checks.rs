//! What a check found: one line on standard output and in the stage's log, and counted.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use crate::demo::summary::Criterion;
use crate::results::Counts;

pub(super) struct Checks {
    log: File,
    pub(super) counts: Counts,
}

impl Checks {
    /// Appends to the log.
    pub(super) fn new(log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))?;
        Ok(Self { log, counts: Counts::default() })
    }

    /// What was measured, or why the check failed.
    pub(super) fn check(&mut self, name: &str, outcome: Result<String>) {
        let (value, holds) = match outcome {
            Ok(value) => (value, true),
            Err(error) => (format!("{error:#}"), false),
        };
        self.criterion(&Criterion { name: name.to_string(), value, holds, is_about_speed: false });
    }

    pub(super) fn criterion(&mut self, criterion: &Criterion) {
        let line = criterion.line();
        println!("{line}");
        // The terminal has it already; a full disk is no reason to fail a check.
        let _ = writeln!(self.log, "{line}");
        self.counts += if criterion.holds { Counts { passed: 1, failed: 0 } } else { Counts { passed: 0, failed: 1 } };
    }
}
