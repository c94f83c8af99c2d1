//! A real Redis on loopback, and payments to put into it.
// Each test binary uses a part of it.
#![allow(dead_code)]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use domain::{Epoch, HostPort, PipelineName, PlanView, RegionName, RegionRole, Revision, ShardAddress, SlotMap, Step};
use redis::FromRedisValue;
use scoring_core::event::{DecisionState, EntityId, EntityKind, Event, EventKind, Merchant, Money};
use scoring_features::RedisConfig;

/// One process with its folder; ends when dropped.
pub(crate) struct Redis {
    process: Child,
    folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Redis {
    /// A primary without persistence, as an operator makes it.
    pub(crate) fn start() -> Self {
        Self::start_on(free_port(), &[])
    }

    pub(crate) fn start_on(port: u16, extra: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("fraudpipeline-redis-").tempdir().unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .args(extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("these tests need redis-server on the PATH: install Debian's package redis-server");
        let redis = Self { process, folder, port };
        redis.wait_until_up();
        redis
    }

    fn wait_until_up(&self) {
        for _ in 0..200 {
            if self.client().get_connection().is_ok() || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("redis-server did not take connections on port {}", self.port);
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(("127.0.0.1", self.port)).unwrap()
    }

    /// Asks as an independent client; words are separated by blanks.
    pub(crate) fn ask<T: FromRedisValue>(&self, line: &str) -> T {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.client().get_connection().unwrap()).unwrap()
    }

    pub(crate) fn address(&self) -> HostPort {
        HostPort { host: "127.0.0.1".into(), port: self.port }
    }

    pub(crate) fn stop_answering(&self) {
        signal(self.process.id(), "STOP");
    }

    pub(crate) fn answer_again(&self) {
        signal(self.process.id(), "CONT");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn plan(epoch: u64, role: RegionRole, shards: &[HostPort]) -> PlanView {
    let index = |n: usize| u16::try_from(n).unwrap();
    PlanView {
        pipeline: PipelineName::new("payments").unwrap(),
        namespace: "fraud".into(),
        region: RegionName::new("us-east").unwrap(),
        epoch: Epoch(epoch),
        revision: Revision(1),
        active_region: RegionName::new("us-east").unwrap(),
        role,
        step: Step::Steady,
        slots: SlotMap::even(index(shards.len())).unwrap(),
        shards: (0..)
            .zip(shards)
            .map(|(n, address)| ShardAddress { shard: n, primary: address.clone(), replicas: vec![], process: 0, term: 0 })
            .collect(),
    }
}

pub(crate) fn config() -> RedisConfig {
    RedisConfig { silence_max: Duration::from_millis(200), ..RedisConfig::default() }
}

/// A payment of one customer: `who` names all entities.
pub(crate) fn payment(transaction_id: &str, who: u8, event_time_ms: i64) -> Event {
    Event {
        transaction_id: transaction_id.into(),
        tenant: "default".into(),
        event_time_ms,
        client_time_ms: None,
        origin_region: RegionName::new("us-east").unwrap(),
        epoch: Epoch(1),
        kind: EventKind::PaymentAttempt,
        decision: DecisionState::Made,
        entities: EntityKind::ALL
            .iter()
            .zip(0..)
            .map(|(&kind, n)| (kind, EntityId([who, n, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7])))
            .collect(),
        pii_key_id: "k1".into(),
        amount: Some(Money { amount_minor: 1_000, currency: "USD".into(), amount_base_minor: Some(1_000), rate_version: String::new() }),
        merchant: Some(Merchant { id: format!("m-{transaction_id}"), category_code: None, country: None }),
        card_country: None,
        ip_country: None,
        billing_country: None,
        bin8: String::new(),
        email_domain: String::new(),
        ip_prefix: String::new(),
        channel: None,
        card_entry: None,
        outcome: None,
    }
}
