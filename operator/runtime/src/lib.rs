//! The operator of one region: observes the cluster, commits plans, applies owned objects, reports status.
//!
//! One pass is in [`reconcile`](mod@reconcile), on one page. Decisions are not made here: they are in `operator-planner`
//! and `operator-register`. Modules without IO: `build`, `config`, `covers`, `facts`, `kinds`, `render`, `validate`, and
//! the mapping in `report`.
//!
//! # Rights that it needs
//!
//! In the namespaces of pipelines (a ClusterRole, or a Role in each of `watchNamespaces`):
//!
//! | group | resources | verbs |
//! |---|---|---|
//! | fraudpipeline.dev | fraudpipelines | get list watch patch |
//! | fraudpipeline.dev | fraudpipelines/status | patch |
//! | fraudpipeline.dev | fraudpipelines/finalizers | update |
//! | fraudpipeline.dev | regionplans | get list watch create update delete |
//! | fraudpipeline.dev | regionplans/status | patch |
//! | (core) | serviceaccounts services configmaps | get list watch create patch delete |
//! | (core) | secrets | get |
//! | apps | statefulsets deployments | get list watch create patch delete |
//! | autoscaling | horizontalpodautoscalers | get list watch create patch delete |
//! | policy | poddisruptionbudgets | get list watch create patch delete |
//! | networking.k8s.io | networkpolicies | get list watch create patch delete |
//! | events.k8s.io | events | create patch |
//!
//! In the cluster: storage.k8s.io storageclasses: get (without it, a StorageClass that does not exist shows in the pods
//! and not in the condition Accepted). In its own namespace: coordination.k8s.io leases: get create
//! update. Discovery of API groups is open to every account.
//!
//! Network: the API server; the shards of this region (6379) and, as the manifest exposes them, those of the others; this
//! region's Kafka; DNS.
#![forbid(unsafe_code)]

mod apply;
mod build;
mod cache;
mod client;
pub mod config;
mod controller;
mod covers;
mod deletion;
mod error;
mod execute;
mod facts;
mod kinds;
mod lease;
mod metrics;
#[cfg(test)]
mod mock;
mod observe;
mod reconcile;
mod register;
mod render;
mod report;
#[cfg(test)]
mod testing;
mod validate;

pub use controller::{RunError, run};
pub use kinds::{Desired, Kind};
pub use register::{KubeRegister, PipelineKey, Register, RegisterError};
pub use render::{RenderError, objects, render};
