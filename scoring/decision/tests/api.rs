//! gRPC and REST over real connections: they agree, refuse precisely, speak TLS, and lose nothing in a shutdown.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use proto::fraud::v1::{DecideRequest, decide_stream_response::Result as StreamResult, scoring_client::ScoringClient};
use scoring_decision::{
    config::{Listen, Tls},
    pipeline::{Parts, Pipeline},
    serve::{self, Serving},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use support::{
    inference::{Behaviour, StandIn},
    parts, payment, service,
};

async fn serve(parts: Parts, tls: Option<&Tls>) -> Serving {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let pipeline = Arc::new(Pipeline::new(parts));
    serve::start(pipeline, Registry::default(), &Listen { grpc: any, rest: any, admin: any }, tls).await.unwrap()
}

async fn client(serving: &Serving) -> ScoringClient<Channel> {
    ScoringClient::connect(format!("http://{}", serving.addresses.grpc)).await.unwrap()
}

/// One HTTP/1.1 exchange: status, content type, body.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> (u16, String, String) {
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server may answer, and close, before it has read everything.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (status, content_type.to_owned(), body.to_owned())
}

async fn rest(address: SocketAddr, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, String) {
    exchange(TcpStream::connect(address).await.unwrap(), method, path, headers, body).await
}

async fn post(address: SocketAddr, body: &Value) -> (u16, String, Value) {
    let (status, content_type, body) =
        rest(address, "POST", "/v1/decisions", "content-type: application/json\r\n", body.to_string().as_bytes()).await;
    (status, content_type, serde_json::from_str(&body).unwrap())
}

fn payment_json(transaction_id: &str) -> Value {
    json!({
        "transactionId": transaction_id, "userId": "customer-1", "amountMinor": 5000, "currency": "USD",
        "card": {"number": "4111111111111111", "expiryMonth": 12, "expiryYear": 2030, "holderName": "A Person", "issuerCountry": "US"},
        "merchant": {"id": "m-1", "categoryCode": 5411, "country": "US"},
        "deviceId": "d-1", "ipAddress": "192.0.2.7", "ipCountry": "US", "channel": "WEB", "cardEntry": "KEYED"
    })
}

#[tokio::test]
async fn rest_and_grpc_give_the_same_answer() {
    let stand_in = StandIn::start(Behaviour::Scores(0.6)).await;
    let parts = parts(service(stand_in.address));
    let serving = serve(parts, None).await;
    let mut grpc = client(&serving).await;
    let mut by_grpc = grpc.decide(payment("g")).await.unwrap().into_inner();
    for attempt in 0..200 {
        if by_grpc.model_digest == "full-digest" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        by_grpc = grpc.decide(payment(&format!("g-{attempt}"))).await.unwrap().into_inner();
    }
    let (status, content_type, by_rest) = post(serving.addresses.rest, &payment_json("r")).await;
    assert_eq!((status, content_type.as_str()), (200, "application/json"));

    let degradation = by_grpc.degradation.clone().unwrap();
    let thresholds = by_grpc.thresholds.clone().unwrap();
    let freshness = by_grpc.freshness.clone().unwrap();
    assert!(!freshness.windows.is_empty());
    let windows: Vec<_> =
        freshness.windows.iter().map(|window| json!({"window": window.window, "state": window.state().as_str_name()})).collect();
    let stages: Vec<&str> = by_grpc.stages.iter().map(|stage| stage.stage.as_str()).collect();
    let expected = json!({
        "transactionId": "r",
        "verdict": by_grpc.verdict().as_str_name(),
        "score": by_grpc.score,
        "reasons": by_grpc.reasons,
        "rulesHit": by_grpc.rules_hit,
        "thresholds": {"review": thresholds.review, "decline": thresholds.decline},
        "degradation": {
            "features": degradation.features().as_str_name(), "graph": degradation.graph().as_str_name(),
            "inference": degradation.inference().as_str_name(), "rules": degradation.rules().as_str_name(),
            "authority": degradation.authority().as_str_name(), "durability": degradation.durability().as_str_name(),
            "idempotency": degradation.idempotency().as_str_name(),
        },
        "freshness": {"origins": freshness.origins.iter().map(|origin| &origin.region).collect::<Vec<_>>(), "windows": windows},
        "modelDigest": by_grpc.model_digest,
        "tier": by_grpc.tier().as_str_name(),
        "region": by_grpc.region,
        "epoch": by_grpc.epoch,
        "eventTimeMs": by_grpc.event_time_ms,
    });
    let mut found = by_rest;
    let found_stages = found.as_object_mut().unwrap().remove("stages").unwrap();
    assert_eq!(found, expected);
    assert_eq!(found_stages.as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect::<Vec<_>>(), stages);
    assert_eq!(found["verdict"], "REVIEW");
}

