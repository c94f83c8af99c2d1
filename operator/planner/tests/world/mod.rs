//! A small pipeline of three regions, one shard each.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;

use domain::{Epoch, HostPort, Known, ModelRef, PipelineName, Plan, RegionName};
use operator_planner::{
    Component, CurrentPlan, Observation, PlanInput, RegionFacts, RegionKind, SpecFacts, TopicsState, Workload, plan as make_plan, view_of,
};

const NAMES: [&str; 3] = ["us-east", "eu-west", "ap-south"];

pub fn region(index: usize) -> RegionName {
    RegionName::new(NAMES[index]).unwrap()
}

pub fn address(index: usize, shard: u16) -> HostPort {
    HostPort { host: format!("fs-{shard}.{}.example.com", NAMES[index]), port: 6379 }
}

pub fn spec() -> SpecFacts {
    let facts = |index: usize| RegionFacts {
        name: region(index),
        kind: RegionKind::DataPlane,
        preference: Some(u32::try_from(index).unwrap() + 1),
        exposed: vec![address(index, 0)],
        ingress: vec![format!("203.0.113.{index}")],
    };
    SpecFacts {
        pipeline: PipelineName::new("payments").unwrap(),
        namespace: "fraud".into(),
        regions: (0..3).map(facts).collect(),
        shards: 1,
        model: ModelRef { uri: "s3://models/full.onnx".into(), sha256: "ab".into() },
        light_model: None,
        version: None,
        effective: serde_json::json!({"features": {"shards": 1}}),
    }
}

pub fn current(plan: Plan) -> CurrentPlan {
    CurrentPlan { sha256: plan.to_bytes().unwrap().sha256().to_owned(), plan }
}

/// The first plan, as if its epoch were `epoch`.
pub fn plan(epoch: u64, seeded: bool) -> Plan {
    let (region, spec, seen) = (region(0), spec(), Observation::nothing("test"));
    let input = PlanInput { region: &region, spec: &spec, current: None, seen: &seen, newest_version: "0.1.0" };
    let mut plan = make_plan(&input).plan.unwrap();
    plan.epoch = Epoch(epoch);
    if seeded {
        plan.features.seeded_shards = [0].into();
    }
    plan
}

/// All but the shards is as the plan of epoch 2 says.
pub fn settled(own: usize) -> Observation {
    let fresh = |value| Known::Fresh { value, seen_at_ms: 0 };
    Observation {
        view: Known::Fresh { value: view_of(&plan(2, false), &region(own), &Observation::nothing("test")), seen_at_ms: 0 },
        topics: Known::Fresh { value: TopicsState::Ready, seen_at_ms: 0 },
        shards: vec![],
        copies: BTreeMap::new(),
        faults: Vec::new(),
        components: [Component::Decision, Component::Inference, Component::Builder]
            .map(|component| (component, fresh(Workload { ready: 1, wanted: 1 })))
            .into(),
    }
}
