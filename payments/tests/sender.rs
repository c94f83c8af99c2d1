//! The sender against a service in this process: what it counts when the service answers, refuses, or says nothing.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use payments::send::ledger::{Ledger, LedgerEntry};
use payments::send::tally::Label;
use payments::send::{Due, Pace, Recorder, Summary, Target, TargetOptions, send};
use payments::{Generator, Population};
use proto::fraud::v1::scoring_server::{Scoring, ScoringServer};
use proto::fraud::v1::{
    DecideRequest, DecideResponse, DecideStreamResponse, Degradation, Durability, FeatureState, InferenceState, Tier, Verdict,
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming};

/// Declines what costs more than 100, refuses every 10th payment, and is silent on every 25th.
#[derive(Default)]
struct Service {
    seen: Arc<Mutex<Vec<DecideRequest>>>,
}

#[tonic::async_trait]
impl Scoring for Service {
    type DecideStreamStream = futures::stream::Empty<Result<DecideStreamResponse, Status>>;

    async fn decide(&self, request: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        let request = request.into_inner();
        self.seen.lock().unwrap().push(request.clone());
        let number: u64 = request.transaction_id.trim_start_matches("test-").parse().unwrap();
        if number % 25 == 24 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        if number % 10 == 9 {
            return Err(Status::invalid_argument("amount_minor: too nice"));
        }
        let verdict = if request.amount_minor > 10_000 { Verdict::Decline } else { Verdict::Approve };
        let degradation = Degradation {
            features: FeatureState::FeaturesWhole.into(),
            inference: InferenceState::InferenceUsed.into(),
            durability: Durability::Kafka.into(),
            ..Default::default()
        };
        Ok(Response::new(DecideResponse {
            transaction_id: request.transaction_id,
            verdict: verdict.into(),
            score: Some(0.3),
            tier: Tier::Full.into(),
            degradation: Some(degradation),
            ..Default::default()
        }))
    }

    async fn decide_stream(&self, _: Request<Streaming<DecideRequest>>) -> Result<Response<Self::DecideStreamStream>, Status> {
        Err(Status::unimplemented("not used here"))
    }
}

async fn start(service: Service) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = futures::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        Some((accepted, listener))
    });
    tokio::spawn(tonic::transport::Server::builder().add_service(ScoringServer::new(service)).serve_with_incoming(Box::pin(incoming)));
    format!("http://{address}")
}

fn options(address: String) -> TargetOptions {
    TargetOptions { address, tls_ca: None, tls_name: None, connections: 3, ready_within: Duration::from_secs(5) }
}

fn payments(count: usize) -> impl Iterator<Item = anyhow::Result<Due>> {
    let generator = Generator::new(1, Population::for_rate(500.0, 2040)).with_transaction_prefix("test-");
    generator.take(count).map(|labelled| {
        let label = Some(Label { fraud: labelled.fraud.is_some(), kind: labelled.fraud });
        Ok(Due { request: labelled.payment, label, amount_usd: labelled.amount_usd, sequence: labelled.sequence, at: labelled.at })
    })
}

async fn run(address: String, count: usize, pace: Pace, ledger: Option<Ledger>) -> Summary {
    let target = Target::connect(&options(address)).await.unwrap();
    let (outcomes, received) = mpsc::channel();
    let recording = std::thread::spawn(move || Recorder { ledger, show: Box::new(|_| {}) }.run(&received));
    let began = Instant::now();
    send(&target, pace, payments(count), outcomes, std::future::pending()).await.unwrap();
    recording.join().unwrap().unwrap().summary(began.elapsed())
}

const PACE: Pace = Pace { answer_within: Duration::from_secs(1), outstanding_max: 1_000 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn decisions_refusals_and_silence_are_counted_apart_and_only_decisions_enter_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.jsonl");
    let service = Service::default();
    let seen = service.seen.clone();
    let summary = run(start(service).await, 500, PACE, Some(Ledger::create(&path).unwrap())).await;

    // 500 / 25 = 20 are silent; 500 / 10 = 50 would be refused, 10 of them are silent first.
    assert_eq!((summary.sent, summary.unanswered, summary.errors, summary.decisions), (500, 20, 40, 440));
    assert_eq!(summary.errors_by_code.get("INVALID_ARGUMENT"), Some(&40));
    assert_eq!(summary.full_share, Some(1.0));
    assert_eq!(seen.lock().unwrap().len(), 500);
    let quality = summary.quality.unwrap();
    assert_eq!(quality.frauds + quality.honest, 440);
    let ledger = std::fs::read_to_string(&path).unwrap();
    let entries: Vec<LedgerEntry> = ledger.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 440);
    assert!(entries.iter().all(|entry| entry.durability == "KAFKA" && entry.transaction_id == format!("test-{:08}", entry.seq)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_stalls_does_not_slow_the_stream_down() {
    // Two may wait at once: stalled payments take the places, and what finds none is unanswered without being sent.
    let summary = run(start(Service::default()).await, 500, Pace { outstanding_max: 2, ..PACE }, None).await;
    assert_eq!(summary.sent, 500);
    assert!(summary.unanswered > 20, "{}", summary.unanswered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_the_stream_and_what_was_sent_is_still_counted() {
    let target = Target::connect(&options(start(Service::default()).await)).await.unwrap();
    let (outcomes, received) = mpsc::channel();
    let recording = std::thread::spawn(move || Recorder { ledger: None, show: Box::new(|_| {}) }.run(&received));
    let stop = tokio::time::sleep(Duration::from_millis(300));
    send(&target, PACE, payments(1_000_000), outcomes, stop).await.unwrap();
    let summary = recording.join().unwrap().unwrap().summary(Duration::from_secs(1));
    assert!(summary.sent > 0 && summary.decisions > 0 && summary.sent < 10_000, "{}", summary.sent);
}

#[tokio::test]
async fn nobody_listening_is_an_error_that_names_the_address() {
    let nobody = TargetOptions { ready_within: Duration::ZERO, ..options("http://127.0.0.1:1".into()) };
    let error = format!("{:#}", Target::connect(&nobody).await.unwrap_err());
    assert!(error.contains("http://127.0.0.1:1 does not accept gRPC connections"), "{error}");
}
