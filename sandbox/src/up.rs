//! Brings an instance up, or repairs one that runs in part: every step looks first and does only what is missing. IO.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::json;

use crate::images::{self, Made};
use crate::instance::{self, Instance, Region, private_folder, write_json, write_private};
use crate::render::{self, Machine};
use crate::toolbox::{Image, Toolbox};
use crate::wan::{self, Request};
use crate::{cgroup, net, pki, preflight, process, supervisor, teardown, volumes};

const KUBERNETES: [&str; 7] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"];
const STEP_TIMEOUT: Duration = Duration::from_secs(120);
/// A process that ended this often while somebody waits for it will not get better by itself.
const RESTARTS_MAX: u32 = 5;

pub(crate) struct Options {
    pub regions: Option<Vec<String>>,
    pub tools: Option<PathBuf>,
    pub fresh: bool,
}

/// Lines on standard error with the time since the command began.
#[derive(Clone, Copy)]
pub(crate) struct Progress(Instant);

impl Progress {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn step(self, who: &str, what: &str) {
        eprintln!("[{:6.1}s] {who:<10} {what}", self.0.elapsed().as_secs_f64());
    }
}

pub(crate) fn up(state: &Path, name: &str, options: &Options) -> Result<Instance> {
    let progress = Progress::start();
    preflight::check_root()?;
    let _lock = Instance::lock(state, name)?;
    let machine = preflight::check(state)?;
    if options.fresh {
        teardown::down(state, name, true)?;
        progress.step("all", "removed the data of the last time");
    }
    let _lock_of_fresh = options.fresh.then(|| Instance::lock(state, name)).transpose()?;
    let instance = settle(state, name, options)?;
    link_tools(&instance)?;
    let made = images::make(&instance)?;
    prepare(&instance, machine, &made)?;
    progress.step("all", "the router forwards between the regions");
    in_every_region(&instance, |region| bring_up(&instance, region, &made, progress))?;
    Ok(instance)
}

/// What `sandbox heal` does: back on the network, then the same steps as `up`, on the same data.
pub(crate) fn heal(instance: &Instance, region: &Region) -> Result<()> {
    let progress = Progress::start();
    let machine = preflight::check(&instance.folder)?;
    let made = images::make(instance)?;
    prepare(instance, machine, &made)?;
    wan::ask(instance, &Request::Site { site: region.name.clone(), down: false })?;
    bring_up(instance, region, &made, progress)
}

/// Everything but processes: files of all regions, their description for others, and the network.
fn prepare(instance: &Instance, machine: Machine, made: &Made) -> Result<()> {
    for region in instance.region_list() {
        write_files(&region, machine, made)?;
        volumes::ensure_folders(&region)?;
    }
    publish(instance, made)?;
    ensure_network(instance)
}

/// Decides what the instance is, and writes it down.
fn settle(state: &Path, name: &str, options: &Options) -> Result<Instance> {
    let folder = state.join(name);
    private_folder(&folder)?;
    let known = Instance::load_if_any(state, name)?;
    let tools = options.tools.as_deref().map(Toolbox::read).transpose()?;
    let (index, regions, toolbox) = match known {
        Some(known) => {
            let same = options.regions.as_ref().is_none_or(|wanted| *wanted == known.regions);
            ensure!(same, "instance {name:?} has the regions {}; `--fresh` makes it anew with others", known.regions.join(","));
            (Some(known.index), known.regions, tools.unwrap_or(known.toolbox))
        }
        None => {
            let default = ["us-east", "eu-west", "ap-south"].map(str::to_owned).to_vec();
            let toolbox = tools.context("give the list of tools with --tools FILE; `cargo xtask sandbox up` does that")?;
            (None, options.regions.clone().unwrap_or(default), toolbox)
        }
    };
    instance::check_regions(&regions)?;
    let index = instance::claim_index(&folder, index)?;
    let instance = Instance { name: name.to_owned(), index, regions, toolbox, folder };
    instance.save()?;
    Ok(instance)
}

fn link_tools(instance: &Instance) -> Result<()> {
    private_folder(&instance.folder.join("bin"))?;
    for name in KUBERNETES {
        let link = instance.tool(name);
        if fs::read_link(&link).is_ok_and(|target| target == instance.toolbox.kubebox) {
            continue;
        }
        let _ = fs::remove_file(&link);
        symlink(&instance.toolbox.kubebox, &link).with_context(|| format!("cannot make the link {}", link.display()))?;
    }
    Ok(())
}

fn ensure_network(instance: &Instance) -> Result<()> {
    for region in instance.region_list() {
        net::ensure_region(&region.netns(), &region.addresses, instance.block())?;
    }
    net::ensure_host(&instance.host_device(), instance.host_address(), instance.block())?;
    let record = instance.folder.join("router.json");
    if process::recorded(&record).is_none() {
        let folder = instance.folder.display().to_string();
        process::start_background(&["router", "--folder", &folder], &instance.folder.join("router.log"), &record)?;
    }
    Ok(())
}

