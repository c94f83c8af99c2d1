//! Planned promotions of real processes: nothing acknowledged is lost, the old side comes back cheaply, and whatever fails
//! leaves one primary or none, never two.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{
    change, follows, operator, pair_up, primary_and_copy, start, until, write,
    writer::{Writer, missing},
};
use domain::{Epoch, HostPort};
use feature_shards::{Change, Outcome, Pair, PlannedOptions, PlannedReport, ShardState, Unplanned};
use operator_planner::ShardRole;
use redis_testbed::{Line, Server};

fn pair(shard: u16, old: HostPort, new: &Server) -> Pair {
    Pair { shard, old, new: new.address(), new_from_old: new.address() }
}

/// Short, so that a test need not wait long for what happens when they pass.
fn short() -> PlannedOptions {
    let ms = Duration::from_millis;
    PlannedOptions { lease: ms(2_500), catch_up_within: ms(1_500), promote_within: ms(500), ..PlannedOptions::default() }
}

async fn promote(pairs: &[Pair], epoch: u64, options: &PlannedOptions) -> PlannedReport {
    operator().promote_planned(pairs, Epoch(epoch), options).await
}

fn setting(server: &Server, name: &str) -> String {
    let answer: Vec<String> = server.ask(&format!("CONFIG GET {name}")).unwrap();
    answer[1].clone()
}

fn is_as_it_was(old: &Server) {
    assert_eq!((setting(old, "repl-ping-replica-period").as_str(), setting(old, "min-replicas-to-write").as_str()), ("1", "0"));
    write(old, "e:{after}").unwrap();
}

fn refuses_writes(server: &Server) {
    let error = write(server, "e:{refused}").unwrap_err();
    assert!(matches!(error.code(), Some("NOREPLICAS" | "READONLY")), "{error}");
}

