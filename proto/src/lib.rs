//! The `.proto` files under `proto/` and the Rust code generated from them, checked in under `src/generated`.
//!
//! `cargo xtask proto` writes the generated code anew; a test fails when it differs from what the `.proto` files say.
#![forbid(unsafe_code)]

/// The scoring API and the records in Kafka.
pub mod fraud {
    #[allow(clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod v1 {
        include!("generated/fraud.v1.rs");
    }
}

/// The Open Inference Protocol, version 2 (gRPC).
#[allow(clippy::all, clippy::pedantic, unreachable_pub)]
pub mod inference {
    include!("generated/inference.rs");
}
