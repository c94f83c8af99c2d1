//! Fifty payments of one card within 50 ms over four pods, against a real Redis.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use bench::redis_server::RedisServer;
use bench_features::burst::{Burst, PODS, check};
use bench_features::contender::Contender;
use bench_features::flushed::FlushedCounters;
use bench_features::lua_counters::LuaCounters;
use bench_features::ours::Ours;

async fn counts<C: Contender>(connect: impl AsyncFn(u16) -> anyhow::Result<C>) -> Vec<u64> {
    let redis = RedisServer::start(&[]).unwrap();
    let mut pods = Vec::new();
    for _ in 0..PODS {
        pods.push(Arc::new(connect(redis.port()).await.unwrap()));
    }
    Burst::default().run(&pods, 0).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_payment_of_a_burst_sees_those_that_other_pods_are_deciding() {
    let counts = counts(Ours::connect).await;
    assert!(check(&counts).is_ok(), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_that_pods_flush_miss_the_burst() {
    let counts = counts(FlushedCounters::connect).await;
    assert!(check(&counts).is_err(), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_that_are_written_through_see_it_at_the_price_of_a_script_for_each_entity() {
    let counts = counts(LuaCounters::connect).await;
    assert!(check(&counts).is_ok(), "{counts:?}");
}