fn in_every_region(instance: &Instance, work: impl Fn(&Region) -> Result<()> + Sync) -> Result<()> {
    let regions = instance.region_list();
    let results: Vec<(String, Result<()>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = regions.iter().map(|region| (region, scope.spawn(|| work(region)))).collect();
        threads
            .into_iter()
            .map(|(region, thread)| (region.name.clone(), thread.join().unwrap_or_else(|_| Err(anyhow!("its thread panicked")))))
            .collect()
    });
    let failures: Vec<String> =
        results.into_iter().filter_map(|(name, result)| result.err().map(|error| format!("{name}: {error:#}"))).collect();
    if !failures.is_empty() {
        bail!(
            "{}\nWhat runs was left running for a look: `sandbox status`, `sandbox logs REGION PROCESS`. `sandbox up` tries again; \
             `sandbox up --fresh` begins anew.",
            failures.join("\n")
        );
    }
    Ok(())
}

fn bring_up(instance: &Instance, region: &Region, made: &Made, progress: Progress) -> Result<()> {
    cgroup::ensure(&region.cgroup())?;
    let record = region.path("supervisor.json");
    if process::recorded(&record).is_none() {
        let folder = instance.folder.display().to_string();
        let args = ["supervise", "--folder", &folder, "--region", &region.name];
        process::start_background(&args, &region.path("log/supervisor.log"), &record)?;
        progress.step(&region.name, "processes started");
    }
    await_step(region, "containerd", || Ok(UnixStream::connect(region.containerd_socket()).is_ok()))?;
    let imported = import_when_serving(region, &made.all(&instance.toolbox))?;
    progress.step(&region.name, &format!("{imported} images imported"));
    await_step(region, "kube-apiserver", || Ok(supervisor::api_is_ready(region)))?;
    progress.step(&region.name, "API server ready");
    apply(region)?;
    await_step(region, "kubelet", || Ok(node_is_ready(region)))?;
    progress.step(&region.name, "node Ready");
    await_step(region, "kafka", || Ok(kafka_answers(region)))?;
    progress.step(&region.name, "Kafka answers");
    await_step(region, "coredns", || Ok(dns_answers(region)))?;
    progress.step(&region.name, "DNS answers");
    Ok(())
}

fn write_files(region: &Region, machine: Machine, made: &Made) -> Result<()> {
    for folder in ["", "pki", "log", "run", "kubelet", "pod-logs", "cni/conf", "kafka/data", "kafka/tmp", "models", "volumes", "holds"] {
        private_folder(&region.path(folder))?;
    }
    pki::ensure(region)?;
    let cluster_id = kafka_cluster_id(region)?;
    for (path, content) in render::files(region, machine, &made.system, &cluster_id)? {
        let path = region.path(path);
        // An unchanged file keeps its time, so that nothing that watches it reloads.
        if fs::read(&path).is_ok_and(|now| now == content.as_bytes()) {
            continue;
        }
        write_private(&path, content.as_bytes())?;
    }
    Ok(())
}

