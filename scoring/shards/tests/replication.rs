//! What `health`, `lag` and `check_settings` say of real processes.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{change, follows, operator, primary_and_copy, start, start_with, until, write};
use feature_shards::{Change, Health, WantedSettings, near_memory_limit, resync_loop};
use operator_planner::{Link, ShardRole};
use redis_testbed::{Line, Server};

/// So many full copies make a loop of one replica.
const LOOPS: u64 = 2;

async fn health(server: &Server) -> Health {
    operator().health(&server.address()).await.unwrap()
}

async fn until_full_copies(primary: &Server, count: u64, mut each_time: impl FnMut(u64)) {
    for round in 0..600 {
        if primary.info("sync_full").unwrap() >= count {
            return;
        }
        each_time(round);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("only {} full copies", primary.info("sync_full").unwrap());
}

async fn until_a_copy_is_online(primary: &Server) {
    for _ in 0..100 {
        if health(primary).await.replicas.iter().any(|replica| replica.state == "online") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no copy is online: {:?}", health(primary).await.replicas);
}

#[tokio::test]
async fn a_primary_and_its_copy_are_described() {
    let (primary, copy) = primary_and_copy(4).await;
    // The copy knows that it has everything a moment before its primary does.
    until_a_copy_is_online(&primary).await;
    let (first, second) = (health(&primary).await, health(&copy).await);
    assert_eq!((first.role, first.epoch.map(|epoch| epoch.0), first.holds_data), ("primary", Some(4), true));
    assert_eq!((first.replicas.len(), first.replicas[0].state.as_str()), (1, "online"));
    assert_eq!((first.resyncs.full, first.resyncs.partial_ok), (1, 0));
    assert_eq!((second.role, second.link, second.upstream), ("following", Some("up"), Some(primary.address())));
    assert!(second.heard_s_ago.is_some_and(|seconds| seconds < 10));
    assert_eq!(resync_loop(&first, &health(&primary).await), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_measured_in_bytes_and_by_the_primarys_own_clock_and_is_unknown_without_a_link() {
    let (primary, copy) = (start(), start());
    let line = Line::start(primary.address(), Duration::from_millis(5)).await.unwrap();
    until(&primary, "up", |_| true).await;
    until(&copy, "up", |_| true).await;
    change(&primary, Change::Primary, 1).await;
    write(&primary, "e:{x}").unwrap();
    let unrelated = operator().lag(&primary.address(), &copy.address()).await.unwrap();
    assert_eq!((unrelated.lag_bytes, unrelated.heartbeat_age_ms, unrelated.link_up), (None, None, false));

    change(&copy, Change::Follow(line.address()), 1).await;
    until(&copy, "a copy", |facts| follows(facts, &line.address())).await;
    operator().beat(&primary.address()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let near = operator().lag(&primary.address(), &copy.address()).await.unwrap();
    assert!(near.lag_bytes.is_some_and(|bytes| bytes < 200), "{near:?}");
    line.freeze();
    for number in 0..50 {
        write(&primary, &format!("e:{{{number}}}")).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let far = operator().lag(&primary.address(), &copy.address()).await.unwrap();
    assert!(far.lag_bytes.is_some_and(|bytes| bytes > 1_000), "{far:?}");
    assert!(far.heartbeat_age_ms.is_some_and(|age| (400..60_000).contains(&age)), "{far:?}");
}

#[tokio::test]
async fn a_backlog_too_small_for_the_writes_of_a_short_outage_is_found() {
    let primary = start_with("repl-backlog-size 16384\n");
    let copy = start();
    common::pair_up(&primary, &copy, 1).await;
    let former = health(&primary).await;
    let mut connection = primary.connection().unwrap();
    // In one transaction the link is cut, and more is written than the backlog holds.
    let mut outage = redis::pipe();
    outage.atomic().cmd("CLIENT").arg("KILL").arg("TYPE").arg("replica");
    for number in 0..40 {
        outage.cmd("SET").arg(format!("e:{{{number}}}")).arg("x".repeat(1_000));
    }
    let first = primary.info("sync_full").unwrap();
    for cut in 1..=LOOPS {
        outage.exec(&mut connection).unwrap();
        until_full_copies(&primary, first + cut, |_| {}).await;
        until(&copy, "a copy", |facts| follows(facts, &primary.address())).await;
    }
    let found = resync_loop(&former, &health(&primary).await).unwrap();
    assert_eq!((found.setting, found.current.as_str()), ("repl-backlog-size", "16384"));
    assert!(found.line.starts_with("repl-backlog-size ") && found.why.contains("could not go on"), "{found:?}");
}

#[tokio::test]
async fn copies_that_are_cut_off_because_their_buffer_overflows_are_found() {
    // Each key takes a moment to copy, and meanwhile more is written than the buffer may hold.
    let primary = start_with("repl-backlog-size 16384\nclient-output-buffer-limit replica 20000 0 0\n");
    let copy = start();
    until(&primary, "up", |_| true).await;
    until(&copy, "up", |_| true).await;
    change(&primary, Change::Primary, 1).await;
    let mut connection = primary.connection().unwrap();
    let mut keys = redis::pipe();
    for number in 0..200 {
        keys.cmd("SET").arg(format!("e:{{{number}}}")).arg("x");
    }
    keys.exec(&mut connection).unwrap();
    primary.ask::<()>("CONFIG SET rdb-key-save-delay 5000").unwrap();
    let former = health(&primary).await;
    change(&copy, Change::Follow(primary.address()), 1).await;
    let first = primary.info("sync_full").unwrap();
    until_full_copies(&primary, first + LOOPS + 1, |round| {
        let mut burst = redis::pipe();
        for number in 0..20 {
            burst.cmd("SET").arg(format!("e:{{burst{number}}}")).arg(format!("{round}{}", "x".repeat(5_000)));
        }
        burst.exec(&mut connection).unwrap();
    })
    .await;
    let found = resync_loop(&former, &health(&primary).await).unwrap();
    assert_eq!((found.setting, found.current.as_str()), ("client-output-buffer-limit", "replica 20000 0 0"), "{found:?}");
    assert!(found.line.starts_with("client-output-buffer-limit replica ") && found.why.contains("outgrew"), "{found:?}");
}

#[tokio::test]
async fn settings_that_will_go_wrong_are_reported_with_the_line_to_have_instead() {
    let good = start();
    assert_eq!(operator().check_settings(&good.address(), &WantedSettings::default()).await.unwrap(), []);
    let bad = start_with(
        "maxmemory-policy allkeys-lru\nrepl-backlog-size 1048576\nmin-replicas-max-lag 0\nclient-output-buffer-limit replica 1048576 0 0\n",
    );
    let found = operator().check_settings(&bad.address(), &WantedSettings::default()).await.unwrap();
    let lines: Vec<&str> = found.iter().map(|finding| finding.line.as_str()).collect();
    assert_eq!(
        lines,
        [
            "maxmemory-policy noeviction",
            "repl-backlog-size 8388608",
            "client-output-buffer-limit replica 16777216 0 0",
            "min-replicas-max-lag 10"
        ]
    );
    assert!(found.iter().all(|finding| finding.address == bad.address() && !finding.why.is_empty()));
    let future = WantedSettings { version_min: (99, 0), ..WantedSettings::default() };
    let found = operator().check_settings(&good.address(), &future).await.unwrap();
    assert_eq!(found[0].line, "redis-server 99.0 or newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_link_is_given_up_and_the_copy_goes_on_where_it_was() {
    let (primary, copy) = (start_with("repl-timeout 3\n"), start_with("repl-timeout 3\n"));
    let line = Line::start(primary.address(), Duration::from_millis(1)).await.unwrap();
    until(&primary, "up", |_| true).await;
    until(&copy, "up", |_| true).await;
    change(&primary, Change::Primary, 1).await;
    write(&primary, "e:{x}").unwrap();
    change(&copy, Change::Follow(line.address()), 1).await;
    until(&copy, "a copy", |facts| follows(facts, &line.address()) && facts.holds_data).await;

    line.half_open();
    write(&primary, "e:{late}").unwrap();
    assert!(follows(&until(&copy, "up", |_| true).await, &line.address()), "nobody has told it");
    let lag = operator().lag(&primary.address(), &copy.address()).await.unwrap();
    assert!(lag.lag_bytes.is_some_and(|bytes| bytes > 0), "{lag:?}");
    until(&copy, "alone", |facts| matches!(facts.role, ShardRole::Following { link: Link::Down, .. })).await;
    until(&copy, "a copy again", |facts| follows(facts, &line.address())).await;
    assert_eq!(copy.ask::<Option<String>>("GET e:{late}").unwrap().as_deref(), Some("x"));
    let resyncs = health(&primary).await.resyncs;
    assert_eq!((resyncs.full, resyncs.partial_ok), (1, 1), "{resyncs:?}");
}

#[tokio::test]
async fn a_process_near_its_memory_limit_is_found_before_it_refuses_writes() {
    let (primary, _copy) = primary_and_copy(1).await;
    assert_eq!(near_memory_limit(&health(&primary).await), None, "without a limit it is never near to it");
    let used = health(&primary).await.used_memory_bytes;
    primary.ask::<()>(&format!("CONFIG SET maxmemory {}", used * 3)).unwrap();
    assert_eq!(near_memory_limit(&health(&primary).await), None);
    let limit = used * 6 / 5;
    primary.ask::<()>(&format!("CONFIG SET maxmemory {limit}")).unwrap();
    write(&primary, "e:{near}").unwrap();
    let found = near_memory_limit(&health(&primary).await).unwrap();
    assert_eq!((found.setting, found.current), ("maxmemory", limit.to_string()));
    assert!(found.line.starts_with("maxmemory ") && found.why.contains("80 %"), "{} {}", found.line, found.why);
}
