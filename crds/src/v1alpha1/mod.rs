//! Version `v1alpha1` of the API: one file per kind, and one per area of `FraudPipeline.spec`.

pub mod chaos_drill;
pub mod common;
pub mod failover;
pub mod features;
pub mod fraud_pipeline;
pub mod inputs;
pub mod kafka;
pub mod mirror;
pub mod model;
pub mod pipeline_action;
pub mod region;
pub mod region_failover;
pub mod region_plan;
pub mod scoring;
pub mod status;
pub mod text;

pub use chaos_drill::{ChaosDrill, ChaosDrillSpec, ChaosDrillStatus};
pub use fraud_pipeline::{FraudPipeline, FraudPipelineSpec};
pub use pipeline_action::{PipelineAction, PipelineActionSpec, PipelineActionStatus};
pub use region_failover::{RegionFailover, RegionFailoverSpec, RegionFailoverStatus};
pub use region_plan::{RegionPlan, RegionPlanSpec, RegionPlanStatus};
pub use status::FraudPipelineStatus;
