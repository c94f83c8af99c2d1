//! The service as its clients see it, with ONNX Runtime (feature `onnxruntime-tests`; needs ORT_DYLIB_PATH).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::{net::SocketAddr, path::Path, time::Duration};

use proto::inference::{
    InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelReadyRequest, ServerReadyRequest,
    grpc_inference_service_client::GrpcInferenceServiceClient, infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
};
use scoring_inference::{Running, config::Config, run};
use serde_json::{Value, json};
use support::TestModel;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Channel};

type Client = GrpcInferenceServiceClient<Channel>;
type Change = Box<dyn Fn(&mut ModelInferRequest)>;

struct Fixture {
    folder: tempfile::TempDir,
    running: Running,
    stop: CancellationToken,
}

impl Fixture {
    async fn start(model: &TestModel) -> Self {
        let folder = tempfile::tempdir().unwrap();
        point_to(folder.path(), model);
        let fixture = Self::restart(folder).await;
        fixture.wait_for(&model.bytes().1).await;
        fixture
    }

    async fn restart(folder: tempfile::TempDir) -> Self {
        let path = folder.path().join("config.yaml");
        let config: Config = process::config::load(&path).unwrap();
        let stop = CancellationToken::new();
        let running = run(config, &path, stop.clone()).await.unwrap();
        Self { folder, running, stop }
    }

    async fn client(&self) -> Client {
        Client::connect(format!("http://{}", self.running.grpc)).await.unwrap()
    }

    async fn digest(&self) -> Option<String> {
        let (status, body) = self.get("/v2/models/fraud").await;
        (status == 200).then(|| body["properties"]["sha256"].as_str().unwrap().to_owned())
    }

    async fn wait_for(&self, sha256: &str) {
        self.wait(async || self.digest().await.as_deref() == Some(sha256), "the model to be in service").await;
    }

    async fn wait(&self, done: impl AsyncFn() -> bool, what: &str) {
        for _ in 0..200 {
            if done().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("waited 10 s for {what}: {}", http(self.running.admin, "GET", "/metrics", "").await.1);
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = http(self.running.rest, "GET", path, "").await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = http(self.running.rest, "POST", path, &body.to_string()).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn metrics(&self) -> String {
        http(self.running.admin, "GET", "/metrics", "").await.1
    }

    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.running.finish().await;
        self.folder
    }
}

/// Writes a model file and a configuration that names it.
fn point_to(folder: &Path, model: &TestModel) {
    let (bytes, sha256) = model.bytes();
    let file = folder.join(format!("{sha256}.onnx"));
    std::fs::write(&file, bytes).unwrap();
    write_config(folder, &format!("file://{}", file.display()), &sha256);
}

fn write_config(folder: &Path, uri: &str, sha256: &str) {
    let config = format!(
        "listen: {{grpc: '127.0.0.1:0', rest: '127.0.0.1:0', admin: '127.0.0.1:0'}}\nmodel: {{name: fraud, uri: '{uri}', sha256: {sha256}}}\n\
         cache_dir: {}\nruntime: {{threads: 2}}\nlimits: {{rows_max: 100}}\n",
        folder.join("cache").display()
    );
    std::fs::write(folder.join("unfinished"), config).unwrap();
    std::fs::rename(folder.join("unfinished"), folder.join("config.yaml")).unwrap();
}

async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    connection.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn rows(firsts: &[f32]) -> Vec<f32> {
    let width = TestModel::features();
    firsts.iter().flat_map(|first| std::iter::once(*first).chain(std::iter::repeat_n(1.0, width - 1))).collect()
}

fn shape(rows: usize) -> Vec<i64> {
    vec![i64::try_from(rows).unwrap(), i64::try_from(TestModel::features()).unwrap()]
}

fn raw_request(firsts: &[f32]) -> ModelInferRequest {
    let input = InferInputTensor { name: "features".into(), datatype: "FP32".into(), shape: shape(firsts.len()), ..Default::default() };
    let raw: Vec<u8> = rows(firsts).iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: "fraud".into(),
        id: "42".into(),
        inputs: vec![input],
        raw_input_contents: vec![raw.into()],
        ..Default::default()
    }
}

