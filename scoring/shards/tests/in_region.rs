//! What Redis has to do for the failover of a shard inside a region; who decides on it is in the planner's tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{change, follows, operator, primary_and_copy, until, write};
use domain::HostPort;
use feature_shards::Change;
use operator_planner::{Link, ShardRole};

#[tokio::test]
async fn a_primary_that_lost_its_replica_takes_no_writes_and_the_replica_that_takes_over_has_all_of_them() {
    let (primary, replica) = primary_and_copy(1).await;
    change(&primary, Change::Require(1), 1).await;
    assert_eq!(until(&primary, "guarded", |_| true).await.replicas_required, 1);
    write(&primary, "e:{y}").unwrap();

    // As if the two could not reach each other: the replica looks elsewhere, and the primary keeps running.
    change(&replica, Change::Follow(HostPort { host: "127.0.0.1".into(), port: 2 }), 1).await;
    let started = Instant::now();
    while write(&primary, "e:{z}").is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "it goes on alone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    change(&replica, Change::Primary, 1).await;
    assert_eq!(until(&replica, "primary", |facts| facts.role == ShardRole::Primary).await.replicas_required, 0);
    write(&replica, "e:{z}").unwrap();

    // The old one comes back under the new one.
    change(&primary, Change::Follow(replica.address()), 1).await;
    until(&primary, "a replica", |facts| follows(facts, &replica.address()) && facts.holds_data).await;
    write(&primary, "e:{x}").unwrap_err();
}

/// The fence of a silent primary rests on this: it notices by itself, within the time that the planner waits.
#[tokio::test]
async fn a_primary_whose_replica_hangs_takes_no_writes_within_the_time_that_the_planner_waits() {
    let (primary, replica) = primary_and_copy(1).await;
    change(&primary, Change::Require(1), 1).await;
    write(&primary, "e:{y}").unwrap();
    replica.stop_answering().unwrap();
    let started = Instant::now();
    while write(&primary, "e:{z}").is_ok() {
        assert!(started.elapsed() < Duration::from_secs(6), "it goes on alone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    replica.answer_again().unwrap();
}

#[tokio::test]
async fn a_killed_primary_is_told_from_a_silent_one_and_its_replica_says_for_how_long_it_is_alone() {
    let (primary, replica) = primary_and_copy(1).await;
    let address = primary.address();
    let mut visit = operator().visit(&address).await.unwrap();
    visit.ping().await.unwrap();
    drop(primary);
    assert!(visit.ping().await.is_err() && operator().look(&address).await.unwrap_err().is_nobody());
    let alone = until(&replica, "alone", |facts| matches!(facts.role, ShardRole::Following { link: Link::Down, .. })).await;
    assert!(alone.unlinked_s < 5, "{alone:?}");
    until(&replica, "alone for two seconds", |facts| facts.unlinked_s >= 2).await;
}
