//! A real API server with its etcd, on loopback ports of its own, that ends with the last test that uses it.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, Weak},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::repository;

/// Variable with the path of the multi-call binary of Kubernetes and etcd.
pub(crate) const KUBEBOX: &str = "FRAUDPIPELINE_KUBEBOX";

/// How long a cold start may take on a machine that is busy with other tests.
const START_WITHIN: Duration = Duration::from_secs(90);

pub(crate) struct Cluster {
    // Fields are dropped in this order: the processes end before their folder goes.
    api_server: Ended,
    _etcd: Ended,
    folder: TempDir,
    kubectl: PathBuf,
}

/// A process that ends when this value is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What kubectl answered.
pub(crate) struct Answer {
    pub(crate) accepted: bool,
    pub(crate) text: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Self { accepted: output.status.success(), text }
    }
}

/// The cluster that all tests of this binary share. It has the definitions of `crds/yaml` and the namespace `fraud`.
pub(crate) fn cluster() -> Arc<Cluster> {
    static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(running) = shared.upgrade() {
        return running;
    }
    let started = Arc::new(Cluster::start());
    *shared = Arc::downgrade(&started);
    started
}

impl Cluster {
    fn start() -> Self {
        let kubebox = std::env::var_os(KUBEBOX).map(PathBuf::from).unwrap_or_else(|| {
            panic!("{KUBEBOX} is not set: `cargo xtask tools kubebox` builds the binary and prints its path, then set {KUBEBOX} to it")
        });
        assert!(kubebox.is_file(), "{KUBEBOX} is {}, which is not a file: `cargo xtask tools kubebox` builds it", kubebox.display());
        let kubebox = fs::canonicalize(kubebox).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str| {
            let link = folder.path().join(name);
            symlink(&kubebox, &link).unwrap();
            link
        };
        let [etcd_port, peer_port, api_port] = free_ports();
        write_credentials(folder.path(), api_port);
        let etcd = Ended(etcd(&program("etcd"), folder.path(), etcd_port, peer_port));
        let api_server = Ended(api_server(&program("kube-apiserver"), folder.path(), etcd_port, api_port));
        let kubectl = program("kubectl");
        let mut cluster = Self { api_server, _etcd: etcd, folder, kubectl };
        cluster.wait_until_ready(api_port);
        cluster.install_definitions();
        cluster
    }

    fn wait_until_ready(&mut self, api_port: u16) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", api_port)).is_err() || !self.kubectl(&["get", "--raw", "/readyz"]).accepted {
            let hopeless = began.elapsed() > START_WITHIN || self.api_server.0.try_wait().unwrap().is_some();
            let log = || fs::read_to_string(self.folder.path().join("kube-apiserver.log")).unwrap_or_default();
            assert!(!hopeless, "the API server is not ready after {:?}; its log:\n{}", began.elapsed(), log());
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn install_definitions(&self) {
        let yaml = repository().join("crds/yaml");
        self.must(&["create", "-f", yaml.to_str().unwrap()]);
        self.must(&["wait", "--for=condition=Established", "--timeout=60s", "-f", yaml.to_str().unwrap()]);
        self.must(&["create", "namespace", "fraud"]);
    }

    /// Runs kubectl as a cluster administrator.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Answer {
        let output = Command::new(&self.kubectl)
            .args(["--kubeconfig", "kubeconfig", "--cache-dir", "cache"])
            .args(arguments)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        output.into()
    }

    /// Runs kubectl and fails the test when it fails.
    pub(crate) fn must(&self, arguments: &[&str]) -> String {
        let answer = self.kubectl(arguments);
        assert!(answer.accepted, "kubectl {}: {}", arguments.join(" "), answer.text);
        answer.text
    }

    /// Sends a manifest as kubectl sends it: unknown and repeated fields are errors.
    pub(crate) fn send(&self, verb: &str, manifest: &str, arguments: &[&str]) -> Answer {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile_in(self.folder.path()).unwrap();
        fs::write(file.path(), manifest).unwrap();
        let mut all = vec![verb, "--validate=strict", "-f", file.path().to_str().unwrap()];
        all.extend(arguments);
        self.kubectl(&all)
    }
}

/// Ports that nobody used a moment ago. They are asked for together, so that they differ.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// A certificate for the API server, a key for its tokens, and an administrator.
fn write_credentials(folder: &Path, api_port: u16) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let server = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    write("server.crt", &server.cert.pem());
    write("server.key", &server.signing_key.serialize_pem());
    let tokens = rcgen::KeyPair::generate().unwrap();
    write("tokens.key", &tokens.serialize_pem());
    write("tokens.pub", &tokens.public_key_pem());
    let token = folder.file_name().unwrap().to_string_lossy().into_owned();
    write("users.csv", &format!("{token},administrator,1,\"system:masters\"\n"));
    let certificate = folder.join("server.crt");
    write(
        "kubeconfig",
        &format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             contexts: [{{name: test, context: {{cluster: test, user: administrator, namespace: fraud}}}}]\n\
             clusters: [{{name: test, cluster: {{server: \"https://127.0.0.1:{api_port}\", certificate-authority: \"{}\"}}}}]\n\
             users: [{{name: administrator, user: {{token: \"{token}\"}}}}]\n",
            certificate.display()
        ),
    );
}

fn spawn(program: &Path, folder: &Path, arguments: &[String]) -> Child {
    let log = fs::File::create(folder.join(program.file_name().unwrap()).with_extension("log")).unwrap();
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn etcd(program: &Path, folder: &Path, client_port: u16, peer_port: u16) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{client_port}"), format!("http://127.0.0.1:{peer_port}"));
    let arguments = [
        "--data-dir=etcd-data".to_owned(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    spawn(program, folder, &arguments)
}

fn api_server(program: &Path, folder: &Path, etcd_port: u16, port: u16) -> Child {
    let arguments = [
        format!("--etcd-servers=http://127.0.0.1:{etcd_port}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        format!("--secure-port={port}"),
        "--cert-dir=certificates".to_owned(),
        "--tls-cert-file=server.crt".to_owned(),
        "--tls-private-key-file=server.key".to_owned(),
        "--token-auth-file=users.csv".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        "--service-account-key-file=tokens.pub".to_owned(),
        "--service-account-signing-key-file=tokens.key".to_owned(),
        "--service-cluster-ip-range=198.19.250.0/24".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        // There is no controller manager that would make the default service accounts.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ];
    spawn(program, folder, &arguments)
}