/// A copy that follows over a line which no longer carries anything, and is a little behind.
async fn stuck_copy(old: &Server, copy: &Server, epoch: u64) -> Line {
    let line = Line::start(old.address(), Duration::from_millis(1)).await.unwrap();
    until(old, "up", |_| true).await;
    until(copy, "up", |_| true).await;
    change(old, Change::Primary, epoch).await;
    write(old, "e:{first}").unwrap();
    change(copy, Change::Follow(line.address()), epoch).await;
    until(copy, "a copy", |facts| follows(facts, &line.address()) && facts.holds_data).await;
    line.freeze();
    write(old, "e:{late}").unwrap();
    line
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_promotions_under_writes_lose_none_and_the_old_side_never_copies_everything() {
    let (us, eu) = primary_and_copy(1).await;
    let writer = Writer::start([&us, &eu]);
    for run in 0..10_u64 {
        writer.goes_on(50).await;
        let (old, new) = if run % 2 == 0 { (&us, &eu) } else { (&eu, &us) };
        let report = promote(&[pair(0, old.address(), new)], run + 2, &PlannedOptions::default()).await;
        assert_eq!(report.outcome, Outcome::Promoted, "run {run}: {report:?}");
        assert_eq!((report.shards[0].partial_resyncs, report.shards[0].full_resyncs), (1, 0), "run {run}: {report:?}");
        let facts = until(new, "primary", |facts| facts.role == ShardRole::Primary).await;
        assert_eq!(facts.epoch, Some(Epoch(run + 2)));
        assert_eq!(setting(old, "repl-ping-replica-period"), "1");
    }
    writer.goes_on(50).await;
    let acknowledged = writer.stop();
    assert_eq!(missing(&acknowledged, &us), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_to_another_replica_do_not_cost_a_full_copy_while_the_old_primary_is_not_yet_re_pointed() {
    let (us, eu) = primary_and_copy(1).await;
    let sibling = start();
    until(&sibling, "up", |_| true).await;
    change(&sibling, Change::Follow(us.address()), 1).await;
    until(&sibling, "a copy", |facts| follows(facts, &us.address())).await;
    for (run, (old, new)) in [(&us, &eu), (&eu, &us), (&us, &eu)].into_iter().enumerate() {
        let line = Line::start(old.address(), Duration::from_millis(50)).await.unwrap();
        // The command to follow is on its way for nearly a second: without silence a PING would fall into that time.
        let detained = async {
            until(new, "primary", |facts| facts.role == ShardRole::Primary).await;
            line.freeze();
            tokio::time::sleep(Duration::from_millis(850)).await;
            line.thaw();
        };
        let options = PlannedOptions { promote_within: Duration::from_secs(3), ..PlannedOptions::default() };
        let pairs = [pair(0, line.address(), new)];
        let (report, ()) = futures::join!(promote(&pairs, run as u64 + 2, &options), detained);
        assert_eq!(report.outcome, Outcome::Promoted, "{report:?}");
        assert_eq!(report.shards[0].full_resyncs, 0, "run {run}: {report:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_does_not_catch_up_leaves_everything_as_it_was_and_no_ping_moved_the_offset_meanwhile() {
    let (old, copy) = (start(), start());
    let _line = stuck_copy(&old, &copy, 1).await;
    let pairs = [pair(0, old.address(), &copy)];
    let watching = async {
        while setting(&old, "min-replicas-to-write") != "255" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let at_first = old.info("master_repl_offset").unwrap();
        // Longer than from one PING to the next.
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        (at_first, old.info("master_repl_offset").unwrap())
    };
    let options = short();
    let (report, (at_first, later)) = futures::join!(promote(&pairs, 2, &options), watching);
    assert_eq!(at_first, later);
    assert_eq!((report.outcome, report.shards[0].state), (Outcome::Aborted, ShardState::Unchanged), "{report:?}");
    assert!(report.shards[0].problems[0].contains("catching up"), "{report:?}");
    is_as_it_was(&old);
    let facts = until(&old, "up", |_| true).await;
    assert_eq!((facts.role, facts.epoch), (ShardRole::Primary, Some(Epoch(1))));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_shard_moves_unless_all_can() {
    let (old, copy) = (start(), start());
    let _line = stuck_copy(&old, &copy, 1).await;
    let (other, other_copy) = primary_and_copy(1).await;
    let pairs = [pair(0, other.address(), &other_copy), pair(1, old.address(), &copy)];
    let report = promote(&pairs, 2, &short()).await;
    assert_eq!(report.outcome, Outcome::Aborted, "{report:?}");
    is_as_it_was(&old);
    is_as_it_was(&other);
    until(&other_copy, "still a copy", |facts| follows(facts, &other.address())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_controller_died_and_its_pause_lapsed_the_old_primary_still_refuses_writes_and_a_repetition_finishes() {
    let (old, copy) = (start(), start());
    let line = stuck_copy(&old, &copy, 1).await;
    let pairs = [pair(0, old.address(), &copy)];
    let ms = Duration::from_millis;
    let options = PlannedOptions { lease: ms(1_500), catch_up_within: ms(1_000), promote_within: ms(400), ..PlannedOptions::default() };
    let dead = tokio::time::timeout(ms(400), promote(&pairs, 2, &options)).await;
    assert!(dead.is_err());
    tokio::time::sleep(ms(1_600)).await;
    let error = write(&old, "e:{refused}").unwrap_err();
    assert_eq!(error.code(), Some("NOREPLICAS"), "{error}");

    line.thaw();
    until(&copy, "a copy again", |facts| follows(facts, &line.address())).await;
    let report = promote(&pairs, 2, &PlannedOptions::default()).await;
    assert_eq!(report.outcome, Outcome::Promoted, "{report:?}");
    assert_eq!(setting(&old, "repl-ping-replica-period"), "1");
    write(&copy, "e:{after}").unwrap();
    let again = promote(&pairs, 2, &PlannedOptions::default()).await;
    assert_eq!(again.outcome, Outcome::Promoted, "{again:?}");
    assert_eq!(again.write_gap_ms_max, None, "nothing was paused again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_was_paused_and_overtaken_changes_nothing_when_it_comes_back() {
    let (old, copy) = (start(), start());
    let line = stuck_copy(&old, &copy, 1).await;
    let pairs = [pair(0, old.address(), &copy)];
    let options = short();
    let mut overtaken = Box::pin(promote(&pairs, 2, &options));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut overtaken).await.is_err());
    let newer = Unplanned { shard: 0, new: copy.address(), old: None, force: false };
    operator().promote_unplanned(&newer, Epoch(3)).await.unwrap();
    line.thaw();

    let report = overtaken.await;
    assert_eq!((report.outcome, report.shards[0].state), (Outcome::Unfinished, ShardState::Fenced), "{report:?}");
    let facts = until(&copy, "up", |_| true).await;
    assert_eq!((facts.role, facts.epoch), (ShardRole::Primary, Some(Epoch(3))));
    assert_eq!(setting(&old, "min-replicas-to-write"), "255");

    let late = promote(&pairs, 2, &options).await;
    assert_eq!(late.outcome, Outcome::Aborted);
    assert!(late.shards[0].problems[0].contains("holds epoch 3, which is newer than epoch 2"), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_slept_through_its_lease_opens_nothing() {
    let (old, copy) = (start(), start());
    let _line = stuck_copy(&old, &copy, 1).await;
    let pairs = [pair(0, old.address(), &copy)];
    let options = short();
    let mut sleeper = Box::pin(promote(&pairs, 2, &options));
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut sleeper).await.is_err());
    tokio::time::sleep(options.lease).await;
    let report = sleeper.await;
    assert_eq!(report.shards[0].state, ShardState::Fenced, "{report:?}");
    assert!(report.shards[0].problems.iter().any(|problem| problem.contains("lease")), "{report:?}");
    refuses_writes(&old);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_dies_after_the_promotion_is_reported_and_nothing_is_rolled_back() {
    let (old, new) = primary_and_copy(1).await;
    let line = Line::start(old.address(), Duration::from_millis(100)).await.unwrap();
    let pairs = [pair(0, line.address(), &new)];
    let dying = async {
        until(&new, "primary", |facts| facts.role == ShardRole::Primary).await;
        drop(old);
    };
    let options = short();
    let (report, ()) = futures::join!(promote(&pairs, 2, &options), dying);
    assert_eq!((report.outcome, report.shards[0].state), (Outcome::Unfinished, ShardState::Promoted), "{report:?}");
    assert!(report.write_gap_ms_max.is_some());
    assert!(report.shards[0].problems.iter().any(|problem| problem.contains("fraud-features follow")), "{report:?}");
    write(&new, "e:{after}").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_copy_of_the_primary_is_refused_before_anything_is_touched() {
    let (old, copy) = primary_and_copy(1).await;
    let (stranger, strangers_copy) = (start(), start());
    pair_up(&stranger, &strangers_copy, 1).await;
    let report = promote(&[pair(0, old.address(), &strangers_copy)], 2, &short()).await;
    assert!(report.shards[0].problems[0].contains("is not a copy of"), "{report:?}");
    old.ask::<()>("CONFIG SET min-replicas-max-lag 0").unwrap();
    let report = promote(&[pair(0, old.address(), &copy)], 2, &short()).await;
    assert!(report.shards[0].problems[0].contains("min-replicas-max-lag 2"), "{report:?}");
    is_as_it_was(&old);
    let report = promote(&[pair(0, copy.address(), &old)], 2, &short()).await;
    assert!(report.shards[0].problems[0].contains("is no primary"), "{report:?}");
}
