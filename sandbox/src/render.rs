//! Configuration files of a region as text. Pure: everything derives from the region and a few facts about the machine.

use anyhow::{Result, ensure};

use crate::instance::Region;
use crate::volumes;

pub(crate) const MODELS_PORT: u16 = 9000;

/// What the files depend on beyond the region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// Only version 2 cgroups are mounted.
    pub cgroups_unified: bool,
    /// The state folder can be the upper side of an overlay mount.
    pub overlay_works: bool,
}

/// Images that every region needs, by full name.
#[derive(Clone, Debug)]
pub(crate) struct SystemImages {
    pub pause: String,
    pub coredns: String,
    pub metrics_server: String,
}

/// Path below the region's folder, and content.
pub(crate) fn files(
    region: &Region,
    machine: Machine,
    images: &SystemImages,
    kafka_cluster_id: &str,
) -> Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("audit-policy.yaml", AUDIT_POLICY.to_owned()),
        ("containerd.toml", containerd(region, machine, images)),
        ("cni/conf/10-pods.conflist", cni(region)),
        ("kubelet.yaml", kubelet(region, machine)),
        ("kube-proxy.yaml", kube_proxy(region)),
        ("resolv.conf", format!("nameserver {}\n", region.addresses.dns_service())),
        ("kafka/server.properties", kafka(region)),
        ("kafka/log4j2.yaml", LOG4J.to_owned()),
        ("kafka/cluster-id", kafka_cluster_id.to_owned()),
        ("system.yaml", system_manifest(region, images)?),
        ("volumes.yaml", volumes::manifest(region)),
    ])
}

/// Every write is recorded, reads are not: tests count the writes of an idle cluster. Reviews are posted but store nothing.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: None
    verbs: [get, list, watch]
  - level: None
    resources: [{group: authentication.k8s.io}, {group: authorization.k8s.io}]
  - level: Metadata
";

const LOG4J: &str = "Configuration:
  Appenders:
    Console:
      name: STDOUT
      PatternLayout: {pattern: '%d{ISO8601} %p %c{1}: %m%n'}
  Loggers:
    Root:
      level: WARN
      AppenderRef: [{ref: STDOUT}]
    Logger:
      - {name: kafka.server.KafkaRaftServer, level: INFO}
";

fn containerd(region: &Region, machine: Machine, images: &SystemImages) -> String {
    format!(
        r#"version = 2
root = "{root}"
state = "{run}/containerd"

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Machines that are containers themselves forbid to lower it.
  restrict_oom_score_adj = true
  # Below our own folder, so that a tear-down finds them.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{run}/runc"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"#,
        root = region.path("containerd").display(),
        run = region.path("run").display(),
        socket = region.containerd_socket().display(),
        pause = images.pause,
        snapshotter = if machine.overlay_works { "overlayfs" } else { "native" },
        cni = region.path("cni/conf").display(),
    )
}

/// `ptp` and not `bridge`: all traffic of pods is routed, so a reply between two pods of a node passes connection tracking and a
/// ClusterIP works without the kernel module `br_netfilter`. No masquerading: pods of all regions see each other's addresses.
fn cni(region: &Region) -> String {
    let config = serde_json::json!({
        "cniVersion": "0.4.0",
        "name": region.network_name(),
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "mtu": 1500,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": region.addresses.pods.to_string()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": region.path("cni/addresses"),
            }
        }]
    });
    format!("{config:#}\n")
}

fn kubelet(region: &Region, machine: Machine) -> String {
    // The kubelet refuses version 1 machines unless it is told not to.
    let version_1 = if machine.cgroups_unified { "" } else { "failCgroupV1: false\n" };
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
{version_1}cgroupDriver: cgroupfs
# Pods become cgroups below the region's, which is how a tear-down finds their processes.
cgroupRoot: {cgroup}
cgroupsPerQOS: true
enforceNodeAllocatable: []
failSwapOn: false
makeIPTablesUtilChains: false
containerRuntimeEndpoint: unix://{socket}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {folder}/pki/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {folder}/pki/kubelet.crt
tlsPrivateKeyFile: {folder}/pki/kubelet.key
clusterDNS: [{dns}]
clusterDomain: cluster.local
resolvConf: {folder}/resolv.conf
podLogsDir: {folder}/pod-logs
volumePluginDir: {folder}/kubelet/plugins-exec
serializeImagePulls: false
imageGCHighThresholdPercent: 100
evictionHard: {{}}
maxPods: 110
nodeStatusUpdateFrequency: 5s
nodeStatusReportFrequency: 5m
volumeStatsAggPeriod: -1s
",
        cgroup = region.cgroup(),
        socket = region.containerd_socket().display(),
        folder = region.folder.display(),
        dns = region.addresses.dns_service(),
    )
}

