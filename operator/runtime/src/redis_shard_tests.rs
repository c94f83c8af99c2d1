//! Role changes against real Redis processes, with the rights that the role `operator` has in a cluster.
#![allow(clippy::unwrap_used)]

use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use domain::{Epoch, HostPort};
use operator_planner::{Link, ShardFacts, ShardRole};
use tempfile::TempDir;

use crate::redis_shard::{Change, ShardClient, ShardError};

/// The commands that a role change needs, and no others; `kubectl fraud init` grants them.
const USERS: &str = "user default off
user operator on >operator-password resetchannels ~fp:* +@transaction +ping +get +set +eval +info +replicaof +config|get +config|set +dbsize +acl|setuser
user replication on >replication-password resetchannels +psync +replconf +ping
user writer on >writer-password resetchannels ~* +@connection +set
";

pub(crate) struct Redis {
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
    /// A process as a pod starts it: a replica of nowhere.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let users = folder.path().join("users.acl");
        std::fs::write(&users, USERS).unwrap();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\naclfile {}\nmasteruser replication\nmasterauth replication-password\n\
             replicaof 127.0.0.1 1\nmin-replicas-max-lag 2\nsave \"\"\nrepl-diskless-sync yes\nrepl-diskless-sync-delay 0\n",
            folder.path().display(),
            users.display()
        );
        let path = folder.path().join("redis.conf");
        std::fs::write(&path, config).unwrap();
        let process = Command::new("redis-server").arg(&path).stdout(Stdio::null()).spawn().unwrap();
        Self { process, port, _folder: folder }
    }

    pub(crate) fn address(&self) -> HostPort {
        HostPort { host: "127.0.0.1".into(), port: self.port }
    }

    pub(crate) async fn log_in(&self, user: &str, password: &str) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://{user}:{password}@127.0.0.1:{}", self.port)).unwrap();
        client.get_multiplexed_async_connection().await
    }

    async fn write(&self, key: &str) -> redis::RedisResult<()> {
        let mut connection = self.log_in("writer", "writer-password").await?;
        redis::cmd("SET").arg(key).arg("x").exec_async(&mut connection).await
    }

    pub(crate) async fn change(&self, change: Change, epoch: u64) -> Result<(), ShardError> {
        operator().change(&self.address(), &change, Epoch(epoch)).await
    }

    /// Waits until the process is seen so.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&ShardFacts) -> bool) -> ShardFacts {
        let started = Instant::now();
        loop {
            match operator().look(&self.address()).await {
                Ok(facts) if wanted(&facts) => return facts,
                seen => assert!(started.elapsed() < Duration::from_secs(20), "not {what}: {seen:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub(crate) fn operator() -> ShardClient {
    ShardClient::new("operator-password".into())
}

fn follows(facts: &ShardFacts, upstream: &Redis) -> bool {
    facts.role == ShardRole::Following { upstream: upstream.address(), link: Link::Up }
}

#[tokio::test]
async fn a_process_starts_nowhere_and_becomes_the_primary_of_an_epoch() {
    let redis = Redis::start();
    let facts = redis.until("up", |_| true).await;
    assert_eq!((&facts.role, facts.epoch, facts.holds_data), (&ShardRole::Nowhere, None, false));
    redis.write("e:{x}").await.unwrap_err();
    redis.change(Change::Primary, 3).await.unwrap();
    let facts = redis.until("primary", |facts| facts.role == ShardRole::Primary).await;
    assert_eq!((facts.epoch, facts.holds_data), (Some(Epoch(3)), false), "the epoch alone is no data");
    redis.write("e:{x}").await.unwrap();
    assert!(redis.until("with data", |facts| facts.holds_data).await.holds_data);
    redis.change(Change::Primary, 3).await.unwrap();
}

#[tokio::test]
async fn an_operator_that_was_overtaken_changes_nothing() {
    let redis = Redis::start();
    redis.until("up", |_| true).await;
    redis.change(Change::Primary, 5).await.unwrap();
    let follow = Change::Follow(HostPort { host: "127.0.0.1".into(), port: 2 });
    for change in [Change::Primary, Change::Hold, follow] {
        let refused = redis.change(change, 4).await.unwrap_err();
        assert!(matches!(refused, ShardError::NewerEpoch { seen: Epoch(5), ours: Epoch(4), .. }), "{refused}");
    }
    let facts = redis.until("up", |_| true).await;
    assert_eq!((facts.role, facts.epoch), (ShardRole::Primary, Some(Epoch(5))));
}

#[tokio::test]
async fn a_primary_that_restarted_empty_gets_its_data_back_from_a_held_copy() {
    let (primary, copy) = (Redis::start(), Redis::start());
    primary.until("up", |_| true).await;
    copy.until("up", |_| true).await;
    primary.change(Change::Primary, 1).await.unwrap();
    primary.write("e:{x}").await.unwrap();
    copy.change(Change::Follow(primary.address()), 1).await.unwrap();
    copy.until("a copy", |facts| follows(facts, &primary) && facts.holds_data).await;

    drop(primary);
    copy.until("alone", |facts| matches!(facts.role, ShardRole::Following { link: Link::Down, .. })).await;
    let reborn = Redis::start();
    reborn.until("up", |_| true).await;
    copy.change(Change::Hold, 1).await.unwrap();
    let held = copy.until("held", |facts| facts.role == ShardRole::Held).await;
    assert!(held.holds_data && held.epoch == Some(Epoch(1)));
    copy.write("e:{y}").await.unwrap_err();

    reborn.change(Change::Follow(copy.address()), 1).await.unwrap();
    reborn.until("complete", |facts| follows(facts, &copy) && facts.holds_data).await;
    reborn.change(Change::Primary, 1).await.unwrap();
    reborn.write("e:{z}").await.unwrap();
    copy.change(Change::Follow(reborn.address()), 1).await.unwrap();
    let copied = copy.until("a copy again", |facts| follows(facts, &reborn)).await;
    assert!(copied.holds_data);
}

/// The other region's part of the story is in the planner's tests; here is what Redis itself has to do for it.
#[tokio::test]
async fn a_primary_that_lost_its_replica_takes_no_writes_and_the_replica_that_takes_over_has_all_of_them() {
    let (primary, replica) = (Redis::start(), Redis::start());
    primary.until("up", |_| true).await;
    replica.until("up", |_| true).await;
    primary.change(Change::Primary, 1).await.unwrap();
    primary.write("e:{x}").await.unwrap();
    replica.change(Change::Follow(primary.address()), 1).await.unwrap();
    replica.until("a replica", |facts| follows(facts, &primary) && facts.holds_data).await;
    primary.change(Change::Require(1), 1).await.unwrap();
    assert_eq!(primary.until("guarded", |_| true).await.replicas_required, 1);
    primary.write("e:{y}").await.unwrap();

    // As if the two could not reach each other: the replica looks elsewhere, and the primary keeps running.
    replica.change(Change::Follow(HostPort { host: "127.0.0.1".into(), port: 2 }), 1).await.unwrap();
    let started = Instant::now();
    while primary.write("e:{z}").await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "it goes on alone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    replica.change(Change::Primary, 1).await.unwrap();
    assert_eq!(replica.until("primary", |facts| facts.role == ShardRole::Primary).await.replicas_required, 0);
    replica.write("e:{z}").await.unwrap();

    // The old one comes back under the new one.
    primary.change(Change::Follow(replica.address()), 1).await.unwrap();
    primary.until("a replica", |facts| follows(facts, &replica) && facts.holds_data).await;
    primary.write("e:{x}").await.unwrap_err();
}

#[tokio::test]
async fn a_killed_primary_is_told_from_a_silent_one_and_its_replica_says_for_how_long_it_is_alone() {
    let (primary, replica) = (Redis::start(), Redis::start());
    primary.until("up", |_| true).await;
    replica.until("up", |_| true).await;
    primary.change(Change::Primary, 1).await.unwrap();
    primary.write("e:{x}").await.unwrap();
    replica.change(Change::Follow(primary.address()), 1).await.unwrap();
    replica.until("a replica", |facts| follows(facts, &primary) && facts.holds_data).await;
    let address = primary.address();
    drop(primary);
    assert!(operator().look(&address).await.unwrap_err().is_refusal());
    let alone = replica.until("alone", |facts| matches!(facts.role, ShardRole::Following { link: Link::Down, .. })).await;
    assert!(alone.unlinked_s < 5, "{alone:?}");
    replica.until("alone for two seconds", |facts| facts.unlinked_s >= 2).await;
}

#[tokio::test]
async fn a_process_that_does_not_answer_is_unknown_and_no_password_is_in_the_error() {
    let nobody = HostPort { host: "127.0.0.1".into(), port: 1 };
    let error = operator().look(&nobody).await.unwrap_err();
    assert!(error.is_refusal(), "nothing listens there");
    let error = error.to_string();
    assert!(error.contains("127.0.0.1:1") && !error.contains("operator-password"), "{error}");
}
