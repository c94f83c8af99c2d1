//! What the builder has published in real shards decides how careful the answers are (feature `broker-tests`; needs
//! redis-server).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../../features/tests/common/mod.rs"]
mod common;
mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use common::{Redis, store};
use domain::{Epoch, HostPort, Known, RegionName, RegionRole};
use prost::Message as _;
use proto::fraud::v1::{DecideResponse, FeatureState, WindowState};
use scoring_core::{freshness::OriginData, published::Published, windows::Windows};
use scoring_decision::{
    freshness::FreshnessWatch,
    pipeline::{Parts, Pipeline},
};
use scoring_features::{FeatureStore, RedisStore};
use support::{
    NOW_MS, decide,
    inference::{Behaviour, StandIn},
    parts, payment, service, warm,
};
use tokio::{task::JoinHandle, time::Instant};

/// Publishes the same again and again, as a builder does; ends when dropped.
struct Publishing(JoinHandle<()>);

impl Publishing {
    fn of(addresses: &[HostPort], origins: &[(&str, OriginData)]) -> Self {
        let builder = store(1, RegionRole::Active, addresses);
        let origins: BTreeMap<_, _> = origins.iter().map(|(region, data)| (RegionName::new(*region).unwrap(), data.clone())).collect();
        Self(tokio::spawn(async move {
            for published_ms in 1.. {
                let region = RegionName::new("us-east").unwrap();
                let said = Published { region, epoch: Epoch(1), published_ms, valid_ms: 1_000, origins: origins.clone() };
                publish(&builder, &said).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }))
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn publish(builder: &RedisStore, said: &Published) {
    let bytes = said.to_wire().encode_to_vec();
    builder.publish_freshness(&bytes, Duration::from_secs(600), Instant::now() + Duration::from_secs(1)).await;
}

fn producing(age_ms: u64) -> OriginData {
    OriginData::Producing { age_ms: Known::Fresh { value: age_ms, seen_at_ms: 0 } }
}

/// A decision whose features are as expected, within a while.
async fn until(pipeline: &Pipeline, expected: FeatureState) -> DecideResponse {
    let limit = Instant::now() + Duration::from_secs(20);
    for attempt in 0.. {
        let response = decide(pipeline, payment(&format!("{expected:?}-{attempt}"))).await;
        let found = response.degradation.as_ref().unwrap().features();
        if found == expected {
            return response;
        }
        assert!(Instant::now() < limit, "not {expected:?} but {found:?}: {:?}", response.freshness);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_as_careful_as_what_is_known_to_be_missing() {
    let shards = [Redis::start(), Redis::start()];
    let addresses: Vec<HostPort> = shards.iter().map(Redis::address).collect();
    let stand_in = StandIn::start(Behaviour::Scores(0.53)).await;
    let begun = Instant::now();
    let pipeline = Arc::new(Pipeline::new(Parts {
        // What gets better counts only after a while of this clock.
        clock: Box::new(move || NOW_MS + i64::try_from(begun.elapsed().as_millis()).unwrap()),
        freshness: FreshnessWatch::unknown(&Windows::default()),
        store: FeatureStore::Redis(store(1, RegionRole::Active, &addresses)),
        ..parts(service(stand_in.address))
    }));
    warm(&pipeline).await;
    let following = pipeline.clone();
    let following = tokio::spawn(async move { following.follow_freshness().await });

    // Nobody has said anything.
    let unknown = until(&pipeline, FeatureState::FeaturesUnknown).await;
    assert!(unknown.thresholds.unwrap().review > 0.53);

    let fresh = Publishing::of(&addresses, &[("us-east", producing(80))]);
    let whole = until(&pipeline, FeatureState::FeaturesWhole).await;
    assert!((whole.thresholds.unwrap().review - 0.5).abs() < 1e-9);
    let age_ms = whole.freshness.unwrap().origins[0].age_ms.unwrap();
    assert!((80..1_500).contains(&age_ms), "{age_ms}");
    drop(fresh);
    until(&pipeline, FeatureState::FeaturesUnknown).await;

    // A region that lost authority half a minute ago, of which the last ten seconds are missing.
    let lost = OriginData::Ended { folded_through_ms: Known::Fresh { value: NOW_MS - 40_000, seen_at_ms: 0 }, ended_ms: NOW_MS - 30_000 };
    let behind = Publishing::of(&addresses, &[("us-east", producing(80)), ("eu-west", lost)]);
    let incomplete = until(&pipeline, FeatureState::FeaturesIncomplete).await;
    assert_eq!(incomplete.degradation.unwrap().incomplete_windows, ["1m", "1h", "24h"], "the shortest is whole again");
    let freshness = incomplete.freshness.unwrap();
    assert_eq!(freshness.windows[0].state(), WindowState::WindowComplete);
    assert_eq!((freshness.origins[0].region.as_str(), freshness.origins[0].missing_ms), ("eu-west", Some(10_000)));
    drop(behind);

    let _stopped = Publishing::of(&addresses, &[("us-east", producing(90_000))]);
    until(&pipeline, FeatureState::FeaturesMissing).await;
    following.abort();
}