/// Random, made once: mirrored records name the cluster that they come from, and a new cluster is another one.
fn kafka_cluster_id(region: &Region) -> Result<String> {
    use base64::Engine;
    let path = region.path("kafka/cluster-id");
    if let Ok(id) = fs::read_to_string(&path) {
        return Ok(id);
    }
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    // The first letter then is no dash, with which the command line would take it for an option.
    bytes[0] &= 0x7f;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// What other programs read: where everything is.
fn publish(instance: &Instance, made: &Made) -> Result<()> {
    let regions: Vec<Region> = instance.region_list();
    write_private(&instance.kubeconfig(), pki::joint_kubeconfig(&regions)?.as_bytes())?;
    let described: Vec<serde_json::Value> = regions
        .iter()
        .map(|region| {
            json!({
                "name": region.name,
                "node_address": region.addresses.node,
                "api_server": region.api_server(),
                "kafka": region.kafka(),
                "models_endpoint": region.models_endpoint(),
                "models_folder": region.path("models"),
                "pod_cidr": region.addresses.pods,
                "service_cidr": region.addresses.services,
                "netns": region.netns(),
                "audit_log": region.path("log/audit.log"),
            })
        })
        .collect();
    let description = json!({
        "instance": instance.name,
        "index": instance.index,
        "regions": described,
        "host_address": instance.host_address(),
        "kubeconfig": instance.kubeconfig(),
        "kubectl": instance.tool("kubectl"),
        "images": made.names(&instance.toolbox),
        "redis_image": made.redis,
    });
    write_json(&instance.folder.join("sandbox.json"), &description)
}

/// Repeats a look until it is satisfied. Fails early, with the end of its log, when a process keeps ending.
fn await_step(region: &Region, process: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !done()? {
        let report = supervisor::read_report(region);
        let failing = report.iter().find(|(_, state)| state.restarts >= RESTARTS_MAX && state.identity.is_none());
        if let Some((name, state)) = failing {
            bail!("{name} keeps ending ({}).\n{}", state.last_end.as_deref().unwrap_or("no reason known"), explain(region, name));
        }
        if started.elapsed() > STEP_TIMEOUT {
            bail!("{process} is not ready after {} s.\n{}", STEP_TIMEOUT.as_secs(), explain(region, process));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn explain(region: &Region, process: &str) -> String {
    let log = region.path(&format!("log/{process}.log"));
    if log.exists() {
        return format!("The last lines of {}:\n{}", log.display(), process::tail(&log, 12));
    }
    format!("Look at its pod: `sandbox kubectl {} -n kube-system describe pods`", region.name)
}

/// containerd's socket exists a moment before its services do.
fn import_when_serving(region: &Region, wanted: &[Image]) -> Result<usize> {
    await_step(region, "containerd", || Ok(images::present(region).is_ok()))?;
    images::import_missing(region, wanted)
}

fn kubectl(region: &Region) -> Command {
    let mut command = Command::new(region.path("../bin/kubectl"));
    command.arg("--kubeconfig").arg(region.path("admin.kubeconfig")).stdin(Stdio::null());
    command
}

fn apply(region: &Region) -> Result<()> {
    let run = || -> Result<std::process::Output> {
        let mut command = kubectl(region);
        command.args(["apply", "--server-side", "--force-conflicts", "--field-manager=sandbox"]);
        command.arg("-f").arg(region.path("system.yaml")).arg("-f").arg(region.path("volumes.yaml"));
        command.output().context("cannot run kubectl")
    };
    // Right after a start the API server may still be making kube-system.
    let mut output = run()?;
    for _ in 0..20 {
        if output.status.success() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(500));
        output = run()?;
    }
    bail!("the system objects could not be applied: {}", String::from_utf8_lossy(&output.stderr).trim())
}

/// By its condition, and by asking the kubelet through the API server: the condition alone may be from before a kill.
pub(crate) fn node_is_ready(region: &Region) -> bool {
    let says_yes = |args: &[&str]| {
        kubectl(region).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    says_yes(&["get", "--request-timeout=3s", &format!("--raw=/api/v1/nodes/{}/proxy/healthz", region.name)])
        && says_yes(&["wait", "--for=condition=Ready", "--timeout=3s", &format!("node/{}", region.name)])
}

/// An ApiVersions request of version 0; any answer with its correlation id means that the broker serves.
pub(crate) fn kafka_answers(region: &Region) -> bool {
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let ask = || -> std::io::Result<bool> {
        use std::io::Write;
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((region.addresses.node, 9092)), Duration::from_millis(500))?;
        stream.set_read_timeout(Some(Duration::from_millis(500)))?;
        stream.write_all(&REQUEST)?;
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        Ok(head.ends_with(&[0, 0, 0, 7]))
    };
    ask().unwrap_or(false)
}

/// Asks the cluster's DNS Service for the API server's name, from the host and so through router, node proxy and pod network.
pub(crate) fn dns_answers(region: &Region) -> bool {
    resolve(region.addresses.dns_service(), "kubernetes.default.svc.cluster.local")
        .is_some_and(|address| address == region.addresses.api_service())
}

/// One A query. Nothing when there is no answer within half a second or the name has no address.
pub(crate) fn resolve(server: Ipv4Addr, name: &str) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    socket.connect((server, 53)).ok()?;
    socket.send(&dns_query(name)).ok()?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).ok()?;
    dns_address(answer.get(..length)?)
}

fn dns_query(name: &str) -> Vec<u8> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or(0));
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

/// The address of an answer whose last record is an A record, as CoreDNS sends it to a plain query.
fn dns_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let no_error = answer.get(3)? & 0x0f == 0;
    let has_answer = answer.get(6..8)? != [0, 0];
    let octets: [u8; 4] = answer.last_chunk().copied()?;
    (no_error && has_answer).then(|| Ipv4Addr::from(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_answer_without_an_address_is_none() {
        let mut answer = dns_query("a.b");
        assert_eq!(dns_address(&answer), None);
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 198, 18, 8, 1]);
        assert_eq!(dns_address(&answer), Some(Ipv4Addr::new(198, 18, 8, 1)));
        answer[3] = 3;
        assert_eq!(dns_address(&answer), None, "a name error has no address");
        assert_eq!(dns_address(&[]), None);
    }
}