#[tokio::test]
async fn wrong_requests_get_a_sentence_that_names_each_field() {
    let serving = serve(parts(service("127.0.0.1:1")), None).await;
    let address = serving.addresses.rest;
    let mut wrong = payment_json("t");
    wrong["card"]["number"] = json!("4111111111111112");
    wrong["currency"] = json!("DOLLARS");
    let (status, content_type, problem) = post(address, &wrong).await;
    assert_eq!((status, content_type.as_str()), (422, "application/problem+json"));
    let fields: Vec<&str> = problem["errors"].as_array().unwrap().iter().map(|e| e["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["currency", "card.number"]);
    assert!(!problem.to_string().contains("41111111"), "{problem}");

    let mut grpc = client(&serving).await;
    let mut request = payment("t");
    request.channel = 99;
    let status = grpc.decide(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("channel") && status.message().contains("WEB"), "{status}");

    let json_type = "content-type: application/json\r\n";
    for (method, path, headers, body, expected) in [
        ("POST", "/v1/decisions", json_type, "{", 400),
        ("POST", "/v1/decisions", json_type, "\u{0}", 400),
        ("POST", "/v1/decisions", "content-type: text/xml\r\n", "<a/>", 415),
        ("GET", "/v1/decisions", "", "", 405),
        ("POST", "/v2/decisions", json_type, "{}", 404),
    ] {
        let (status, content_type, body) = rest(address, method, path, headers, body.as_bytes()).await;
        assert_eq!((status, content_type.as_str()), (expected, "application/problem+json"), "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn requests_that_are_too_large_are_refused_by_both() {
    let serving = serve(parts(service("127.0.0.1:1")), None).await;
    let body = vec![b' '; 70 * 1024];
    let (status, content_type, _) =
        rest(serving.addresses.rest, "POST", "/v1/decisions", "content-type: application/json\r\n", &body).await;
    assert_eq!((status, content_type.as_str()), (413, "application/problem+json"));
    let mut grpc = client(&serving).await;
    let large = DecideRequest { user_id: "x".repeat(70 * 1024), ..payment("t") };
    assert_eq!(grpc.decide(large).await.unwrap_err().code(), Code::ResourceExhausted);
    let huge = DecideRequest { user_id: "x".repeat(1 << 20), ..payment("t") };
    assert_eq!(grpc.decide(huge).await.unwrap_err().code(), Code::OutOfRange);
    assert!(grpc.decide(payment("t")).await.is_ok(), "the connection survives");
}

#[tokio::test]
async fn a_stream_answers_each_request_and_matches_failures_by_id() {
    let stand_in = StandIn::start(Behaviour::Scores(0.1)).await;
    let serving = serve(parts(service(stand_in.address)), None).await;
    let mut requests: Vec<DecideRequest> = (0..50).map(|number| payment(&format!("t-{number}"))).collect();
    requests[7].currency = "???".into();
    let mut answers = client(&serving).await.decide_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    let (mut decided, mut failed) = (Vec::new(), Vec::new());
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.result.unwrap() {
            StreamResult::Decision(decision) => decided.push(decision.transaction_id),
            StreamResult::Failure(failure) => failed.push((failure.transaction_id, failure.code, failure.message)),
        }
    }
    decided.sort();
    decided.dedup();
    assert_eq!(decided.len(), 49);
    assert_eq!((failed.len(), failed[0].0.as_str(), failed[0].1), (1, "t-7", i32::from(Code::InvalidArgument)));
    assert!(failed[0].2.contains("currency"), "{failed:?}");
}

#[tokio::test]
async fn a_shutdown_answers_what_is_under_way_and_turns_unready_first() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let serving = serve(parts(service(silent.local_addr().unwrap())), None).await;
    let addresses = serving.addresses;
    let mut status = 0;
    for _ in 0..200 {
        status = rest(addresses.admin, "GET", "/readyz", "", b"").await.0;
        if status == 200 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(status, 200);

    let mut grpc = client(&serving).await;
    // A client that keeps its stream open must not hold up the end.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = grpc.clone().decide_stream(stream).await.unwrap().into_inner();
    sender.send(payment("on the stream".replace(' ', "-").as_str())).await.unwrap();
    let under_way = tokio::spawn(async move { grpc.decide(payment("t-1")).await });
    tokio::time::sleep(Duration::from_millis(10)).await;

    let stop = CancellationToken::new();
    let ended = tokio::spawn(serving.run(stop.clone(), Duration::from_secs(10)));
    stop.cancel();
    assert!(under_way.await.unwrap().is_ok(), "a decision was lost");
    assert!(answers.message().await.unwrap().is_some(), "a decision on a stream was lost");
    assert!(answers.message().await.unwrap().is_none(), "the stream ends");
    tokio::time::timeout(Duration::from_secs(8), ended).await.expect("the end does not wait for idle clients").unwrap();
    assert!(TcpStream::connect(addresses.grpc).await.is_err());
}

#[tokio::test]
async fn metrics_tell_verdicts_stages_and_the_99th_percentile() {
    let mut registry = Registry::default();
    let metrics = scoring_decision::metrics::Metrics::register(&mut registry);
    let pipeline = Arc::new(Pipeline::new(Parts { metrics, ..parts(service("127.0.0.1:1")) }));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let serving = serve::start(pipeline, registry, &Listen { grpc: any, rest: any, admin: any }, None).await.unwrap();
    client(&serving).await.decide(payment("t-1")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let (_, _, text) = rest(serving.addresses.admin, "GET", "/metrics", "", b"").await;
    for series in [
        "decision_decisions_total{verdict=\"APPROVE\",tier=\"FULL\"} 1",
        "decision_degraded_total{dimension=\"inference\",state=\"INFERENCE_LIGHT\"} 1",
        "decision_stage_seconds_count{stage=\"inference\"} 1",
        "decision_request_seconds_count 1",
        "decision_inflight 0",
    ] {
        assert!(text.contains(series), "{series} is not in\n{text}");
    }
    let p99 = text.lines().find_map(|line| line.strip_prefix("request_latency_p99 ")).unwrap();
    assert!(p99.parse::<f64>().unwrap() > 0.0);
    let (_, _, names) = rest(serving.addresses.admin, "GET", "/features", "", b"").await;
    assert!(names.contains("card_count_5s"), "{names}");
}

/// A certificate for `localhost` and its key, in files.
fn certificate(dir: &Path) -> (Tls, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let tls = Tls { cert_file: dir.join("tls.crt"), key_file: dir.join("tls.key") };
    std::fs::write(&tls.cert_file, made.cert.pem()).unwrap();
    std::fs::write(&tls.key_file, made.signing_key.serialize_pem()).unwrap();
    (tls, made.cert.pem())
}

#[tokio::test]
async fn with_certificates_both_speak_tls_and_nothing_else() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let (tls, pem) = certificate(dir.path());
    let serving = serve(parts(service("127.0.0.1:1")), Some(&tls)).await;

    let trust = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&pem)).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", serving.addresses.grpc)).unwrap().tls_config(trust).unwrap();
    let mut grpc = ScoringClient::new(endpoint.connect().await.unwrap());
    assert!(grpc.decide(payment("t-1")).await.is_ok());
    assert!(
        ScoringClient::connect(format!("http://{}", serving.addresses.grpc)).await.is_err() || {
            let mut plain = ScoringClient::connect(format!("http://{}", serving.addresses.grpc)).await.unwrap();
            plain.decide(payment("t-2")).await.is_err()
        }
    );

    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject as _;
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let client = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    // A connection that never shakes hands holds up nobody.
    let _idle = TcpStream::connect(serving.addresses.rest).await.unwrap();
    let stream = TcpStream::connect(serving.addresses.rest).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let body = payment_json("t-3").to_string();
    let (status, _, answer) = exchange(stream, "POST", "/v1/decisions", "content-type: application/json\r\n", body.as_bytes()).await;
    assert_eq!(status, 200, "{answer}");
}
