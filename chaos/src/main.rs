//! Drills: the runner, the ledger client and the independent audit.

fn main() {}
