//! The processes of a region: program, arguments and when each may start. Pure.

use std::path::PathBuf;

use crate::instance::Region;
use crate::render;
use crate::toolbox::Toolbox;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    AtOnce,
    /// When the API server has answered that it is ready.
    AfterApi,
}

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub name: &'static str,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub start: Start,
}

/// In the order in which they are started and listed.
pub(crate) fn of_region(region: &Region, toolbox: &Toolbox, own_program: PathBuf) -> Vec<Spec> {
    let kubernetes =
        |name: &'static str, args: Vec<String>, start: Start| Spec { name, program: region.path("../bin").join(name), args, start };
    vec![
        kubernetes("etcd", etcd(region), Start::AtOnce),
        kubernetes("kube-apiserver", api_server(region), Start::AtOnce),
        Spec {
            name: "containerd",
            program: "containerd".into(),
            args: vec![flag("config", region, "containerd.toml")],
            start: Start::AtOnce,
        },
        Spec { name: "kafka", program: "/bin/sh".into(), args: kafka(region, toolbox), start: Start::AtOnce },
        Spec { name: "models", program: own_program, args: models(region), start: Start::AtOnce },
        kubernetes("kube-controller-manager", controller_manager(region), Start::AfterApi),
        kubernetes("kube-scheduler", scheduler(region), Start::AfterApi),
        kubernetes("kubelet", kubelet(region), Start::AfterApi),
        kubernetes("kube-proxy", vec![flag("config", region, "kube-proxy.yaml")], Start::AfterApi),
    ]
}

fn flag(name: &str, region: &Region, file: &str) -> String {
    format!("--{name}={}", region.path(file).display())
}

fn texts(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

fn etcd(region: &Region) -> Vec<String> {
    let mut args = texts(&[
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--log-level=warn",
        // A bench does not outlive its machine; syncing each write would make the disk its bottleneck.
        "--unsafe-no-fsync",
        // One member elects itself; slow ticks keep it quiet.
        "--heartbeat-interval=500",
        "--election-timeout=2500",
        "--auto-compaction-retention=5m",
    ]);
    args.push(flag("data-dir", region, "etcd"));
    args
}

fn api_server(region: &Region) -> Vec<String> {
    let node = region.addresses.node;
    let mut args = texts(&[
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        "--bind-address=0.0.0.0",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--kubelet-preferred-address-types=InternalIP",
        "--endpoint-reconciler-type=lease",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        // The API server is no pod, so it reaches the metrics server by its endpoint and not by its Service.
        "--enable-aggregator-routing=true",
        "--audit-log-maxsize=64",
        "--audit-log-maxbackup=2",
        "--profiling=false",
    ]);
    args.push(format!("--advertise-address={node}"));
    args.push(format!("--service-cluster-ip-range={}", region.addresses.services));
    for (name, file) in [
        ("tls-cert-file", "pki/api-server.crt"),
        ("tls-private-key-file", "pki/api-server.key"),
        ("client-ca-file", "pki/ca.crt"),
        ("service-account-key-file", "pki/service-account.pub"),
        ("service-account-signing-key-file", "pki/service-account.key"),
        ("kubelet-certificate-authority", "pki/ca.crt"),
        ("kubelet-client-certificate", "pki/kubelet-client.crt"),
        ("kubelet-client-key", "pki/kubelet-client.key"),
        ("requestheader-client-ca-file", "pki/front-proxy-ca.crt"),
        ("proxy-client-cert-file", "pki/front-proxy-client.crt"),
        ("proxy-client-key-file", "pki/front-proxy-client.key"),
        ("audit-policy-file", "audit-policy.yaml"),
        ("audit-log-path", "log/audit.log"),
    ] {
        args.push(flag(name, region, file));
    }
    args
}

fn controller_manager(region: &Region) -> Vec<String> {
    let mut args = texts(&[
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        "--profiling=false",
        // A node that is lost is noticed within the time that a drill waits for.
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=20s",
    ]);
    for (name, file) in [
        ("kubeconfig", "controller-manager.kubeconfig"),
        ("authentication-kubeconfig", "controller-manager.kubeconfig"),
        ("authorization-kubeconfig", "controller-manager.kubeconfig"),
        ("service-account-private-key-file", "pki/service-account.key"),
        ("root-ca-file", "pki/ca.crt"),
    ] {
        args.push(flag(name, region, file));
    }
    args
}

fn scheduler(region: &Region) -> Vec<String> {
    let mut args = texts(&["--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false"]);
    for name in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        args.push(flag(name, region, "scheduler.kubeconfig"));
    }
    args
}

fn kubelet(region: &Region) -> Vec<String> {
    vec![
        flag("config", region, "kubelet.yaml"),
        flag("kubeconfig", region, "kubelet.kubeconfig"),
        flag("root-dir", region, "kubelet"),
        // Where the kubelet's built-in cAdvisor asks which container a cgroup is.
        format!("--containerd={}", region.containerd_socket().display()),
        format!("--hostname-override={}", region.name),
        format!("--node-ip={}", region.addresses.node),
        format!("--node-labels=topology.kubernetes.io/region={}", region.name),
        "--housekeeping-interval=15s".to_owned(),
    ]
}

/// Formats the storage the first time and becomes the broker, so that the process that is watched is the broker itself.
fn kafka(region: &Region, toolbox: &Toolbox) -> Vec<String> {
    let script = format!(
        "set -eu; cp='{libs}/*'; conf='{folder}/server.properties'\n\
         [ -f '{folder}/data/meta.properties' ] || '{java}' {jvm} -Xmx128m -cp \"$cp\" kafka.tools.StorageTool format --ignore-formatted \
         --cluster-id \"$(cat '{folder}/cluster-id')\" --config \"$conf\"\n\
         exec '{java}' {jvm} -Xms64m -Xmx384m -cp \"$cp\" kafka.Kafka \"$conf\"",
        libs = toolbox.kafka_libs.display(),
        java = toolbox.java.display(),
        folder = region.path("kafka").display(),
        jvm = format_args!(
            "-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Xss512k -Djava.io.tmpdir={tmp} -Dlog4j2.configurationFile={folder}/log4j2.yaml",
            tmp = region.path("kafka/tmp").display(),
            folder = region.path("kafka").display()
        ),
    );
    vec!["-c".to_owned(), script]
}

fn models(region: &Region) -> Vec<String> {
    vec!["models".to_owned(), flag("folder", region, "models"), format!("--listen={}:{}", region.addresses.node, render::MODELS_PORT)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::{region, toolbox};

    #[test]
    fn every_process_of_a_region_matches_its_golden_arguments() {
        let lines: Vec<String> = of_region(&region(), &toolbox(), "/bin/sandbox".into())
            .iter()
            .map(|spec| format!("{} ({:?}): {}\n  {}", spec.name, spec.start, spec.program.display(), spec.args.join("\n  ")))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}
