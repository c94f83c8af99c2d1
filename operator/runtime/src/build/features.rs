//! The feature store: for each shard some Redis processes, names for each of them and for the one that leads, and a way to
//! that one from outside.
//!
//! A process starts as a replica of an address where nothing listens. It takes no writes and gives no copies until the
//! operator has decided what it is.

use crds::{
    FraudPipelineSpec,
    common::{ContainerResources, PodTemplate},
    names,
    region::FeatureExposureType,
};
use domain::ShardAddress;
use serde_json::{Value, json};

use super::{BuildError, BuildInput, digest, pod, scaling};
use crate::kinds::{Desired, Kind, Part, labels, merged, object, selector};

const PART: Part = Part::FeatureStore;
pub(super) const REDIS_PORT: u16 = 6379;
const CONFIG_FILE: &str = "redis.conf";
const CONFIG_FOLDER: &str = "/etc/fraudpipeline/config";
const SECRET_FOLDER: &str = "/etc/fraudpipeline/redis";
const TLS_FOLDER: &str = "/etc/fraudpipeline/redis-tls";
const DATA_FOLDER: &str = "/var/lib/redis";
const MEBIBYTE: u64 = 1 << 20;
/// Kubernetes itself puts it on a StatefulSet's pods.
const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const COPY_WITHIN_SECONDS: u64 = 30;

pub(super) fn objects(input: &BuildInput<'_>) -> Result<Vec<Desired>, BuildError> {
    let store = input.store_name();
    let memory = input.effective.spec.features.memory.to_units().map_err(|error| BuildError::new("features.memory", error))?;
    let config = redis_conf(memory);
    let mut objects = vec![
        scaling::service_account(input, PART),
        scaling::config_map(input, PART, store.clone(), CONFIG_FILE, &config),
        scaling::disruption_budget(input, PART, store),
    ];
    for shard in 0..input.plan.features.slots.shards() {
        let shard = Shard { input, number: shard, name: format!("{}-s{shard}", input.store_name()) };
        objects.push(shard.stateful_set(&config, memory));
        objects.push(shard.service());
        objects.push(shard.leading_service());
        objects.extend(shard.exposing_service()?);
    }
    Ok(objects)
}

/// One configuration for all shards. Nothing is spoken in plain text. Clients show no certificate: they log in, each role with
/// its own password. The backlog lets a replica that was away go on where it was; it costs memory beside
/// `maxmemory`, as the buffers of replicas do.
fn redis_conf(memory: u64) -> String {
    let backlog = backlog_bytes(memory);
    format!(
        "# Written by the operator. Every process starts as a replica of nowhere.\n\
         include {SECRET_FOLDER}/replication.conf\n\
         aclfile {SECRET_FOLDER}/users.acl\n\
         replicaof 127.0.0.1 1\n\
         bind * -::*\n\
         port 0\n\
         tls-port {REDIS_PORT}\n\
         tls-cert-file {TLS_FOLDER}/tls.crt\n\
         tls-key-file {TLS_FOLDER}/tls.key\n\
         tls-ca-cert-file {TLS_FOLDER}/ca.crt\n\
         tls-replication yes\n\
         tls-auth-clients no\n\
         protected-mode no\n\
         dir {DATA_FOLDER}\n\
         save \"\"\n\
         appendonly no\n\
         maxmemory {memory}\n\
         maxmemory-policy noeviction\n\
         replica-read-only yes\n\
         replica-serve-stale-data yes\n\
         min-replicas-max-lag 2\n\
         repl-backlog-size {backlog}\n\
         repl-backlog-ttl 0\n\
         repl-diskless-sync yes\n\
         repl-diskless-sync-delay 0\n\
         repl-ping-replica-period 1\n\
         repl-timeout 10\n\
         client-output-buffer-limit replica {} 0 0\n\
         tcp-keepalive 60\n\
         timeout 0\n",
        backlog * 2
    )
}

pub(crate) fn backlog_bytes(memory: u64) -> u64 {
    (memory / 8).clamp(8 * MEBIBYTE, 512 * MEBIBYTE)
}

/// How many processes a shard has here. One that leads is kept until another one does.
pub(crate) fn process_count(spec: &FraudPipelineSpec, told: Option<&ShardAddress>) -> u16 {
    let wanted = u16::try_from(spec.features.replicas_per_shard).unwrap_or(0) + 1;
    told.map_or(wanted, |told| wanted.max(told.process + 1))
}

struct Shard<'a> {
    input: &'a BuildInput<'a>,
    number: u16,
    name: String,
}

