//! The FraudPipeline operator.

fn main() {}
