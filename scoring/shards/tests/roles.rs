//! Role changes against real Redis processes, with the rights that the role `operator` has in a cluster.
#![allow(clippy::unwrap_used)]

mod common;

use common::{change, follows, operator, primary_and_copy, start, until, upstream, write};
use domain::{Epoch, HostPort};
use feature_shards::{Change, ShardClient, ShardError};
use operator_planner::{Link, ShardRole};

#[tokio::test]
async fn a_process_starts_nowhere_and_becomes_the_primary_of_an_epoch() {
    let redis = start();
    let facts = until(&redis, "up", |_| true).await;
    assert_eq!((&facts.role, facts.epoch, facts.holds_data), (&ShardRole::Nowhere, None, false));
    write(&redis, "e:{x}").unwrap_err();
    change(&redis, Change::Primary, 3).await;
    let facts = until(&redis, "primary", |facts| facts.role == ShardRole::Primary).await;
    assert_eq!((facts.epoch, facts.holds_data), (Some(Epoch(3)), false), "the epoch alone is no data");
    operator().beat(&redis.address()).await.unwrap();
    assert!(!until(&redis, "up", |_| true).await.holds_data, "nor is a heartbeat");
    write(&redis, "e:{x}").unwrap();
    assert!(until(&redis, "with data", |facts| facts.holds_data).await.holds_data);
    change(&redis, Change::Primary, 3).await;
}

#[tokio::test]
async fn an_operator_that_was_overtaken_changes_nothing() {
    let redis = start();
    until(&redis, "up", |_| true).await;
    change(&redis, Change::Primary, 5).await;
    let follow = Change::Follow(HostPort { host: "127.0.0.1".into(), port: 2 });
    for change in [Change::Primary, Change::Hold, follow] {
        let refused = operator().change(&redis.address(), &change, Epoch(4)).await.unwrap_err();
        assert!(matches!(refused, ShardError::NewerEpoch { seen: Epoch(5), ours: Epoch(4), .. }), "{refused}");
    }
    let facts = until(&redis, "up", |_| true).await;
    assert_eq!((facts.role, facts.epoch), (ShardRole::Primary, Some(Epoch(5))));
}

#[tokio::test]
async fn a_primary_that_restarted_empty_gets_its_data_back_from_a_held_copy() {
    let (primary, copy) = primary_and_copy(1).await;
    drop(primary);
    until(&copy, "alone", |facts| matches!(facts.role, ShardRole::Following { link: Link::Down, .. })).await;
    let reborn = start();
    until(&reborn, "up", |_| true).await;
    operator().hold(&copy.address(), Epoch(1)).await.unwrap();
    let held = until(&copy, "held", |facts| facts.role == ShardRole::Held).await;
    assert!(held.holds_data && held.epoch == Some(Epoch(1)));
    write(&copy, "e:{y}").unwrap_err();

    operator().follow(&reborn.address(), &upstream(&copy), Epoch(1), false).await.unwrap();
    until(&reborn, "complete", |facts| follows(facts, &copy.address()) && facts.holds_data).await;
    change(&reborn, Change::Primary, 1).await;
    write(&reborn, "e:{z}").unwrap();
    operator().follow(&copy.address(), &upstream(&reborn), Epoch(1), false).await.unwrap();
    let copied = until(&copy, "a copy again", |facts| follows(facts, &reborn.address())).await;
    assert!(copied.holds_data);
}

#[tokio::test]
async fn an_empty_process_is_never_followed_by_one_that_holds_data() {
    let (full, empty) = (start(), start());
    until(&full, "up", |_| true).await;
    until(&empty, "up", |_| true).await;
    change(&full, Change::Primary, 1).await;
    write(&full, "e:{x}").unwrap();
    change(&empty, Change::Primary, 1).await;

    let refused = operator().follow(&full.address(), &upstream(&empty), Epoch(1), false).await.unwrap_err();
    assert!(matches!(refused, ShardError::EmptyUpstream { .. }), "{refused}");
    let gone = empty.address();
    drop(empty);
    let unknown = feature_shards::Upstream { address: gone.clone(), from_follower: gone };
    let refused = operator().follow(&full.address(), &unknown, Epoch(1), false).await.unwrap_err();
    assert!(matches!(refused, ShardError::UnknownUpstream { .. }), "{refused}");
    assert_eq!(until(&full, "up", |_| true).await.role, ShardRole::Primary);

    let empty = start();
    until(&empty, "up", |_| true).await;
    change(&empty, Change::Primary, 1).await;
    operator().follow(&full.address(), &upstream(&empty), Epoch(1), true).await.unwrap();
    until(&full, "forced", |facts| follows(facts, &empty.address()) && !facts.holds_data).await;
}

#[tokio::test]
async fn nobody_follows_a_process_of_a_newer_epoch_than_his_own() {
    let (newer, own) = (start(), start());
    until(&newer, "up", |_| true).await;
    until(&own, "up", |_| true).await;
    change(&newer, Change::Primary, 9).await;
    let refused = operator().follow(&own.address(), &upstream(&newer), Epoch(8), false).await.unwrap_err();
    assert!(matches!(refused, ShardError::NewerEpoch { seen: Epoch(9), .. }), "{refused}");
    assert_eq!(until(&own, "up", |_| true).await.role, ShardRole::Nowhere);
}

#[tokio::test]
async fn a_process_that_does_not_answer_is_unknown_and_no_password_is_in_the_error() {
    let nobody = HostPort { host: "127.0.0.1".into(), port: 1 };
    let error = operator().look(&nobody).await.unwrap_err();
    assert!(error.is_nobody(), "{error}");
    let error = error.to_string();
    assert!(error.contains("127.0.0.1:1") && !error.contains("operator-password"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_told_from_everything_else() {
    let redis = start();
    until(&redis, "up", |_| true).await;
    let stranger = ShardClient::new("guessed".into());
    let error = stranger.look(&redis.address()).await.unwrap_err();
    assert!(matches!(error, ShardError::Login { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("user operator: wrong password") && text.contains("password file") && !text.contains("guessed"), "{text}");

    let nobody = ShardClient::without_login().look(&redis.address()).await.unwrap_err();
    assert!(matches!(nobody, ShardError::Login { .. }), "{nobody:?}");
    let other = ShardClient::with_user("writer".into(), "writer-password".into());
    let error = other.look(&redis.address()).await.unwrap_err();
    assert!(matches!(error, ShardError::Rights { .. }), "{error:?}");
}
