//! Who may talk to whom. Everything is denied for the pipeline's pods, and each part then gets its own few edges.
//!
//! Kafka, buckets and other regions are addresses outside the cluster, so their edges go by port, and by the other
//! regions' address blocks where the manifest has them.

use std::collections::BTreeSet;

use domain::RegionName;
use serde_json::{Value, json};

use super::{BuildInput, features::REDIS_PORT, inference, pod::ADMIN_PORT};
use crate::kinds::{Desired, Kind, Part, labels, object, selector};

pub(super) fn policies(input: &BuildInput<'_>) -> Vec<Desired> {
    let edges = Edges { input };
    let admin = edges.by_any_namespace(&[ADMIN_PORT]);
    let mut policies = vec![
        edges.deny_all(),
        edges.policy(
            Part::Decision,
            // Clients are outside: payment services, load balancers.
            vec![json!({"ports": ports(&[8443, 8080])}), admin.clone()],
            vec![
                edges.dns(),
                edges.to_part(Part::FeatureStore, REDIS_PORT),
                edges.to_part(Part::Inference, inference::GRPC_PORT),
                edges.to_kafka(&[input.region]),
                edges.to_models(),
            ],
        ),
        edges.policy(
            Part::Inference,
            vec![edges.by_part(Part::Decision, &[inference::GRPC_PORT, 8082]), admin.clone()],
            vec![edges.dns(), edges.to_models()],
        ),
        edges.policy(
            Part::Builder,
            vec![admin.clone()],
            vec![edges.dns(), edges.to_part(Part::FeatureStore, REDIS_PORT), edges.to_kafka(&[input.region])],
        ),
        edges.policy(
            Part::FeatureStore,
            edges.to_shards(),
            vec![
                edges.dns(),
                edges.to_part(Part::FeatureStore, REDIS_PORT),
                edges.to_part(Part::Snapshot, REDIS_PORT),
                edges.to_other_shards(),
            ],
        ),
        edges.policy(
            Part::Snapshot,
            // What is put back is fetched by the shards, as from a primary.
            vec![edges.by_part(Part::FeatureStore, &[REDIS_PORT])],
            [edges.dns(), edges.to_part(Part::FeatureStore, REDIS_PORT)].into_iter().chain(edges.to_snapshots()).collect(),
        ),
    ];
    let others: Vec<_> = input.other_regions().map(|(region, _)| region).collect();
    if !others.is_empty() {
        let kafkas: Vec<_> = others.into_iter().chain([input.region]).collect();
        policies.push(edges.policy(Part::Mirror, vec![admin], vec![edges.dns(), edges.to_kafka(&kafkas)]));
    }
    policies
}

struct Edges<'a> {
    input: &'a BuildInput<'a>,
}

