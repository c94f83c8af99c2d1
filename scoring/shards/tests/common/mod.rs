//! Processes with the users of a cluster, and waiting until they are what a test wants.
// Each test binary uses a part of it.
#![allow(dead_code)]

pub(crate) mod writer;

use std::time::{Duration, Instant};

use domain::{Epoch, HostPort};
use feature_shards::{Change, ShardClient, Upstream};
use operator_planner::{Link, ShardFacts, ShardRole};
use redis_testbed::Server;

/// The commands that a role change needs, and no others; `kubectl fraud init` grants them. `writer` and `tester` are ours.
pub(crate) const USERS: &str = "user default off
user operator on >operator-password resetchannels ~fp:* +@transaction +ping +get +set +eval +time +info +replicaof +config|get +config|set +dbsize +acl|setuser +client|pause +client|unpause
user replication on >replication-password resetchannels +psync +replconf +ping
user writer on >writer-password resetchannels ~* +@connection +@transaction +set +get +mget +client|kill
user tester on >tester-password resetchannels ~* &* +@all
";
const REPLICATION: &str = "masteruser replication\nmasterauth replication-password\n";
const WAIT: Duration = Duration::from_secs(30);

pub(crate) fn start() -> Server {
    start_with("")
}

/// As a pod starts it, with more lines of configuration.
pub(crate) fn start_with(extra: &str) -> Server {
    Server::start_with_users(USERS, ("tester", "tester-password"), &format!("{REPLICATION}{extra}")).unwrap()
}

pub(crate) fn operator() -> ShardClient {
    ShardClient::new("operator-password".into())
}

pub(crate) fn write(server: &Server, key: &str) -> redis::RedisResult<()> {
    let url = format!("redis://writer:writer-password@127.0.0.1:{}", server.address().port);
    let mut connection = redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(2))?;
    redis::cmd("SET").arg(key).arg("x").exec(&mut connection)
}

pub(crate) async fn change(server: &Server, change: Change, epoch: u64) {
    operator().change(&server.address(), &change, Epoch(epoch)).await.unwrap();
}

/// Waits until the process is seen so.
pub(crate) async fn until(server: &Server, what: &str, wanted: impl Fn(&ShardFacts) -> bool) -> ShardFacts {
    let started = Instant::now();
    loop {
        match operator().look(&server.address()).await {
            Ok(facts) if wanted(&facts) => return facts,
            seen => assert!(started.elapsed() < WAIT, "not {what}: {seen:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn follows(facts: &ShardFacts, upstream: &HostPort) -> bool {
    facts.role == ShardRole::Following { upstream: upstream.clone(), link: Link::Up }
}

pub(crate) fn upstream(server: &Server) -> Upstream {
    Upstream { address: server.address(), from_follower: server.address() }
}

/// A primary of an epoch with a key in it, and its copy.
pub(crate) async fn primary_and_copy(epoch: u64) -> (Server, Server) {
    let (primary, copy) = (start(), start());
    pair_up(&primary, &copy, epoch).await;
    (primary, copy)
}

pub(crate) async fn pair_up(primary: &Server, copy: &Server, epoch: u64) {
    until(primary, "up", |_| true).await;
    until(copy, "up", |_| true).await;
    change(primary, Change::Primary, epoch).await;
    write(primary, "e:{first}").unwrap();
    change(copy, Change::Follow(primary.address()), epoch).await;
    let address = primary.address();
    until(copy, "a copy", |facts| follows(facts, &address) && facts.holds_data).await;
}
