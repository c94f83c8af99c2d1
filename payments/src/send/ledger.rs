//! The ledger: what was acknowledged, one JSON line each, for the audit after a drill. The format is that of the `chaos` crate.
//! IO: one file.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One acknowledged decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Rises by one with each request, answered or not.
    pub seq: u64,
    pub transaction_id: String,
    /// Milliseconds since the stream began.
    pub acknowledged_ms: u64,
    /// As in the API: APPROVE, REVIEW or DECLINE.
    pub verdict: String,
    /// KAFKA, LOCAL or NONE: only the first two promise that the event is kept.
    pub durability: String,
}

/// Writes each line with one system call, so that a crash of this process loses none that was written.
#[derive(Debug)]
pub struct Ledger {
    file: File,
}

impl Ledger {
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file =
            File::create(path).with_context(|| format!("cannot create the ledger {}: give --ledger a writable path", path.display()))?;
        Ok(Self { file })
    }

    pub fn append(&mut self, entry: &LedgerEntry) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.file.write_all(&line).context("cannot write to the ledger: is the disk full?")
    }

    /// After this, a crash of the machine loses nothing either.
    pub fn finish(self) -> anyhow::Result<()> {
        self.file.sync_all().context("cannot sync the ledger to disk")
    }
}
