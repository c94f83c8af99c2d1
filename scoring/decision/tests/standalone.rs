//! `--standalone`: the bundled models and rules fit this build, and a decision is one request away.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::time::Duration;

use prometheus_client::registry::Registry;
use proto::fraud::v1::{Durability, FeatureState, InferenceState, RuleState, Verdict};
use scoring_decision::standalone;

use support::{decide, payment};

#[tokio::test]
async fn the_bundled_parts_decide_and_remember() {
    let pipeline = standalone::assemble(&mut Registry::default()).unwrap();
    pipeline.warm_up(Duration::ZERO).await;
    assert_eq!(pipeline.readiness(), Ok(()));
    let first = decide(&pipeline, payment("t-1")).await;
    let degradation = first.degradation.clone().unwrap();
    assert_eq!((degradation.features(), degradation.inference()), (FeatureState::FeaturesWhole, InferenceState::InferenceUsed));
    assert_eq!((degradation.rules(), degradation.durability()), (RuleState::RulesCurrent, Durability::None));
    assert_eq!((first.verdict(), first.model_digest.len()), (Verdict::Approve, 64));

    for number in 2..5 {
        decide(&pipeline, payment(&format!("t-{number}"))).await;
    }
    let burst = decide(&pipeline, payment("t-5")).await;
    assert_eq!((burst.verdict(), burst.rules_hit), (Verdict::Decline, vec!["card-burst".to_owned()]));
    // A retry is the same event and adds nothing.
    let other_card = {
        let mut request = payment("t-6");
        request.card.as_mut().unwrap().number = "4012888888881881".into();
        request
    };
    for _ in 0..6 {
        let retried = decide(&pipeline, other_card.clone()).await;
        assert!(retried.rules_hit.is_empty(), "{:?}", retried.rules_hit);
    }
}
