//! From a manifest to what the planner looks at. Pure.

use crds::{
    FraudPipelineSpec,
    region::{FeatureExposure, FeatureExposureType, Ingress, RegionSpec, RegionType},
};
use domain::{HostPort, ModelRef, PipelineName, RegionName};
use operator_planner::{RegionFacts, RegionKind, SpecFacts};

/// A value that the API server should have refused, or that nobody can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spec.{field}: {problem}")]
pub struct InvalidSpec {
    field: String,
    problem: String,
}

fn invalid(field: impl Into<String>, problem: impl std::fmt::Display) -> InvalidSpec {
    InvalidSpec { field: field.into(), problem: problem.to_string() }
}

/// # Errors
/// When a value cannot be used.
pub(crate) fn of_spec(name: &str, namespace: &str, spec: &FraudPipelineSpec) -> Result<SpecFacts, InvalidSpec> {
    let effective = spec.canonical().map_err(|error| invalid("", error))?;
    let shards = u16::try_from(spec.features.shards).map_err(|error| invalid("features.shards", error))?;
    let mut regions: Vec<&RegionSpec> = spec.regions.iter().collect();
    regions.sort_by(|a, b| a.name.cmp(&b.name));
    let model = |uri: &str, sha256: &str| ModelRef { uri: uri.to_owned(), sha256: sha256.to_owned() };
    Ok(SpecFacts {
        pipeline: PipelineName::new(name).map_err(|error| invalid("", error))?,
        namespace: namespace.to_owned(),
        regions: regions.into_iter().map(|region| of_region(region, shards)).collect::<Result<_, _>>()?,
        shards,
        model: model(spec.model.uri.as_str(), spec.model.sha256.as_str()),
        light_model: spec.model.light.as_ref().map(|light| model(light.uri.as_str(), light.sha256.as_str())),
        version: spec.version.as_ref().map(|version| version.as_str().to_owned()),
        effective,
    })
}

fn of_region(region: &RegionSpec, shards: u16) -> Result<RegionFacts, InvalidSpec> {
    let name = RegionName::new(region.name.as_str()).map_err(|error| invalid("regions", error))?;
    let preference = region.preference.map(u32::try_from).transpose();
    let exposed = match &region.features {
        Some(features) => (0..shards).map(|shard| address(&features.expose, shard)).collect::<Option<Vec<_>>>(),
        None => Some(Vec::new()),
    };
    Ok(RegionFacts {
        preference: preference.map_err(|error| invalid(format!("regions[{name}].preference"), error))?,
        kind: match region.kind {
            RegionType::DataPlane => RegionKind::DataPlane,
            RegionType::Witness => RegionKind::Witness,
        },
        exposed: exposed
            .ok_or_else(|| invalid(format!("regions[{name}].features.expose"), "a shard's port is beyond 65535: lower port"))?,
        ingress: region.ingress.as_ref().map(front_door).unwrap_or_default(),
        name,
    })
}

/// How other regions reach a shard. Pods' own addresses are not known beforehand: validation lets only a pipeline
/// of one region use them, which nobody else has to reach.
fn address(expose: &FeatureExposure, shard: u16) -> Option<HostPort> {
    let offset = if expose.kind == FeatureExposureType::NodePort { i32::from(shard) } else { 0 };
    let host = expose.host_template.as_ref().map_or("", |template| template.as_str()).replace("{shard}", &shard.to_string());
    Some(HostPort { host, port: u16::try_from(expose.port + offset).ok()? })
}

fn front_door(ingress: &Ingress) -> Vec<String> {
    let addresses = ingress.addresses.iter().flatten().map(|address| address.as_str().to_owned());
    addresses.chain(ingress.hostname.iter().map(|host| host.as_str().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> FraudPipelineSpec {
        let pipeline: crds::FraudPipeline = serde_yaml::from_str(include_str!("../../../examples/payments.yaml")).unwrap();
        pipeline.spec
    }

    #[test]
    fn regions_come_in_the_same_order_whatever_the_manifest_says() {
        let spec = example();
        let mut turned = spec.clone();
        turned.regions.reverse();
        let facts = of_spec("payments", "fraud", &spec).unwrap();
        assert_eq!(facts, of_spec("payments", "fraud", &turned).unwrap());
        assert_eq!(facts.regions.iter().map(|region| region.name.as_str()).collect::<Vec<_>>(), ["ap-south", "eu-west", "us-east"]);
    }

    #[test]
    fn with_node_ports_each_shard_has_the_next_one() {
        let facts = of_spec("payments", "fraud", &example()).unwrap();
        let east = facts.regions.iter().find(|region| region.name.as_str() == "us-east").unwrap();
        assert_eq!(east.exposed.iter().map(ToString::to_string).collect::<Vec<_>>(), ["node.us-east:30400", "node.us-east:30401"]);
    }

    #[test]
    fn with_load_balancers_each_shard_has_its_own_host() {
        let mut spec = example();
        let expose = &mut spec.regions[0].features.as_mut().unwrap().expose;
        expose.kind = FeatureExposureType::LoadBalancer;
        expose.host_template = Some("fs-{shard}.us-east.example.com".into());
        expose.port = 6379;
        let facts = of_spec("payments", "fraud", &spec).unwrap();
        let east = facts.regions.iter().find(|region| region.name.as_str() == "us-east").unwrap();
        assert_eq!(east.exposed[1].to_string(), "fs-1.us-east.example.com:6379");
    }
}