fn kube_proxy(region: &Region) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
bindAddress: {node}
clusterCIDR: {pods}
clientConnection: {{kubeconfig: {folder}/proxy.kubeconfig}}
hostnameOverride: {name}
nodePortAddresses: [{node}/32]
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {{maxPerCore: 0}}
",
        node = region.addresses.node,
        pods = region.addresses.pods,
        folder = region.folder.display(),
        name = region.name,
    )
}

fn kafka(region: &Region) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
listeners=PLAINTEXT://{node}:9092,CONTROLLER://127.0.0.1:9093
advertised.listeners=PLAINTEXT://{node}:9092
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/data
auto.create.topics.enable=false
num.partitions=4
default.replication.factor=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
background.threads=2
log.cleaner.dedupe.buffer.size=16777216
",
        node = region.addresses.node,
        folder = region.path("kafka").display(),
    )
}

fn system_manifest(region: &Region, images: &SystemImages) -> Result<String> {
    let hosts: String =
        region.peers.iter().map(|(name, node)| format!("            {node} node.{name} kafka.{name} models.{name}\n")).collect();
    fill(
        include_str!("../manifests/system.yaml"),
        &[
            ("COREDNS_IMAGE", &images.coredns),
            ("METRICS_SERVER_IMAGE", &images.metrics_server),
            ("DNS_SERVICE", &region.addresses.dns_service().to_string()),
            ("HOSTS", hosts.trim_end()),
        ],
    )
}

/// Puts values for `@NAME@`. Every value must be used and no name may be left.
fn fill(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut text = template.to_owned();
    for (name, value) in values {
        let mark = format!("@{name}@");
        ensure!(text.contains(&mark), "the template has no {mark}");
        text = text.replace(&mark, value);
    }
    ensure!(!text.contains('@'), "the template has a name without a value");
    Ok(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::address::site_addresses;
    use crate::toolbox::Toolbox;

    pub(crate) fn region() -> Region {
        let names = ["us-east", "eu-west", "ap-south"];
        Region {
            instance: "default".to_owned(),
            name: "eu-west".to_owned(),
            addresses: site_addresses(0, 1),
            folder: "/state/default/eu-west".into(),
            peers: names.into_iter().zip(0..).map(|(name, site)| (name.to_owned(), site_addresses(0, site).node)).collect(),
        }
    }

    pub(crate) fn toolbox() -> Toolbox {
        Toolbox {
            kubebox: "/tools/kubebox".into(),
            coredns: "/tools/coredns".into(),
            metrics_server: "/tools/metrics-server".into(),
            kafka_libs: "/tools/kafka".into(),
            java: PathBuf::from("/usr/bin/java"),
            images: Vec::new(),
            helm: None,
            onnxruntime: None,
        }
    }

    fn rendered(machine: Machine) -> Vec<(&'static str, String)> {
        let images = SystemImages {
            pause: "docker.io/fraudpipeline/pause:1".to_owned(),
            coredns: "docker.io/fraudpipeline/coredns:2".to_owned(),
            metrics_server: "docker.io/fraudpipeline/metrics-server:3".to_owned(),
        };
        files(&region(), machine, &images, "cluster").unwrap()
    }

    #[test]
    fn files_of_a_region_match_their_goldens() {
        for (path, content) in rendered(Machine { cgroups_unified: false, overlay_works: true }) {
            insta::assert_snapshot!(path.replace('/', "_"), content);
        }
    }

    #[test]
    fn machines_with_other_cgroups_or_file_systems_get_other_settings() {
        let find = |machine: Machine, wanted: &str| {
            rendered(machine).into_iter().find(|(path, _)| *path == wanted).map(|(_, content)| content).unwrap()
        };
        let unified = Machine { cgroups_unified: true, overlay_works: false };
        assert!(!find(unified, "kubelet.yaml").contains("failCgroupV1"));
        assert!(find(unified, "containerd.toml").contains("snapshotter = \"native\""));
    }

    #[test]
    fn rendered_yaml_is_yaml() {
        for (path, content) in rendered(Machine { cgroups_unified: false, overlay_works: true }) {
            if path.ends_with(".yaml") {
                for document in content.split("\n---\n") {
                    serde_yaml::from_str::<serde_json::Value>(document).unwrap_or_else(|error| panic!("{path}: {error}\n{document}"));
                }
            }
        }
    }

    #[test]
    fn a_template_with_a_name_that_nobody_fills_is_an_error() {
        assert!(fill("a: @A@ b: @B@", &[("A", "1")]).is_err());
        assert!(fill("a: 1", &[("A", "1")]).is_err());
        assert_eq!(fill("a: @A@", &[("A", "1")]).unwrap(), "a: 1");
    }
}