impl Edges<'_> {
    fn deny_all(&self) -> Desired {
        let pods = json!({"app.kubernetes.io/name": "fraudpipeline", "app.kubernetes.io/instance": self.input.pipeline()});
        let spec = json!({"podSelector": {"matchLabels": pods}, "policyTypes": ["Ingress", "Egress"]});
        let labels = labels(self.input.pipeline(), Part::Plan);
        object(self.input.owner, Kind::NetworkPolicy, self.input.name("default-deny"), labels, json!({"spec": spec}))
    }

    fn policy(&self, part: Part, ingress: Vec<Value>, egress: Vec<Value>) -> Desired {
        let spec = json!({
            "podSelector": {"matchLabels": selector(self.input.pipeline(), part)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        });
        let name = self.input.name(part.label());
        object(self.input.owner, Kind::NetworkPolicy, name, labels(self.input.pipeline(), part), json!({"spec": spec}))
    }

    fn pods(&self, part: Part) -> Value {
        json!([{"podSelector": {"matchLabels": selector(self.input.pipeline(), part)}}])
    }

    fn by_part(&self, part: Part, numbers: &[u16]) -> Value {
        json!({"from": self.pods(part), "ports": ports(numbers)})
    }

    fn to_part(&self, part: Part, number: u16) -> Value {
        json!({"to": self.pods(part), "ports": ports(&[number])})
    }

    fn by_any_namespace(&self, numbers: &[u16]) -> Value {
        json!({"from": [{"namespaceSelector": {}}], "ports": ports(numbers)})
    }

    fn dns(&self) -> Value {
        json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]})
    }

    fn to_kafka(&self, regions: &[&RegionName]) -> Value {
        let named = regions.iter().filter_map(|region| self.input.effective.spec.region(region.as_str())?.kafka.as_ref());
        let numbers: BTreeSet<u16> =
            named.flat_map(|kafka| &kafka.bootstrap_servers).filter_map(|server| port_of(server.as_str())).collect();
        json!({"ports": ports(&numbers.into_iter().collect::<Vec<_>>())})
    }

    fn to_models(&self) -> Value {
        let endpoint = self.input.effective.region.model.as_ref().and_then(|model| url_port(model.endpoint.as_str()));
        let light = self.input.effective.spec.model.light.as_ref().and_then(|light| url_port(light.uri.as_str()));
        let full = url_port(self.input.effective.spec.model.uri.as_str());
        let numbers: BTreeSet<u16> = [endpoint, light, full].into_iter().flatten().collect();
        // A model in a file needs no network; an empty list of ports would mean every port.
        let numbers = if numbers.is_empty() { vec![443] } else { numbers.into_iter().collect() };
        json!({"ports": ports(&numbers)})
    }

    /// The bucket of snapshots, where they go to one.
    fn to_snapshots(&self) -> Option<Value> {
        let destination = &self.input.effective.spec.features.backup.as_ref()?.destination;
        let port = url_port(destination.s3.as_ref()?.endpoint.as_str())?;
        Some(json!({"ports": ports(&[port])}))
    }

    /// The pipeline's own pods, the operator, and the other regions' shards.
    fn to_shards(&self) -> Vec<Value> {
        let mut edges = vec![
            self.by_part(Part::Decision, &[REDIS_PORT]),
            self.by_part(Part::Builder, &[REDIS_PORT]),
            self.by_part(Part::Snapshot, &[REDIS_PORT]),
            // The processes of a shard follow each other.
            self.by_part(Part::FeatureStore, &[REDIS_PORT]),
            json!({
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "fraudpipeline", "app.kubernetes.io/component": "operator"}}}],
                "ports": ports(&[REDIS_PORT]),
            }),
        ];
        if self.input.other_regions().next().is_some() {
            edges.push(self.between_regions("from", &[REDIS_PORT]));
        }
        edges
    }

    fn to_other_shards(&self) -> Value {
        let addresses =
            self.input.plan.features.exposed.iter().filter(|(region, _)| *region != self.input.region).flat_map(|(_, addresses)| addresses);
        let numbers: BTreeSet<u16> = addresses.map(|address| address.port).chain([REDIS_PORT]).collect();
        self.between_regions("to", &numbers.into_iter().collect::<Vec<_>>())
    }

    /// All regions' blocks if every region has some (a node may answer for a pod, so this region's count too), else any
    /// address: the password still stands before the data.
    fn between_regions(&self, direction: &str, numbers: &[u16]) -> Value {
        let regions = || self.input.effective.spec.regions.iter().filter(|region| region.runs_the_data_plane());
        if regions().any(|region| region.cidrs.is_empty()) {
            return json!({"ports": ports(numbers)});
        }
        let blocks: BTreeSet<&str> = regions().flat_map(|region| &region.cidrs).map(|cidr| cidr.as_str()).collect();
        let peers: Vec<_> = blocks.into_iter().map(|block| json!({"ipBlock": {"cidr": block}})).collect();
        json!({direction: peers, "ports": ports(numbers)})
    }
}

fn ports(numbers: &[u16]) -> Value {
    numbers.iter().map(|number| json!({"protocol": "TCP", "port": number})).collect()
}

fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

fn url_port(url: &str) -> Option<u16> {
    let (default, rest) = match url.split_once("://")? {
        ("http", rest) => (80, rest),
        ("https", rest) => (443, rest),
        _ => return None,
    };
    let host = rest.split('/').next().unwrap_or_default();
    Some(port_of(host).unwrap_or(default))
}