impl Shard<'_> {
    fn label(&self) -> Value {
        json!({names::SHARD_LABEL: self.number.to_string()})
    }

    fn selector(&self) -> Value {
        merged(selector(self.input.pipeline(), PART), self.label())
    }

    fn labels(&self) -> Value {
        merged(labels(self.input.pipeline(), PART), self.label())
    }

    fn stateful_set(&self, config: &str, memory: u64) -> Desired {
        let told = self.input.view.shard(self.number);
        let pod = pod::Pod {
            part: PART,
            labels: self.label(),
            container: self.container(memory),
            volumes: vec![
                pod::config_map_volume("config", &self.input.store_name()),
                pod::secret_files(
                    "redis",
                    &self.input.name("redis"),
                    &[("users.acl", "users.acl"), ("replication.conf", "replication.conf")],
                ),
                pod::secret_volume("tls", &self.input.name("redis-tls")),
                pod::empty_dir("data", &format!("{}Mi", (memory * 2).div_ceil(MEBIBYTE))),
            ],
            config_digest: digest(config),
            grace_seconds: 15,
        };
        let spec = json!({
            "serviceName": self.name,
            "replicas": process_count(&self.input.effective.spec, told),
            "revisionHistoryLimit": 5,
            // A process that cannot start must not keep the others from it.
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            // One after the other: a process that was replaced is empty, and first gets a copy from one that was not.
            "minReadySeconds": COPY_WITHIN_SECONDS,
            "selector": {"matchLabels": self.selector()},
            "template": self.spread(pod::template(self.input, pod, &PodTemplate::default())),
        });
        object(self.input.owner, Kind::StatefulSet, self.name.clone(), self.labels(), json!({"spec": spec}))
    }

    /// The processes of one shard on nodes of their own, as far as there are some: instead of all shards' processes, since the API
    /// knows a constraint by its topology alone.
    fn spread(&self, mut template: Value) -> Value {
        let constraints = template.pointer_mut("/spec/topologySpreadConstraints").and_then(Value::as_array_mut);
        for constraint in constraints.into_iter().flatten().filter(|constraint| constraint["topologyKey"] == "kubernetes.io/hostname") {
            constraint["labelSelector"] = json!({"matchLabels": self.selector()});
        }
        template
    }

    fn container(&self, memory: u64) -> Value {
        // A command in the container costs a tenth of a second of a core each time, in all shards of a machine at once: it proves
        // once that the process answers and knows its users. From then on the operator looks at what the process says of itself,
        // and nothing but a closed port ends it: a restart empties a process that is only slow.
        let answers = json!({"exec": {"command": ["redis-cli", "-e", "--tls", "--cacert", format!("{TLS_FOLDER}/ca.crt"), "--user", "probe", "ping"]}});
        let listens = json!({"tcpSocket": {"port": REDIS_PORT}});
        let probe = |test: &Value, period: u64, failures: u64| {
            merged(test.clone(), json!({"periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}))
        };
        // Beside the data: the backlog, twice that for replicas that are late, and what the process itself needs.
        let needed = memory + 3 * backlog_bytes(memory) + 32 * MEBIBYTE;
        let amount = format!("{}Mi", needed.div_ceil(MEBIBYTE));
        json!({
            "name": "redis",
            "image": self.input.images.redis,
            "command": ["redis-server", format!("{CONFIG_FOLDER}/{CONFIG_FILE}")],
            "env": [{"name": "REDISCLI_AUTH", "valueFrom": {"secretKeyRef": {"name": self.input.name("redis"), "key": "probe.password"}}}],
            "ports": [pod::port("redis", REDIS_PORT)],
            "resources": pod::resources(&ContainerResources::default(), "100m", &amount, &amount),
            "volumeMounts": [
                pod::mount("config", CONFIG_FOLDER),
                pod::mount("redis", SECRET_FOLDER),
                pod::mount("tls", TLS_FOLDER),
                pod::writable_mount("data", DATA_FOLDER),
            ],
            "startupProbe": probe(&answers, 1, 60),
            "livenessProbe": probe(&listens, 20, 3),
            "readinessProbe": probe(&listens, 10, 2),
        })
    }

    /// The names of the shard's pods. Also while they are not ready: the operator has to reach them to make them so.
    fn service(&self) -> Desired {
        let spec = json!({
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": self.selector(),
            "ports": [scaling::service_port("redis", REDIS_PORT)],
        });
        object(self.input.owner, Kind::Service, self.name.clone(), self.labels(), json!({"spec": spec}))
    }

    /// Selects the process that leads here.
    fn leading(&self) -> Value {
        let process = self.input.view.shard(self.number).map_or(0, |told| told.process);
        merged(self.selector(), json!({POD_NAME_LABEL: format!("{}-{process}", self.name)}))
    }

    /// A name for the process that leads: it stays when another one does.
    fn leading_service(&self) -> Desired {
        let spec = json!({
            "type": "ClusterIP",
            "publishNotReadyAddresses": true,
            "selector": self.leading(),
            "ports": [scaling::service_port("redis", REDIS_PORT)],
        });
        object(self.input.owner, Kind::Service, format!("{}-primary", self.name), self.labels(), json!({"spec": spec}))
    }

    /// How the other regions reach the process that leads; none where they use the pod's own address, or where there are no others.
    fn exposing_service(&self) -> Result<Option<Desired>, BuildError> {
        let Some(features) = &self.input.effective.region.features else { return Ok(None) };
        let expose = &features.expose;
        let mut port = scaling::service_port("redis", REDIS_PORT);
        let kind = match expose.kind {
            FeatureExposureType::PodIp => return Ok(None),
            FeatureExposureType::NodePort => {
                port["nodePort"] = json!(expose.port + i32::from(self.number));
                "NodePort"
            }
            FeatureExposureType::LoadBalancer => {
                port["port"] = json!(expose.port);
                "LoadBalancer"
            }
        };
        let spec = json!({"type": kind, "publishNotReadyAddresses": true, "selector": self.leading(), "ports": [port]});
        let name = format!("{}-expose", self.name);
        let mut service = object(self.input.owner, Kind::Service, name, self.labels(), json!({"spec": spec}));
        if !expose.annotations.is_empty() {
            service.value["metadata"]["annotations"] = json!(expose.annotations);
        }
        Ok(Some(service))
    }
}