fn typed_request(firsts: &[f32]) -> ModelInferRequest {
    let mut request = raw_request(firsts);
    request.raw_input_contents.clear();
    request.inputs[0].contents = Some(InferTensorContents { fp32_contents: rows(firsts), ..Default::default() });
    request
}

fn raw_scores(response: &ModelInferResponse) -> Vec<f32> {
    response.raw_output_contents[0].as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn close(actual: &[f32], expected: &[f32]) {
    assert_eq!(actual.len(), expected.len());
    for (row, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        assert!((actual - expected).abs() < 1e-6, "row {row}: {actual} instead of {expected}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_raw_and_typed_and_rest_give_the_same_scores_in_the_order_of_the_rows() {
    let model = TestModel::default();
    let fixture = Fixture::start(&model).await;
    let firsts: Vec<f32> = (0..100_u8).map(|n| if n % 7 == 0 { f32::NAN } else { f32::from(n % 3) }).collect();
    let expected: Vec<f32> = firsts.iter().map(|first| model.score(&[*first])).collect();
    let mut client = fixture.client().await;

    let raw = client.model_infer(raw_request(&firsts)).await.unwrap().into_inner();
    close(&raw_scores(&raw), &expected);
    assert_eq!((raw.id.as_str(), raw.model_version.as_str()), ("42", "1"));
    assert_eq!(raw.parameters["sha256"].parameter_choice, Some(ParameterChoice::StringParam(model.bytes().1)));
    assert_eq!((raw.outputs[0].name.as_str(), raw.outputs[0].shape.as_slice()), ("score", [100, 1].as_slice()));

    let typed = client.model_infer(typed_request(&firsts)).await.unwrap().into_inner();
    close(&typed.outputs[0].contents.as_ref().unwrap().fp32_contents, &expected);

    let data: Vec<Vec<Option<f32>>> = rows(&firsts)
        .chunks(TestModel::features())
        .map(|row| row.iter().map(|value| (!value.is_nan()).then_some(*value)).collect())
        .collect();
    let body = json!({"id": "43", "inputs": [{"name": "features", "datatype": "FP32", "shape": shape(100), "data": data}]});
    for path in ["/v2/models/fraud/infer", "/v2/models/fraud/versions/1/infer"] {
        let (status, answer) = fixture.post(path, &body).await;
        assert_eq!((status, answer["id"].as_str()), (200, Some("43")), "{answer}");
        #[allow(clippy::cast_possible_truncation)]
        let scores: Vec<f32> =
            answer["outputs"][0]["data"].as_array().unwrap().iter().map(|score| score.as_f64().unwrap() as f32).collect();
        close(&scores, &expected);
    }
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_go_to_whoever_asked_when_many_ask_at_once() {
    let model = TestModel::default();
    let fixture = Fixture::start(&model).await;
    let client = fixture.client().await;
    let asking: Vec<_> = (0..400_u16)
        .map(|number| {
            let mut client = client.clone();
            let first = if number % 2 == 0 { 0.0 } else { 1.0 };
            tokio::spawn(async move { (first, client.model_infer(raw_request(&[first])).await.unwrap().into_inner()) })
        })
        .collect();
    for answer in asking {
        let (first, response) = answer.await.unwrap();
        close(&raw_scores(&response), &[model.score(&[first])]);
    }
    assert!(fixture.metrics().await.contains("inference_requests_total{outcome=\"ok\"} 400"));
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metadata_tell_what_is_served() {
    let fixture = Fixture::start(&TestModel::default()).await;
    let mut client = fixture.client().await;
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let ready = async |name: &str, version: &str| {
        let request = ModelReadyRequest { name: name.into(), version: version.into() };
        client.clone().model_ready(request).await.unwrap().into_inner().ready
    };
    assert!(ready("fraud", "").await && ready("fraud", "1").await);
    assert!(!ready("fraud", "2").await && !ready("other", "").await);
    let metadata = client.model_metadata(ModelMetadataRequest { name: "fraud".into(), version: String::new() }).await.unwrap().into_inner();
    assert_eq!(metadata.inputs[0].shape, [-1, i64::try_from(TestModel::features()).unwrap()]);
    assert_eq!((metadata.outputs[0].name.as_str(), metadata.versions), ("score", vec!["1".to_owned()]));

    assert_eq!(fixture.get("/v2").await.1["name"], "fraudpipeline-inference");
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/fraud", "/v2/models/fraud/ready", "/v2/models/fraud/versions/1"] {
        assert_eq!(fixture.get(path).await.0, 200, "{path}");
    }
    let (status, answer) = fixture.get("/v2/models/other").await;
    assert_eq!(status, 404);
    assert!(answer["error"].as_str().unwrap().contains("this service has fraud"), "{answer}");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_answered_with_the_sentence_that_says_what_to_send() {
    let fixture = Fixture::start(&TestModel::default()).await;
    let client = fixture.client().await;
    let refused = async |change: &dyn Fn(&mut ModelInferRequest)| -> Status {
        let mut request = raw_request(&[0.0, 1.0]);
        change(&mut request);
        client.clone().model_infer(request).await.unwrap_err()
    };
    let width = TestModel::features();
    let cases: Vec<(Change, Code, String)> = vec![
        (Box::new(|r| r.model_name = "other".into()), Code::NotFound, "is not served here".into()),
        (Box::new(|r| r.model_version = "9".into()), Code::NotFound, "ask for 1".into()),
        (Box::new(|r| r.inputs.clear()), Code::InvalidArgument, "1 entries for 0 inputs".into()),
        (Box::new(|r| r.inputs[0].name = "x".into()), Code::InvalidArgument, "the model's input is \"features\"".into()),
        (Box::new(|r| r.inputs[0].datatype = "FP64".into()), Code::InvalidArgument, "send FP32".into()),
        (Box::new(|r| r.inputs[0].shape = vec![2]), Code::InvalidArgument, format!("has shape [2]: send [rows, {width}]")),
        (Box::new(|r| r.inputs[0].shape[0] = 0), Code::InvalidArgument, "at least one row".into()),
        (Box::new(|r| r.inputs[0].shape[0] = -2), Code::InvalidArgument, "has shape [-2".into()),
        (Box::new(|r| r.inputs[0].shape[0] = i64::MAX), Code::InvalidArgument, "at most 100".into()),
        (Box::new(|r| r.inputs[0].shape[0] = 3), Code::InvalidArgument, format!("needs {}", 3 * width)),
        (Box::new(|r| r.raw_input_contents[0] = vec![0; 3].into()), Code::InvalidArgument, "not a multiple of 4".into()),
        (Box::new(|r| r.inputs[0].contents = Some(InferTensorContents::default())), Code::InvalidArgument, "send one of them".into()),
        (
            Box::new(|r| {
                r.outputs.push(proto::inference::model_infer_request::InferRequestedOutputTensor { name: "p".into(), ..Default::default() })
            }),
            Code::InvalidArgument,
            "one output, \"score\"".into(),
        ),
        (
            Box::new(|r| {
                let mut values = rows(&[0.0, 1.0]);
                let last = values.len() - 1;
                values[last] = f32::INFINITY;
                r.raw_input_contents[0] = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into();
            }),
            Code::InvalidArgument,
            format!("row 1, column {}", width - 1),
        ),
    ];
    for (change, code, sentence) in cases {
        let status = refused(&*change).await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(&sentence), "{sentence}: {status}");
    }

    let body = |data: Value| json!({"inputs": [{"name": "features", "datatype": "FP32", "shape": shape(1), "data": data}]});
    for (body, sentence) in [
        (json!({}), "missing field `inputs`"),
        (body(json!(["a"])), "has a text: send numbers"),
        (body(json!([1, 2])), "has 2 values"),
        (body(json!(vec![1e300; width])), "row 0, column 0"),
    ] {
        let (status, answer) = fixture.post("/v2/models/fraud/infer", &body).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer["error"].as_str().unwrap().contains(sentence), "{answer}");
    }
    // One byte too many: with more, the service would close while this client still writes, and the answer could be lost.
    let (status, _) = http(fixture.running.rest, "POST", "/v2/models/fraud/infer", &" ".repeat((4 << 20) + 1)).await;
    assert_eq!(status, 413);
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_has_passed_is_told_and_not_run() {
    let fixture = Fixture::start(&TestModel::default()).await;
    let mut request = Request::new(raw_request(&[0.0]));
    request.metadata_mut().insert("grpc-timeout", "1n".parse().unwrap());
    let status = fixture.client().await.model_infer(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled), "{status}");
    assert!(fixture.metrics().await.contains("inference_run_seconds_count 0"));
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_model_never_replaces_a_good_one_and_going_back_needs_no_store() {
    let good = TestModel::default();
    let fixture = Fixture::start(&good).await;
    let folder = fixture.folder.path();
    let bad = [
        ("schema", TestModel { schema_fingerprint: Some("0".repeat(64)), ..good.clone() }),
        ("golden", TestModel { golden_error: 0.01, ..good.clone() }),
    ];
    for (reason, bad) in bad {
        point_to(folder, &bad);
        let failed = format!("inference_model_load_failures_total{{reason=\"{reason}\"}}");
        fixture.wait(async || fixture.metrics().await.contains(&failed), &failed).await;
        assert_eq!(fixture.digest().await, Some(good.bytes().1));
        assert!(fixture.metrics().await.contains("inference_wanted_model_in_service 0"));
    }
    let (bytes, sha256) = TestModel { version: "2".into(), ..good.clone() }.bytes();
    std::fs::write(folder.join("other.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    write_config(folder, &format!("file://{}/other.onnx", folder.display()), &sha256);
    fixture
        .wait(
            async || fixture.metrics().await.contains("reason=\"package\"") || fixture.metrics().await.contains("reason=\"digest\""),
            "a refusal",
        )
        .await;
    assert_eq!(fixture.digest().await, Some(good.bytes().1));

    // The same reference, once the true file is there.
    std::fs::write(folder.join("other.onnx"), &bytes).unwrap();
    fixture.wait_for(&sha256).await;
    assert!(fixture.metrics().await.contains("inference_wanted_model_in_service 1"));

    write_config(folder, "file:///does/not/exist", &good.bytes().1);
    fixture.wait_for(&good.bytes().1).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_without_its_store_the_wanted_or_the_last_good_model_serves() {
    let model = TestModel::default();
    let folder = Fixture::start(&model).await.end().await;
    let sha256 = model.bytes().1;
    write_config(folder.path(), "s3://models/gone.onnx", &sha256);
    let fixture = Fixture::restart(folder).await;
    fixture.wait_for(&sha256).await;
    assert!(fixture.metrics().await.contains("inference_wanted_model_in_service 1"));

    let folder = fixture.end().await;
    write_config(folder.path(), "file:///does/not/exist", &"1".repeat(64));
    let fixture = Fixture::restart(folder).await;
    fixture.wait_for(&sha256).await;
    let metrics = fixture.metrics().await;
    assert!(metrics.contains("inference_wanted_model_in_service 0") && metrics.contains("reason=\"fetch\""), "{metrics}");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_model_the_service_is_not_ready_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    write_config(folder.path(), "file:///does/not/exist", &"1".repeat(64));
    let fixture = Fixture::restart(folder).await;
    fixture.wait(async || http(fixture.running.admin, "GET", "/readyz", "").await.1.contains("is not there"), "the reason").await;
    assert_eq!(http(fixture.running.admin, "GET", "/readyz", "").await.0, 503);
    assert_eq!(http(fixture.running.admin, "GET", "/livez", "").await.0, 200);
    assert_eq!(fixture.get("/v2/health/ready").await.0, 503);
    let status = fixture.client().await.model_infer(raw_request(&[0.0])).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_before_the_shutdown_is_answered() {
    let fixture = Fixture::start(&TestModel::default()).await;
    let client = fixture.client().await;
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.model_infer(raw_request(&[0.0; 100])).await })
        })
        .collect();
    // One answer shows that the others have been sent as well: they share the connection.
    client.clone().model_infer(raw_request(&[0.0])).await.unwrap();
    drop(client);
    fixture.end().await;
    for answer in asking {
        answer.await.unwrap().unwrap();
    }
}
