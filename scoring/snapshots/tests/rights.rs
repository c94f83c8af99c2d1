//! Snapshots with the users and the encryption of a cluster.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;

use domain::{ANY_FEATURE_STORE_NAME, Epoch, HostPort, SlotMap};
use feature_shards::{Change, ShardClient, ShardError};
use feature_snapshots::{Identity, Manifest, ReplaceOptions, SnapshotError, Source, TakeOptions, rebuild, restore, take};
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use redis_testbed::Server;
use scoring_dial::Tls;
use support::*;

/// The rules that matter here, as `kubectl fraud init` writes them; `tester` is ours.
const USERS: &str = "user default off
user operator on >operator-password resetchannels ~fp:* +@transaction +ping +info +get +hgetall +set +dbsize +eval +time +replicaof +config|get +config|set
user snapshot on >snapshot-password resetchannels %R~fp:* +ping +info +get +hgetall +dbsize +sync +psync +replconf
user replication on >replication-password resetchannels +psync +replconf +ping
user tester on >tester-password resetchannels ~* &* +@all
";
const REPLICATION: &str = "masteruser replication\nmasterauth replication-password\n";

fn operator() -> ShardClient {
    ShardClient::new("operator-password".into())
}

fn snapshot() -> ShardClient {
    ShardClient::with_user("snapshot".into(), "snapshot-password".into())
}

async fn attempt(kept: &Kept, client: &ShardClient, copy: &HostPort) -> Result<Manifest, SnapshotError> {
    let source = Source { region: region(), slots: SlotMap::even(1).unwrap(), processes: vec![vec![copy.clone()]] };
    take(&kept.catalog, client, &source, &TakeOptions::default(), Timestamp::now()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_suffice_and_whoever_has_them_not_is_told_so() {
    let with_users = || Server::start_with_users(USERS, ("tester", "tester-password"), REPLICATION).unwrap();
    let (primary, copy, target, kept) = (with_users(), with_users(), with_users(), Kept::new());
    operator().change(&primary.address(), &Change::Primary, Epoch(1)).await.unwrap();
    primary.ask::<()>("SET e:{x} 1").unwrap();
    follow(&operator(), &copy, &primary, 1).await;

    let guessed = attempt(&kept, &ShardClient::with_user("snapshot".into(), "guessed".into()), &copy.address()).await.unwrap_err();
    assert!(matches!(&guessed, SnapshotError::Shard(ShardError::Login { .. })), "{guessed}");
    assert!(guessed.to_string().contains("user snapshot: wrong password") && !guessed.to_string().contains("guessed"), "{guessed}");
    let without_psync = attempt(&kept, &operator(), &copy.address()).await.unwrap_err();
    assert!(matches!(&without_psync, SnapshotError::Shard(ShardError::Rights { .. })), "{without_psync}");
    let manifest = attempt(&kept, &snapshot(), &copy.address()).await.unwrap();

    let (slots, targets, options) = (SlotMap::even(1).unwrap(), [target.address()], ReplaceOptions::in_epoch(Epoch(2)));
    let by_snapshot = restore(&kept.catalog, &snapshot(), &manifest, (&slots, &targets), &options).await.unwrap();
    let error = by_snapshot[0].result.as_ref().unwrap_err();
    assert!(matches!(error, SnapshotError::Shard(ShardError::Rights { .. })), "{error}");
    let outcome = restore(&kept.catalog, &operator(), &manifest, (&slots, &targets), &options).await.unwrap();
    outcome[0].result.as_ref().unwrap();
    assert_eq!((target.ask::<u64>("GET e:{x}").unwrap(), target.ask::<u64>("GET fp:epoch").unwrap()), (1, 2));
    target.ask::<()>("SET e:{y} 1").unwrap();
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![ANY_FEATURE_STORE_NAME.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn identity(&self) -> Identity {
        let (certificate, key) = self.issue();
        Identity::of(certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    fn trusted_by(&self, client: ShardClient) -> ShardClient {
        client.with_tls(Tls { ca_pem: self.pem.clone().into_bytes(), server_name: ANY_FEATURE_STORE_NAME.to_owned() })
    }

    /// A process that speaks nothing but TLS.
    fn start(&self, folder: &Path, name: &str) -> (Server, HostPort) {
        let (certificate, key) = self.issue();
        let file = |suffix: &str, text: &str| {
            let path = folder.join(format!("{name}{suffix}"));
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (certificate, key, authority) = (file(".crt", &certificate), file(".key", &key), file(".ca", &self.pem));
        let users = file(".acl", USERS);
        let tls_port = redis_testbed::free_port().unwrap();
        let extra = format!(
            "aclfile {users}\n{REPLICATION}tls-port {tls_port}\ntls-cert-file {certificate}\ntls-key-file {key}\n\
             tls-ca-cert-file {authority}\ntls-replication yes\ntls-auth-clients no"
        );
        (Server::start(&extra).unwrap(), HostPort { host: "127.0.0.1".into(), port: tls_port })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_are_taken_and_put_back_over_tls() {
    // Two TLS implementations are linked in tests too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (authority, folder, kept) = (Authority::new(), tempfile::tempdir().unwrap(), Kept::new());
    let ((_primary, at), (_copy, copy_at), (_target, target_at)) =
        (authority.start(folder.path(), "a"), authority.start(folder.path(), "b"), authority.start(folder.path(), "c"));
    let (operator, snapshot) = (authority.trusted_by(operator()), authority.trusted_by(snapshot()));
    operator.change(&at, &Change::Primary, Epoch(1)).await.unwrap();
    operator.change(&copy_at, &Change::Follow(at.clone()), Epoch(1)).await.unwrap();
    let linked = async || attempt(&kept, &snapshot, &copy_at).await.is_ok();
    until("a snapshot", linked).await;
    let foreign = attempt(&kept, &Authority::new().trusted_by(self::snapshot()), &copy_at).await.unwrap_err();
    assert!(!foreign.is_refusal() && foreign.to_string().contains("certificate"), "{foreign}");

    let manifest = kept.catalog.find(None, None).await.unwrap();
    let (slots, targets) = (SlotMap::even(1).unwrap(), [target_at.clone()]);
    let without = ReplaceOptions::in_epoch(Epoch(2));
    let refused = restore(&kept.catalog, &operator, &manifest, (&slots, &targets), &without).await.unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("--tls-cert"), "{refused}");
    let options = ReplaceOptions { identity: Some(authority.identity()), ..without.clone() };
    let outcomes = restore(&kept.catalog, &operator, &manifest, (&slots, &targets), &options).await.unwrap();
    outcomes[0].result.as_ref().unwrap();
    assert_eq!(operator.contents(&target_at).await.unwrap().epoch, Some(Epoch(2)));
    let outcomes = rebuild(&operator, &targets, Some(Timestamp::now()), &options).await.unwrap();
    outcomes[0].result.as_ref().unwrap();

    // Shards follow nobody whom their authority does not know.
    let stranger = ReplaceOptions {
        identity: Some(Authority::new().identity()),
        within: std::time::Duration::from_secs(3),
        overwrite: true,
        ..without
    };
    let outcomes = rebuild(&operator, &targets, None, &stranger).await.unwrap();
    assert!(outcomes[0].result.as_ref().unwrap_err().to_string().contains("follows nobody now"), "{outcomes:?}");
}
