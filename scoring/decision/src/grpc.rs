//! gRPC: `fraud.v1.Scoring`. Only translation: what is decided, and how, is in `service`.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt as _};
use prost::Message as _;
use proto::fraud::v1::{
    DecideFailure, DecideRequest, DecideResponse, DecideStreamResponse, decide_stream_response,
    scoring_server::{Scoring, ScoringServer},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming, metadata::MetadataMap};

use crate::service::{Refusal, Service};

/// Decisions of one stream that are under way at once.
const STREAM_INFLIGHT_MAX: usize = 64;

pub(crate) struct Grpc {
    service: Arc<Service>,
    stop: CancellationToken,
}

impl Grpc {
    /// With `stop`, streams take no more requests, answer those that they have, and end.
    pub(crate) fn server(service: Arc<Service>, stop: CancellationToken) -> ScoringServer<Self> {
        // A request above the limit gets a precise answer; far above it, tonic ends the call before it is read.
        let bytes_max = service.request_bytes_max().saturating_mul(4);
        ScoringServer::new(Self { service, stop }).max_decoding_message_size(bytes_max)
    }
}

#[tonic::async_trait]
impl Scoring for Grpc {
    async fn decide(&self, request: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        let limit = client_limit(request.metadata());
        decide(&self.service, request.into_inner(), limit).await.map(Response::new).map_err(status)
    }

    type DecideStreamStream = Pin<Box<dyn Stream<Item = Result<DecideStreamResponse, Status>> + Send>>;

    async fn decide_stream(&self, request: Request<Streaming<DecideRequest>>) -> Result<Response<Self::DecideStreamStream>, Status> {
        let service = self.service.clone();
        // The client's deadline is that of the whole stream, so each request has the pipeline's own.
        let answers = request.into_inner().take_until(self.stop.clone().cancelled_owned()).map(move |next| {
            let service = service.clone();
            async move { Ok(stream_answer(&service, next?).await) }
        });
        Ok(Response::new(answers.buffer_unordered(STREAM_INFLIGHT_MAX).boxed()))
    }
}

async fn stream_answer(service: &Arc<Service>, request: DecideRequest) -> DecideStreamResponse {
    let transaction_id: String = request.transaction_id.chars().take(64).collect();
    let result = match decide(service, request, None).await {
        Ok(decision) => decide_stream_response::Result::Decision(decision),
        Err(refusal) => {
            let status = status(refusal);
            decide_stream_response::Result::Failure(DecideFailure {
                transaction_id,
                code: status.code().into(),
                message: status.message().to_owned(),
            })
        }
    };
    DecideStreamResponse { result: Some(result) }
}

async fn decide(service: &Arc<Service>, request: DecideRequest, limit: Option<Duration>) -> Result<DecideResponse, Refusal> {
    let bytes_max = service.request_bytes_max();
    if request.encoded_len() > bytes_max {
        service.refused("too_large");
        return Err(Refusal::TooLarge { bytes_max });
    }
    service.decide(request, limit).await
}

fn status(refusal: Refusal) -> Status {
    let code = match &refusal {
        Refusal::Invalid(_) => Code::InvalidArgument,
        Refusal::TooLarge { .. } => Code::ResourceExhausted,
        Refusal::Internal => Code::Internal,
    };
    Status::new(code, refusal.to_string())
}

/// What the client allows, from the header `grpc-timeout`: at most eight digits and a unit. A malformed header counts
/// as none, as it does for the server library.
fn client_limit(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || digits > 8 {
        return None;
    }
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(text: &'static str) -> Option<Duration> {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        client_limit(&metadata)
    }

    #[test]
    fn the_clients_deadline_is_read_in_every_unit() {
        assert_eq!(limit("50m"), Some(Duration::from_millis(50)));
        assert_eq!(limit("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!(limit("250000u"), Some(Duration::from_millis(250)));
        assert_eq!(limit("0n"), Some(Duration::ZERO));
        assert_eq!(client_limit(&MetadataMap::new()), None);
    }

    #[test]
    fn a_malformed_deadline_counts_as_none() {
        for bad in ["", "m", "5", "5x", "-5m", "123456789m", "5 m", "5mm"] {
            assert_eq!(limit(bad), None, "{bad}");
        }
    }
}
