//! The Open Inference Protocol over HTTP and JSON: only translation to and from [`crate::infer`].
//!
//! JSON has no NaN: a feature that is missing is `null`, in requests only. The protocol's binary extension is not offered.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use scoring_model::{INPUT_NAME, OUTPUT_NAME};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    SERVER_NAME,
    infer::{InferAnswer, InferError, InferRequest, InputTensor, Service, invalid, shortened},
    models::LoadedModel,
};

type Shared = State<Arc<Service>>;

pub(crate) fn router(service: Arc<Service>, request_bytes_max: usize) -> Router {
    Router::new()
        .route("/v2", get(server))
        .route("/v2/health/live", get(|| async { Json(json!({"live": true})) }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(model))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/infer", post(infer))
        .route("/v2/models/{model}/versions/{version}", get(model))
        .route("/v2/models/{model}/versions/{version}/ready", get(model_ready))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer))
        .layer(DefaultBodyLimit::max(request_bytes_max))
        .with_state(service)
}

/// `/models/{model}` with or without `/versions/{version}`.
#[derive(Debug, Deserialize)]
struct Asked {
    model: String,
    #[serde(default)]
    version: String,
}

async fn server() -> Json<Value> {
    Json(json!({"name": SERVER_NAME, "version": env!("CARGO_PKG_VERSION"), "extensions": []}))
}

async fn ready(State(service): Shared) -> Response {
    let ready = service.models.current().is_some();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready}))).into_response()
}

async fn model(State(service): Shared, Path(asked): Path<Asked>) -> Result<Json<Value>, InferError> {
    Ok(Json(metadata(&*service.model(&asked.model, &asked.version)?)))
}

async fn model_ready(State(service): Shared, Path(asked): Path<Asked>) -> Result<Json<Value>, InferError> {
    let model = service.model(&asked.model, &asked.version)?;
    Ok(Json(json!({"name": model.name, "ready": true})))
}

fn metadata(model: &LoadedModel) -> Value {
    json!({
        "name": model.name,
        "versions": [model.manifest.version],
        "platform": "onnx_onnxv1",
        "inputs": [{"name": INPUT_NAME, "datatype": "FP32", "shape": [-1, model.features()]}],
        "outputs": [{"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, 1]}],
        "properties": {"sha256": model.sha256, "schema_fingerprint": model.manifest.schema_fingerprint},
    })
}

/// A request's body. Parameters and fields of extensions are passed over, as the protocol asks.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    id: Option<String>,
    inputs: Vec<BodyInput>,
    #[serde(default)]
    outputs: Vec<BodyOutput>,
}

#[derive(Debug, Deserialize)]
struct BodyInput {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    data: Value,
}

#[derive(Debug, Deserialize)]
struct BodyOutput {
    name: String,
}

async fn infer(State(service): Shared, Path(asked): Path<Asked>, body: Result<Bytes, BytesRejection>) -> Result<Json<Value>, Response> {
    let body = body.map_err(|rejection| (rejection.status(), Json(json!({"error": rejection.body_text()}))).into_response())?;
    let (request, id) = to_request(asked, &body).map_err(IntoResponse::into_response)?;
    let answer = service.infer(request).await.map_err(IntoResponse::into_response)?;
    Ok(Json(to_body(&answer, id)))
}

fn to_request(asked: Asked, body: &[u8]) -> Result<(InferRequest, Option<String>), InferError> {
    let body: Body = serde_json::from_slice(body).map_err(|error| invalid(format!("the body is not an inference request: {error}")))?;
    let inputs = body.inputs.into_iter().map(to_tensor).collect::<Result<_, _>>()?;
    let outputs = body.outputs.into_iter().map(|output| output.name).collect();
    let request = InferRequest { model_name: asked.model, model_version: asked.version, inputs, outputs, deadline: None };
    Ok((request, body.id))
}

fn to_tensor(input: BodyInput) -> Result<InputTensor, InferError> {
    let mut values = Vec::new();
    flatten(&input.data, &input.name, &mut values)?;
    Ok(InputTensor { name: input.name, datatype: input.datatype, shape: input.shape, values })
}

/// Nested or flat, as the protocol allows. Depth is bounded by the JSON parser.
fn flatten(data: &Value, name: &str, values: &mut Vec<f32>) -> Result<(), InferError> {
    match data {
        Value::Array(items) => items.iter().try_for_each(|item| flatten(item, name, values)),
        Value::Null => {
            values.push(f32::NAN);
            Ok(())
        }
        Value::Number(number) => {
            // Too large for a float becomes infinite, which is refused with its row and column.
            #[allow(clippy::cast_possible_truncation)]
            values.push(number.as_f64().unwrap_or(f64::INFINITY) as f32);
            Ok(())
        }
        other => {
            Err(invalid(format!("data of input {:?} has {}: send numbers, or null when one is missing", shortened(name), kind(other))))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Bool(_) => "true or false",
        _ => "an object",
    }
}

fn to_body(answer: &InferAnswer, id: Option<String>) -> Value {
    let mut body = json!({
        "model_name": answer.model.name,
        "model_version": answer.model.manifest.version,
        "parameters": {"sha256": answer.model.sha256},
        "outputs": [{"name": OUTPUT_NAME, "datatype": "FP32", "shape": [answer.scores.len(), 1], "data": answer.scores}],
    });
    if let (Some(id), Some(fields)) = (id, body.as_object_mut()) {
        fields.insert("id".into(), Value::String(id));
    }
    body
}

impl IntoResponse for InferError {
    fn into_response(self) -> Response {
        let status = match self {
            Self::UnknownModel { .. } | Self::UnknownVersion { .. } => StatusCode::NOT_FOUND,
            Self::NoModel { .. } | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::Engine(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({"error": self.to_string()}))).into_response()
    }
}
