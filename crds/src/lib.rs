//! The Kubernetes API: FraudPipeline, RegionPlan, RegionFailover, PipelineAction, ChaosDrill.
//!
//! The types are the source: [`definitions`] makes the CustomResourceDefinitions of them, `crds/yaml` holds these as
//! files, and a test compares. Doc comments become `kubectl explain`. What one object can check is a CEL rule in the
//! schema, each with a sentence that says what to write instead.
//!
//! No IO: files are written by the test that compares them.
#![forbid(unsafe_code)]

mod canonical;
pub mod conditions;
mod definitions;
mod effective;
mod gates;
mod implemented;
mod leaves;
pub mod names;
// KubeSchema copies each struct into a private one to derive from, and the copies keep `pub`; and printer columns of one
// type are not duplicates.
#[allow(unreachable_pub, clippy::duplicated_attributes)]
pub mod v1alpha1;

pub use definitions::{Kind, definitions};
pub use effective::{EffectiveRegionSpec, UnknownRegion};
pub use gates::{ComesWith, Gate, KIND_GATES, NotImplemented, PIPELINE_GATES, not_implemented_in_use};
pub use implemented::{ActedOn, IMPLEMENTED};
pub use leaves::leaves;
pub use v1alpha1::*;
