//! TLS of the feature store against real Redis processes, with the settings and the kind of certificate that a cluster has.
#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use domain::{Epoch, HostPort, RegionName, feature_store_name};
use feature_shards::{Change, ShardClient, ShardError};
use operator_planner::{Link, ShardFacts, ShardRole};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use scoring_dial::Tls;
use tempfile::TempDir;

const USERS: &str = "user default off
user operator on >operator-password resetchannels ~fp:* +@transaction +ping +get +set +eval +info +replicaof +config|get +config|set +dbsize
user replication on >replication-password resetchannels +psync +replconf +ping
";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, region: &RegionName, folder: &Path) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![feature_store_name(region)]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "feature store");
        std::fs::write(folder.join("tls.crt"), params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
        std::fs::write(folder.join("ca.crt"), &self.pem).unwrap();
    }

    fn client(&self, region: &RegionName) -> ShardClient {
        let tls = Tls { ca_pem: self.pem.clone().into_bytes(), server_name: feature_store_name(region) };
        ShardClient::new("operator-password".into()).with_tls(tls)
    }
}

struct Redis {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Redis {
    fn start(authority: &Authority, region: &RegionName) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        authority.issue(region, folder.path());
        std::fs::write(folder.path().join("users.acl"), USERS).unwrap();
        let at = folder.path().display();
        let config = format!(
            "port 0\ntls-port {port}\nbind 127.0.0.1\ndir {at}\ntls-cert-file {at}/tls.crt\ntls-key-file {at}/tls.key\n\
             tls-ca-cert-file {at}/ca.crt\ntls-replication yes\ntls-auth-clients no\naclfile {at}/users.acl\nmasteruser replication\n\
             masterauth replication-password\nreplicaof 127.0.0.1 1\nsave \"\"\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n"
        );
        let path = folder.path().join("redis.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("redis-server").arg(&path).stdout(Stdio::null()).spawn().unwrap();
        Self { process, port, _folder: folder }
    }

    fn address(&self) -> HostPort {
        HostPort { host: "127.0.0.1".into(), port: self.port }
    }
}

fn region(name: &str) -> RegionName {
    // Two TLS implementations are linked in tests too.
    let _ = rustls::crypto::ring::default_provider().install_default();
    RegionName::new(name).unwrap()
}

async fn until(client: &ShardClient, redis: &Redis, wanted: impl Fn(&ShardFacts) -> bool) {
    let started = Instant::now();
    loop {
        match client.look(&redis.address()).await {
            Ok(facts) if wanted(&facts) => return,
            seen => assert!(started.elapsed() < Duration::from_secs(20), "{seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn shards_replicate_over_tls_and_are_known_by_their_regions_name_at_any_address() {
    let (east, west, authority) = (region("us-east"), region("eu-west"), Authority::new());
    let (primary, copy) = (Redis::start(&authority, &east), Redis::start(&authority, &west));
    let (to_east, to_west) = (authority.client(&east), authority.client(&west));
    until(&to_east, &primary, |_| true).await;
    until(&to_west, &copy, |_| true).await;
    to_east.change(&primary.address(), &Change::Primary, Epoch(4)).await.unwrap();
    to_west.change(&copy.address(), &Change::Follow(primary.address()), Epoch(4)).await.unwrap();
    let linked = ShardRole::Following { upstream: primary.address(), link: Link::Up };
    until(&to_west, &copy, |facts| facts.role == linked && facts.epoch == Some(Epoch(4))).await;
}

#[tokio::test]
async fn another_regions_shard_a_foreign_authority_and_plain_text_are_refused() {
    let (east, authority) = (region("us-east"), Authority::new());
    let redis = Redis::start(&authority, &east);
    until(&authority.client(&east), &redis, |_| true).await;
    let plain = ShardClient::new("operator-password".into());
    for wrong in [authority.client(&region("eu-west")), Authority::new().client(&east), plain] {
        let refused = wrong.look(&redis.address()).await.unwrap_err();
        assert!(matches!(refused, ShardError::Redis { .. }) && !refused.is_nobody(), "{refused}");
    }
}
