//! What is answered when things work, and when they are slow, broken or away.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use kafka::{AckProducer, KafkaConfig, KafkaMetrics};
use process::plan::PlanWatch;
use prometheus_client::registry::Registry;
use proto::fraud::v1::{AuthorityState, Durability, FeatureState, IdempotencyState, InferenceState, RuleState, Tier, Verdict};
use scoring_core::decide::{Tier as CoreTier, Tiers};
use scoring_decision::{
    handover::{Handover, KafkaLog},
    model::ModelSlot,
    pipeline::{Parts, Pipeline},
    rules::RulesWatch,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use support::{
    decide,
    inference::{Behaviour, StandIn},
    parts, payment, plan, rules, service, settings, warm,
};

/// An address that takes connections and never says anything.
async fn silent() -> (tokio::net::TcpListener, std::net::SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn the_full_model_decides_when_everything_works() {
    let stand_in = StandIn::start(Behaviour::Scores(0.95)).await;
    let pipeline = Pipeline::new(parts(service(stand_in.address)));
    warm(&pipeline).await;

    let response = decide(&pipeline, payment("t-1")).await;
    let degradation = response.degradation.clone().unwrap();
    assert_eq!((response.verdict(), response.tier()), (Verdict::Decline, Tier::Full));
    assert!((response.score.unwrap() - 0.95).abs() < 1e-6);
    assert_eq!((degradation.features(), degradation.inference()), (FeatureState::FeaturesWhole, InferenceState::InferenceUsed));
    assert_eq!((degradation.authority(), degradation.rules()), (AuthorityState::AuthorityConfirmed, RuleState::RulesCurrent));
    assert_eq!(degradation.idempotency(), IdempotencyState::IdempotencyUnconfirmed);
    assert_eq!((response.region.as_str(), response.epoch, response.event_time_ms), ("us-east", 7, support::NOW_MS));
    assert_eq!(response.model_digest, "full-digest");
    let stages: Vec<&str> = response.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert_eq!(stages, ["protect", "features", "rules", "inference", "decision", "handover"]);

    stand_in.behave(Behaviour::Scores(0.6));
    assert_eq!(decide(&pipeline, payment("t-2")).await.verdict(), Verdict::Review);
    stand_in.behave(Behaviour::Scores(0.1));
    let approved = decide(&pipeline, payment("t-3")).await;
    assert_eq!((approved.verdict(), approved.reasons.len()), (Verdict::Approve, 0));
}

#[tokio::test]
async fn a_slow_inference_service_is_given_up_and_its_call_cancelled() {
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let pipeline = Pipeline::new(parts(service(stand_in.address)));
    warm(&pipeline).await;
    stand_in.behave(Behaviour::Slow(Duration::from_millis(400)));
    let finished = stand_in.finished.load(Ordering::SeqCst);
    let begun = stand_in.begun.load(Ordering::SeqCst);

    let response = decide(&pipeline, payment("t-1")).await;
    assert_eq!(response.degradation.as_ref().unwrap().inference(), InferenceState::InferenceLight);
    assert!(response.score.is_some() && !response.model_digest.is_empty() && response.model_digest != "full-digest");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(stand_in.begun.load(Ordering::SeqCst), begun + 1);
    assert_eq!(stand_in.finished.load(Ordering::SeqCst), finished, "the server went on with a call that nobody waits for");
}

#[tokio::test]
async fn a_refusing_or_misshapen_inference_service_is_replaced_by_the_light_model() {
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let pipeline = Pipeline::new(parts(service(stand_in.address)));
    warm(&pipeline).await;
    for behaviour in [Behaviour::Refuses, Behaviour::WrongShape, Behaviour::Scores(f32::NAN), Behaviour::Scores(7.0)] {
        stand_in.behave(behaviour);
        let response = decide(&pipeline, payment("t-1")).await;
        assert_eq!(response.degradation.unwrap().inference(), InferenceState::InferenceLight, "{behaviour:?}");
    }
    stand_in.behave(Behaviour::Scores(0.1));
    assert_eq!(decide(&pipeline, payment("t-1")).await.degradation.unwrap().inference(), InferenceState::InferenceUsed);
}

#[tokio::test]
async fn without_any_model_the_amount_decides() {
    // Port 1 on loopback: nothing listens there.
    let pipeline = Pipeline::new(Parts { light: None, ..parts(service("127.0.0.1:1")) });
    let small = decide(&pipeline, payment("t-1")).await;
    assert_eq!((small.verdict(), small.score, small.thresholds.clone()), (Verdict::Approve, None, None));
    assert_eq!(small.degradation.unwrap().inference(), InferenceState::InferenceMissing);

    let mut large = payment("t-2");
    large.amount_minor = 10_000;
    let large = decide(&pipeline, large).await;
    assert_eq!((large.verdict(), large.reasons), (Verdict::Review, vec!["NO_SCORE_LARGE_AMOUNT".to_owned()]));

    // No rate: the amount is unknown, which is never small.
    let mut unknown = payment("t-3");
    unknown.currency = "SEK".into();
    assert_eq!(decide(&pipeline, unknown).await.reasons, ["NO_SCORE_UNKNOWN_AMOUNT"]);
}

// With a paused clock the runtime jumps to the next timer whenever it would wait, so that the time that passes is exactly
// the sum of the limits, however slow the machine is.
#[tokio::test(start_paused = true)]
async fn every_answer_leaves_before_the_clients_deadline() {
    let (_listener, address) = silent().await;
    let pipeline = Pipeline::new(parts(service(address)));
    for limit_ms in [200, 100, 50, 20, 5, 1, 0] {
        let limit = Duration::from_millis(limit_ms);
        let begun = Instant::now();
        let response = pipeline.decide(payment("t-1"), begun, Some(limit)).await.unwrap();
        assert!(begun.elapsed() <= limit.min(settings().deadline), "{limit_ms} ms: took {:?}", begun.elapsed());
        assert_ne!(response.verdict(), Verdict::Unspecified);
        assert_ne!(response.degradation.unwrap().inference(), InferenceState::InferenceUsed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_still_gets_the_owed_decision() {
    let (_listener, address) = silent().await;
    let pipeline = Pipeline::new(Parts { light: None, ..parts(service(address)) });
    let long_ago = Instant::now();
    tokio::time::advance(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let response = pipeline.decide(payment("t-1"), long_ago, None).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "nothing was waited for");
    let degradation = response.degradation.clone().unwrap();
    assert_eq!((degradation.features(), degradation.inference()), (FeatureState::FeaturesMissing, InferenceState::InferenceMissing));
    assert_eq!(response.verdict(), Verdict::Approve);
}

#[tokio::test(start_paused = true)]
async fn what_kafka_does_not_acknowledge_in_time_is_answered_as_not_durable() {
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let config: KafkaConfig = serde_yaml::from_str("bootstrap_servers: ['127.0.0.1:1']").unwrap();
    let producer = AckProducer::new(&config, "test", &KafkaMetrics::register(&mut Registry::default())).unwrap();
    let handover = Handover::Kafka(Box::new(KafkaLog::new(producer, "fraud", settings().region)));
    let pipeline = Pipeline::new(Parts { handover, ..parts(service(stand_in.address)) });
    let begun = Instant::now();
    let response = decide(&pipeline, payment("t-1")).await;
    assert_eq!(response.degradation.unwrap().durability(), Durability::None);
    assert!(begun.elapsed() <= settings().deadline, "{:?}", begun.elapsed());
    assert_eq!(pipeline.handover().flush(Duration::from_millis(10)).await, 2, "event and decision are still on their way");
}

#[tokio::test]
async fn a_region_that_is_not_the_active_one_answers_and_says_so() {
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let pipeline = Pipeline::new(Parts { plan: PlanWatch::fixed(plan("eu-west")), ..parts(service(stand_in.address)) });
    let response = decide(&pipeline, payment("t-1")).await;
    assert_eq!(response.degradation.as_ref().unwrap().authority(), AuthorityState::AuthorityUnconfirmed);
    assert_eq!((response.region.as_str(), response.verdict()), ("us-east", Verdict::Approve));
}

#[tokio::test]
async fn small_amounts_get_the_work_that_they_are_worth() {
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let tiers = Tiers::new(vec![(1_000, CoreTier::RulesOnly), (10_000, CoreTier::LightModel)]).unwrap();
    let mut with_tiers = settings();
    with_tiers.tiers = tiers;
    let pipeline = Pipeline::new(Parts { settings: with_tiers, ..parts(service(stand_in.address)) });
    let states = |amount_minor, currency: &str| {
        let mut request = payment("t-1");
        (request.amount_minor, request.currency) = (amount_minor, currency.to_owned());
        request
    };
    let small = decide(&pipeline, states(999, "USD")).await;
    assert_eq!((small.tier(), small.score), (Tier::RulesOnly, None));
    let degradation = small.degradation.unwrap();
    assert_eq!((degradation.inference(), degradation.features()), (InferenceState::InferenceNotNeeded, FeatureState::FeaturesWhole));

    let middle = decide(&pipeline, states(9_999, "USD")).await;
    assert_eq!((middle.tier(), middle.degradation.unwrap().inference()), (Tier::LightModel, InferenceState::InferenceLight));
    assert_eq!(stand_in.begun.load(Ordering::SeqCst), 0, "the full model was asked for a small amount");

    // 910 EUR cents are 1001 USD cents; and an unknown rate is the top tier.
    assert_eq!(decide(&pipeline, states(910, "EUR")).await.tier(), Tier::LightModel);
    assert_eq!(decide(&pipeline, states(1, "SEK")).await.tier(), Tier::Full);
}

#[tokio::test]
async fn rules_see_features_and_score_and_outrank_the_model() {
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let set = rules(
        "
        rules:
          - {id: burst, phase: before, when: features.card_count_5s >= 3, action: decline, priority: 9,
             tests: [{given: {features: {card_count_5s: 3}}, expect: true}]}
          - {id: doubt, phase: after, when: score >= 0.05 && amount > 40, action: review,
             tests: [{given: {score: 0.06, amount: 41}, expect: true}]}
        ",
    );
    let pipeline = Pipeline::new(Parts { rules: set, light: None, ..parts(service(stand_in.address)) });
    let mut verdicts = Vec::new();
    // The first answers may come before the connection is up; a fresh card each time keeps the count low.
    for attempt in 0..200 {
        let response = decide(&pipeline, {
            let mut p = payment(&format!("w-{attempt}"));
            p.card.as_mut().unwrap().number = "4012888888881881".into();
            p
        })
        .await;
        if response.score.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for number in 1..=3 {
        let response = decide(&pipeline, payment(&format!("t-{number}"))).await;
        verdicts.push((response.verdict(), response.rules_hit.clone(), response.reasons.clone()));
    }
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
    assert_eq!(verdicts[0], (Verdict::Review, owned(&["doubt"]), owned(&["RULE:doubt"])));
    assert_eq!(verdicts[2], (Verdict::Decline, owned(&["burst", "doubt"]), owned(&["RULE:burst"])));
}

#[tokio::test]
async fn answers_say_when_they_were_made_with_the_last_good_rules() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rules.yaml");
    std::fs::write(&path, "rules: oops").unwrap();
    let stop = CancellationToken::new();
    let broken = RulesWatch::follow(&path, support::names(), stop.clone());
    let pipeline = Pipeline::new(Parts { rules: broken, ..parts(service("127.0.0.1:1")) });
    assert!(pipeline.readiness().unwrap_err().contains("rules are refused"));
    let response = decide(&pipeline, payment("t-1")).await;
    assert_eq!(response.degradation.unwrap().rules(), RuleState::RulesLastGood);
    stop.cancel();
}

#[tokio::test]
async fn a_pod_without_its_light_model_is_not_ready() {
    let pipeline = Pipeline::new(Parts { light: Some(ModelSlot::default()), ..parts(service("127.0.0.1:1")) });
    assert!(pipeline.readiness().unwrap_err().contains("light model is not loaded"));
}

#[tokio::test]
async fn a_pod_is_ready_once_it_has_used_what_it_depends_on_and_after_a_while_without_it() {
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let pipeline = Pipeline::new(parts(service(stand_in.address)));
    assert!(pipeline.readiness().unwrap_err().contains("connecting to"));
    pipeline.warm_up(Duration::from_secs(30)).await;
    assert_eq!(pipeline.readiness(), Ok(()));
    assert!(stand_in.finished.load(Ordering::SeqCst) >= 20, "the first payment is not the first question");

    let slow = StandIn::start(Behaviour::Slow(Duration::from_millis(200))).await;
    let waiting = Pipeline::new(parts(service(slow.address)));
    waiting.warm_up(Duration::from_millis(300)).await;
    assert_eq!(waiting.readiness(), Ok(()));
    assert!(slow.finished.load(Ordering::SeqCst) < 20, "answers that come slowly do not hold the pod up");

    let alone = Pipeline::new(parts(service("127.0.0.1:1")));
    alone.warm_up(Duration::from_millis(50)).await;
    assert_eq!(alone.readiness(), Ok(()), "an inference service that is away does not make a pod unready");
}

#[tokio::test]
async fn beyond_the_limit_of_concurrency_the_amount_decides_at_once() {
    let (_listener, address) = silent().await;
    let mut narrow = settings();
    narrow.inflight_max = 1;
    let pipeline = Arc::new(Pipeline::new(Parts { settings: narrow, ..parts(service(address)) }));
    let first = tokio::spawn({
        let pipeline = pipeline.clone();
        async move { decide(&pipeline, payment("t-1")).await }
    });
    // The first waits for inference; it holds the only permit.
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(3)).await;
    let second = decide(&pipeline, payment("t-2")).await;
    let degradation = second.degradation.clone().unwrap();
    assert_eq!((degradation.features(), degradation.inference()), (FeatureState::FeaturesMissing, InferenceState::InferenceMissing));
    assert_eq!(second.verdict(), Verdict::Approve);
    assert_eq!(first.await.unwrap().degradation.unwrap().features(), FeatureState::FeaturesWhole);
}
