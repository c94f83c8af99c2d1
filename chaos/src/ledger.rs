//! The ledger: one JSON line per answered request, written by the client that asked.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A longer line is damage, not an entry.
const LINE_BYTES_MAX: usize = 4096;

/// One acknowledged decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises by one with each request of the client, answered or not.
    pub seq: u64,
    pub transaction_id: String,
    /// Milliseconds since the client started.
    pub acknowledged_ms: u64,
    pub verdict: String,
    /// `KAFKA`, `LOCAL` or `NONE`: only the first two promise that the event is kept.
    pub durability: String,
}

impl Entry {
    pub fn promised(&self) -> bool {
        matches!(self.durability.as_str(), "KAFKA" | "LOCAL")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("ledger {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("ledger {} line {line}: {problem}", path.display())]
    Line { path: PathBuf, line: usize, problem: String },
}

/// Reads a ledger. A last line without its end was being written when the client died; it is left out, and only there.
///
/// # Errors
/// When the file cannot be read, a line is damaged, or a transaction id stands in it twice.
pub fn read(path: &Path) -> Result<BTreeMap<String, Entry>, LedgerError> {
    let failed = |source| LedgerError::Read { path: path.to_owned(), source };
    let mut lines = BufReader::new(File::open(path).map_err(failed)?);
    let mut entries = BTreeMap::new();
    for line in 1.. {
        let mut text = String::new();
        if lines.read_line(&mut text).map_err(failed)? == 0 || !text.ends_with('\n') {
            break;
        }
        let problem = |problem: String| LedgerError::Line { path: path.to_owned(), line, problem };
        if text.len() > LINE_BYTES_MAX {
            return Err(problem(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        let entry: Entry = serde_json::from_str(&text).map_err(|error| problem(error.to_string()))?;
        if let Some(twice) = entries.insert(entry.transaction_id.clone(), entry) {
            return Err(problem(format!("transaction {} stands here twice", twice.transaction_id)));
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64) -> String {
        format!("{{\"seq\":{seq},\"transaction_id\":\"t{seq}\",\"acknowledged_ms\":5,\"verdict\":\"APPROVE\",\"durability\":\"KAFKA\"}}\n")
    }

    fn read_text(text: &str) -> Result<BTreeMap<String, Entry>, LedgerError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read(file.path())
    }

    #[test]
    fn the_line_that_was_being_written_when_the_client_died_is_left_out() {
        let text = line(1) + &line(2) + &line(3)[..20];
        assert_eq!(read_text(&text).unwrap().len(), 2);
    }

    #[test]
    fn damage_in_the_middle_is_an_error_that_names_the_line() {
        let text = line(1) + "{\"seq\":\n" + &line(3);
        assert!(read_text(&text).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn one_transaction_is_acknowledged_once() {
        assert!(read_text(&(line(1) + &line(1))).unwrap_err().to_string().contains("twice"));
    }
}
