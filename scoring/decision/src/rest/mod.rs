//! REST: `POST /v1/decisions` and its OpenAPI document. Only translation: what is decided, and how, is in `service`.
//!
//! Names are those of the gRPC API in lowerCamelCase; enumerations are written by name; 64-bit numbers are JSON numbers,
//! and are also read from strings. Errors are problem details (RFC 9457) that name the field.

mod json;
mod problem;
mod tls;

use std::sync::Arc;

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use proto::fraud::v1::DecideRequest;

use crate::service::Service;
use problem::ProblemDetails;
pub(crate) use tls::TlsListener;

const OPENAPI: &str = include_str!("openapi.json");

pub(crate) fn router(service: Arc<Service>) -> Router {
    let limit = service.request_bytes_max();
    Router::new()
        .route("/v1/decisions", post(decide))
        .route("/v1/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) }))
        .fallback(|| async { ProblemDetails::not_found() })
        .method_not_allowed_fallback(|| async { ProblemDetails::method_not_allowed() })
        .layer(DefaultBodyLimit::max(limit))
        .with_state(service)
}

async fn decide(State(service): State<Arc<Service>>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    match answer(&service, &headers, body).await {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn answer(service: &Arc<Service>, headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<String, ProblemDetails> {
    let request = read(service, headers, body).inspect_err(|problem| service.refused(problem.kind()))?;
    let response = service.decide(request, None).await.map_err(ProblemDetails::from)?;
    Ok(json::write_response(&response))
}

fn read(service: &Service, headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<DecideRequest, ProblemDetails> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ProblemDetails::too_large(service.request_bytes_max()),
        _ => ProblemDetails::malformed("the body could not be read to its end".into()),
    })?;
    if !is_json(headers) {
        return Err(ProblemDetails::not_json());
    }
    json::read_request(&body).map_err(ProblemDetails::from)
}

/// A missing content type is taken for JSON, as `curl` users expect once they have left it out.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return true };
    let given = given.to_str().unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    // `curl -d` says this when nobody tells it otherwise.
    media_type.eq_ignore_ascii_case("application/json") || media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}
