//! The feature builder: folds the event logs into the feature store.

fn main() {}
