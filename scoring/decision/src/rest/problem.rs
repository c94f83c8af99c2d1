//! Problem details (RFC 9457). Pure.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use scoring_core::validate::Problem;
use serde_json::json;

use super::json::ReadError;
use crate::service::Refusal;

/// What is wrong with a request, and in which fields.
#[derive(Debug)]
pub(super) struct ProblemDetails {
    status: StatusCode,
    /// Last part of `type`; stable, for programs.
    kind: &'static str,
    title: &'static str,
    detail: String,
    errors: Vec<(String, String)>,
}

impl ProblemDetails {
    fn new(status: StatusCode, kind: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, title, detail: detail.into(), errors: Vec::new() }
    }

    /// For metrics, too.
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(super) fn malformed(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The body is not a JSON object", detail)
    }

    pub(super) fn too_large(bytes_max: usize) -> Self {
        let detail = format!("at most {bytes_max} bytes are read");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
    }

    pub(super) fn not_json() -> Self {
        let detail = "send the payment as application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "The content type is not JSON", detail)
    }

    pub(super) fn not_found() -> Self {
        let detail = "POST a payment to /v1/decisions; /v1/openapi.json describes it";
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail)
    }

    pub(super) fn method_not_allowed() -> Self {
        let detail = "use POST for /v1/decisions and GET for /v1/openapi.json";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method does not fit", detail)
    }

    fn invalid_fields(errors: Vec<(String, String)>) -> Self {
        let detail = errors.iter().map(|(field, detail)| format!("{field} {detail}")).collect::<Vec<_>>().join("; ");
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-fields", "The payment is not valid", detail);
        Self { errors, ..problem }
    }
}

impl From<ReadError> for ProblemDetails {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Malformed(detail) => Self::malformed(detail),
            ReadError::Field { field, detail } => Self::invalid_fields(vec![(field, detail)]),
        }
    }
}

impl From<Refusal> for ProblemDetails {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(problems) => {
                let named = problems.iter().map(|Problem { field, problem, fix }| (lower_camel(field), format!("{problem}: {fix}")));
                Self::invalid_fields(named.collect())
            }
            Refusal::TooLarge { bytes_max } => Self::too_large(bytes_max),
            Refusal::Internal => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The decision failed",
                "it is a fault of the service: retry with the same id",
            ),
        }
    }
}

/// `card.expiry_month` becomes `card.expiryMonth`.
fn lower_camel(field: &str) -> String {
    let mut raised = false;
    let mut name = String::with_capacity(field.len());
    for letter in field.chars() {
        match letter {
            '_' => raised = true,
            letter if raised => {
                name.extend(letter.to_uppercase());
                raised = false;
            }
            letter => name.push(letter),
        }
    }
    name
}

impl IntoResponse for ProblemDetails {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:fraudpipeline:problem:{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.errors.is_empty() {
            body["errors"] = self.errors.into_iter().map(|(field, detail)| json!({"field": field, "detail": detail})).collect();
        }
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::lower_camel;

    #[test]
    fn fields_are_named_as_rest_writes_them() {
        assert_eq!(lower_camel("card.expiry_month"), "card.expiryMonth");
        assert_eq!(lower_camel("amount_minor"), "amountMinor");
        assert_eq!(lower_camel("email"), "email");
    }
}
