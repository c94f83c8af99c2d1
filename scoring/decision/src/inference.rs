//! The full model: asked over the Open Inference Protocol, or evaluated in this process.
//!
//! One persistent HTTP/2 connection per address behind the server's name; requests go to the address with the least under
//! way. The caller sets the time; a call that is dropped is cancelled at the server too.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, grpc_inference_service_client::GrpcInferenceServiceClient,
    infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
};
use scoring_model::{INPUT_NAME, OUTPUT_NAME};
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint, channel::Change},
};

use crate::model::ModelSlot;

/// How often the name is looked up again: new pods get traffic, and pods that are gone none.
const RESOLVE_EVERY: Duration = Duration::from_secs(2);
const FP32: &str = "FP32";
/// An answer with one score is small; more is not an answer to our question.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Under this name our server says which file scored.
const DIGEST_PARAMETER: &str = "sha256";

#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    pub score: f64,
    pub model_digest: String,
}

#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    #[error("no answer in time")]
    Late,
    #[error("inference server refused: {0}")]
    Refused(Status),
    #[error("inference server's answer cannot be used: {0}")]
    Unusable(&'static str),
    #[error("the model is not loaded yet")]
    NotLoaded,
}

impl InferenceError {
    /// A metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Refused(_) => "refused",
            Self::Unusable(_) => "unusable",
            Self::NotLoaded => "not_loaded",
        }
    }
}

pub enum Engine {
    Service(ServiceEngine),
    InProcess(ModelSlot),
}

impl Engine {
    /// # Errors
    /// When there is no score within `limit`, for whatever reason.
    pub async fn score(&self, vector: &[f32], limit: Duration) -> Result<Scored, InferenceError> {
        match self {
            Self::Service(service) => service.score(vector, limit).await,
            Self::InProcess(slot) => {
                let model = slot.get().ok_or(InferenceError::NotLoaded)?;
                Ok(Scored { score: model.score(vector), model_digest: model.digest.clone() })
            }
        }
    }
}

impl Engine {
    /// The model of this process, when it is the engine.
    pub fn in_process(&self) -> Option<&ModelSlot> {
        match self {
            Self::Service(_) => None,
            Self::InProcess(slot) => Some(slot),
        }
    }
}

/// A client of the Open Inference Protocol.
pub struct ServiceEngine {
    client: GrpcInferenceServiceClient<Channel>,
    model_name: String,
}

impl ServiceEngine {
    /// Connects in the background to every address behind `address` (`host:port`), and follows their changes.
    pub fn connect(address: &str, model_name: &str, stop: CancellationToken) -> Self {
        let (channel, changes) = Channel::balance_channel(64);
        tokio::spawn(follow_addresses(address.to_owned(), changes, stop));
        let client = GrpcInferenceServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        Self { client, model_name: model_name.to_owned() }
    }

    async fn score(&self, vector: &[f32], limit: Duration) -> Result<Scored, InferenceError> {
        let mut request = Request::new(question(&self.model_name, vector));
        // The server sees the limit too, so that it need not start what nobody waits for.
        request.set_timeout(limit);
        let mut client = self.client.clone();
        match tokio::time::timeout(limit, client.model_infer(request)).await {
            Err(_) => Err(InferenceError::Late),
            Ok(Err(status)) => Err(InferenceError::Refused(status)),
            Ok(Ok(answer)) => read_answer(answer.into_inner()).map_err(InferenceError::Unusable),
        }
    }
}

fn question(model_name: &str, vector: &[f32]) -> ModelInferRequest {
    let raw: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    let columns = i64::try_from(vector.len()).unwrap_or(i64::MAX);
    ModelInferRequest {
        model_name: model_name.to_owned(),
        inputs: vec![InferInputTensor {
            name: INPUT_NAME.into(),
            datatype: FP32.into(),
            shape: vec![1, columns],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    }
}

fn read_answer(answer: ModelInferResponse) -> Result<Scored, &'static str> {
    let position = answer.outputs.iter().position(|output| output.name == OUTPUT_NAME).ok_or("it has no output named score")?;
    let output = &answer.outputs[position];
    if output.datatype != FP32 || !output.shape.iter().all(|size| *size == 1) {
        return Err("its output score is not one FP32 value");
    }
    let value = match answer.raw_output_contents.get(position) {
        Some(raw) => f32::from_le_bytes(raw.as_ref().try_into().map_err(|_| "its output score does not have 4 bytes")?),
        None => match output.contents.as_ref().map(|contents| contents.fp32_contents.as_slice()) {
            Some([value]) => *value,
            _ => return Err("its output score has no value"),
        },
    };
    if !(0.0..=1.0).contains(&value) {
        return Err("its score is not a probability");
    }
    let digest = answer.parameters.get(DIGEST_PARAMETER).or_else(|| output.parameters.get(DIGEST_PARAMETER)).and_then(text_of);
    Ok(Scored { score: value.into(), model_digest: digest.unwrap_or(answer.model_version) })
}

fn text_of(parameter: &InferParameter) -> Option<String> {
    match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => Some(text.chars().take(128).collect()),
        _ => None,
    }
}

