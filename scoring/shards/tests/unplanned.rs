//! Promotions without the old primary.
#![allow(clippy::unwrap_used)]

mod common;

use common::{change, follows, operator, primary_and_copy, start, until, upstream, write};
use domain::{Epoch, HostPort};
use feature_shards::{Change, ShardError, Unplanned};
use operator_planner::{Link, ShardRole};
use redis_testbed::Server;

fn wanted(new: &Server, old: HostPort) -> Unplanned {
    Unplanned { shard: 0, new: new.address(), old: Some(old), force: false }
}

#[tokio::test]
async fn the_copy_of_a_dead_primary_takes_over_and_the_old_one_returns_as_its_copy() {
    let (old, copy) = primary_and_copy(1).await;
    let address = old.address();
    write(&old, "e:{second}").unwrap();
    until(&copy, "up to date", |facts| facts.offset > 0).await;
    drop(old);
    until(&copy, "alone", |facts| matches!(facts.role, ShardRole::Following { link: Link::Down, .. })).await;
    let report = operator().promote_unplanned(&wanted(&copy, address), Epoch(2)).await.unwrap();
    assert!(report.fork_offset.is_some_and(|offset| offset > 0), "{report:?}");
    let facts = until(&copy, "primary", |facts| facts.role == ShardRole::Primary).await;
    assert_eq!((facts.epoch, facts.holds_data), (Some(Epoch(2)), true));
    write(&copy, "e:{after}").unwrap();

    let returned = start();
    until(&returned, "up", |_| true).await;
    operator().follow(&returned.address(), &upstream(&copy), Epoch(2), false).await.unwrap();
    until(&returned, "a copy", |facts| follows(facts, &copy.address()) && facts.holds_data).await;
}

#[tokio::test]
async fn an_old_primary_that_still_takes_writes_is_not_left_beside_a_new_one() {
    let (old, copy) = primary_and_copy(1).await;
    let refused = operator().promote_unplanned(&wanted(&copy, old.address()), Epoch(2)).await.unwrap_err();
    assert!(matches!(refused, ShardError::NotPromotable { .. }) && refused.to_string().contains("takes writes"), "{refused}");
    operator().hold(&old.address(), Epoch(2)).await.unwrap();
    operator().promote_unplanned(&wanted(&copy, old.address()), Epoch(2)).await.unwrap();
    write(&old, "e:{x}").unwrap_err();
}

#[tokio::test]
async fn an_empty_copy_is_promoted_only_by_force() {
    let empty = start();
    until(&empty, "up", |_| true).await;
    let nobody = HostPort { host: "127.0.0.1".into(), port: 1 };
    let mut shard = wanted(&empty, nobody);
    let refused = operator().promote_unplanned(&shard, Epoch(2)).await.unwrap_err();
    assert!(refused.to_string().contains("holds no data"), "{refused}");
    shard.force = true;
    operator().promote_unplanned(&shard, Epoch(2)).await.unwrap();
    until(&empty, "primary", |facts| facts.role == ShardRole::Primary).await;
}

#[tokio::test]
async fn a_stale_epoch_promotes_nothing() {
    let (old, copy) = primary_and_copy(7).await;
    let address = old.address();
    drop(old);
    let refused = operator().promote_unplanned(&wanted(&copy, address), Epoch(6)).await.unwrap_err();
    assert!(refused.to_string().contains("holds epoch 7, which is newer than epoch 6: nothing was changed"), "{refused}");
    assert!(matches!(until(&copy, "up", |_| true).await.role, ShardRole::Following { .. }));
    change(&copy, Change::Primary, 7).await;
}
