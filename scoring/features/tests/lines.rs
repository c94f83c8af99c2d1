//! What the way to a shard does to decisions and to folding: half open, or slow.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{NOW, Redis, config, connected, figure, in_time, measured_store, measured_store_of, nobody, part, payment, plan, position};
use domain::RegionRole;
use redis_testbed::Line;
use scoring_core::{decide::FeatureState, event::EntityKind};
use scoring_features::{FeatureRead, FoldError, RedisConfig, RedisStore, StoreConfig};
use tokio::time::Instant;

/// A fold that must not wait for ever.
const IMPATIENT: Duration = Duration::from_millis(300);

async fn decide(store: &RedisStore, n: i64) -> FeatureRead {
    store.record_and_read(&payment(&format!("t-{n}"), 1, NOW + n), Instant::now() + Duration::from_millis(50)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_given_up_and_a_new_one_does_the_work() {
    let redis = Redis::start();
    let line = Line::start(redis.address(), Duration::from_millis(1)).await.unwrap();
    let (store, registry) = measured_store(&plan(1, RegionRole::Active, &[line.address()]));
    connected(&store).await;
    store.fold(&part(0, 0, &[payment("t-0", 1, NOW)]), &nobody(), NOW, Duration::from_secs(5)).await.unwrap();

    // Both ends still believe in the connection, and nothing comes through.
    line.half_open();
    assert_eq!(decide(&store, 1).await.state(), FeatureState::Missing);
    let limit = Instant::now() + Duration::from_secs(20);
    let mut decisions = 1;
    while decide(&store, 1 + decisions).await.state() != FeatureState::Whole {
        decisions += 1;
        assert!(Instant::now() < limit, "the connection is not given up");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(figure(&registry, "connection_failures_total{shard=\"0\",cause=\"broken\"}") >= 1.0);

    // The builder's turn: it gives up, is told so, and folds the same batch over the new connection.
    line.half_open();
    let batch = part(0, 1, &[payment("t-1", 1, NOW + 1)]);
    let refused = store.fold(&batch, &nobody(), NOW, IMPATIENT).await.unwrap_err();
    assert!(matches!(&refused, FoldError::Shard { shard: 0, problem } if problem.contains("did not answer in time")), "{refused}");
    while store.fold(&batch, &nobody(), NOW, IMPATIENT).await.is_err() {
        assert!(Instant::now() < limit, "the builder does not come back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.positions(Duration::from_secs(5)).await.unwrap(), position(0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_on_a_slow_way_makes_nobody_fold_twice() {
    let redis = Redis::start();
    let line = Line::start(redis.address(), Duration::from_millis(300)).await.unwrap();
    let patient = Duration::from_secs(20);
    let redis_config = RedisConfig { connect_timeout: patient, silence_max: patient, ..config().redis };
    let plan = plan(1, RegionRole::Active, &[line.address()]);
    let (store, _) = measured_store_of(StoreConfig { redis: redis_config, ..config() }, &plan);
    connected(&store).await;
    // Long ago and many: they are summed up, where nobody can tell one from the other.
    let old = |n: i64| payment(&format!("t-{n}"), 1, NOW - 7_200_000 + n);
    let first: Vec<_> = (0..70).map(old).collect();
    store.fold(&part(0, 0, &first), &nobody(), NOW, patient).await.unwrap();
    let folds = || redis.ask::<u64>("GET fp:folds");

    // Reading takes 600 ms, and the write arrives after 900: then nobody waits for its answer any more.
    let (mut from, mut unheard) = (70, 0);
    for _ in 0..5 {
        let (batch, before) = (part(0, from, &[old(from)]), folds());
        let refused = store.fold(&batch, &nobody(), NOW, Duration::from_millis(1_050)).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        unheard += u32::from(refused.is_err() && folds() > before);
        store.fold(&batch, &nobody(), NOW, patient).await.unwrap();
        from += 1;
        if unheard > 0 {
            break;
        }
    }
    assert!(unheard > 0, "every answer came in time");
    let read = store.record_and_read(&payment("t-now", 1, NOW), in_time() + patient).await;
    for (kind, state) in read.states.iter() {
        let in_panes: u32 = state.panes().as_slice().iter().map(|pane| pane.attempts()).sum();
        let records = i64::try_from(state.records().len()).unwrap();
        // The payment that asks is among them.
        assert_eq!(records - 1 + i64::from(in_panes), from, "{kind:?}");
        assert!(in_panes > 0 || kind != EntityKind::Card);
    }
}