async fn follow_addresses(address: String, changes: Sender<Change<SocketAddr, Endpoint>>, stop: CancellationToken) {
    let mut known: BTreeSet<SocketAddr> = BTreeSet::new();
    let mut failing = false;
    loop {
        match tokio::net::lookup_host(&address).await {
            Ok(found) => {
                let found: BTreeSet<SocketAddr> = found.collect();
                if known != found {
                    tracing::info!(addresses = found.len(), "inference service resolved");
                }
                for gone in known.difference(&found) {
                    // An error means that the channel is gone, and with it the process.
                    let _ = changes.send(Change::Remove(*gone)).await;
                }
                for new in found.difference(&known) {
                    let Some(endpoint) = endpoint(*new) else { continue };
                    let _ = changes.send(Change::Insert(*new, endpoint)).await;
                }
                known = found;
                failing = false;
            }
            // Addresses that are known stay: a name server that is away must not take inference with it.
            Err(error) if !failing => {
                tracing::warn!(address, %error, "inference service cannot be resolved");
                failing = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(RESOLVE_EVERY) => {}
            () = stop.cancelled() => return,
        }
    }
}

fn endpoint(address: SocketAddr) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let kept_alive =
        endpoint.http2_keep_alive_interval(Duration::from_secs(5)).keep_alive_timeout(Duration::from_secs(2)).keep_alive_while_idle(true);
    Some(kept_alive.tcp_nodelay(true).connect_timeout(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use proto::inference::{InferTensorContents, model_infer_response::InferOutputTensor};

    use super::*;

    fn answer(name: &str, datatype: &str, shape: &[i64], raw: &[u8]) -> ModelInferResponse {
        ModelInferResponse {
            model_version: "7".into(),
            outputs: vec![InferOutputTensor {
                name: name.into(),
                datatype: datatype.into(),
                shape: shape.to_vec(),
                ..InferOutputTensor::default()
            }],
            raw_output_contents: vec![raw.to_vec().into()],
            ..ModelInferResponse::default()
        }
    }

    #[test]
    fn a_score_is_read_from_raw_and_from_typed_contents() {
        let scored = Scored { score: 0.25, model_digest: "7".into() };
        assert_eq!(read_answer(answer("score", "FP32", &[1, 1], &0.25_f32.to_le_bytes())), Ok(scored.clone()));
        let mut typed = answer("score", "FP32", &[1], &[]);
        typed.raw_output_contents.clear();
        typed.outputs[0].contents = Some(InferTensorContents { fp32_contents: vec![0.25], ..InferTensorContents::default() });
        assert_eq!(read_answer(typed), Ok(scored));
    }

    #[test]
    fn an_answer_of_another_shape_type_or_range_is_unusable() {
        let half = 0.5_f32.to_le_bytes();
        for (wrong, why) in [
            (answer("label", "FP32", &[1, 1], &half), "no output named score"),
            (answer("score", "FP64", &[1, 1], &half), "not one FP32"),
            (answer("score", "FP32", &[1, 2], &half), "not one FP32"),
            (answer("score", "FP32", &[1, 1], &half[..3]), "4 bytes"),
            (answer("score", "FP32", &[1, 1], &f32::NAN.to_le_bytes()), "not a probability"),
            (answer("score", "FP32", &[1, 1], &1.5_f32.to_le_bytes()), "not a probability"),
            (answer("score", "FP32", &[i64::MAX, 3], &half), "not one FP32"),
        ] {
            let error = read_answer(wrong).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_question_is_one_row_of_little_endian_floats() {
        let question = question("payments", &[1.0, f32::NAN]);
        assert_eq!(question.inputs[0].shape, [1, 2]);
        assert_eq!(question.raw_input_contents[0].len(), 8);
        assert_eq!(question.raw_input_contents[0][..4], 1.0_f32.to_le_bytes());
    }
}
