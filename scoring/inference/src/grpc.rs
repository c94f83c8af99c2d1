//! The Open Inference Protocol over gRPC: only translation to and from [`crate::infer`].

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse,
    ServerReadyRequest, ServerReadyResponse, grpc_inference_service_server::GrpcInferenceService, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor, model_infer_response::InferOutputTensor, model_metadata_response::TensorMetadata,
};
use scoring_model::{INPUT_NAME, OUTPUT_NAME};
use tonic::{Request, Response, Status, metadata::MetadataMap};

use crate::{
    SERVER_NAME,
    infer::{InferAnswer, InferError, InferRequest, InputTensor, Service, invalid, shortened},
    models::LoadedModel,
};

pub(crate) struct Grpc {
    service: Arc<Service>,
}

impl Grpc {
    pub(crate) fn new(service: Arc<Service>) -> Self {
        Self { service }
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Grpc {
    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.service.models.current().is_some() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let asked = request.into_inner();
        Ok(Response::new(ModelReadyResponse { ready: self.service.model(&asked.name, &asked.version).is_ok() }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Result<Response<ServerMetadataResponse>, Status> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(ServerMetadataResponse { name: SERVER_NAME.into(), version, extensions: vec![] }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Result<Response<ModelMetadataResponse>, Status> {
        let asked = request.into_inner();
        let model = self.service.model(&asked.name, &asked.version)?;
        Ok(Response::new(metadata(&model)))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let deadline = deadline(request.metadata(), Instant::now());
        let asked = request.into_inner();
        let id = asked.id.clone();
        let raw = !asked.raw_input_contents.is_empty();
        let answer = self.service.infer(to_request(asked, deadline)?).await?;
        Ok(Response::new(to_response(&answer, id, raw)))
    }
}

/// The deadline that the client set, from the header `grpc-timeout`: up to eight digits and a unit.
fn deadline(metadata: &MetadataMap, now: Instant) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    if number.len() > 8 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    let left = match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    };
    now.checked_add(left)
}

fn to_request(asked: ModelInferRequest, deadline: Option<Instant>) -> Result<InferRequest, InferError> {
    let raw = asked.raw_input_contents;
    if !raw.is_empty() && raw.len() != asked.inputs.len() {
        return Err(invalid(format!("raw_input_contents has {} entries for {} inputs: send one for each", raw.len(), asked.inputs.len())));
    }
    let mut raw = raw.into_iter();
    let inputs = asked.inputs.into_iter().map(|input| to_tensor(input, raw.next().as_deref())).collect::<Result<_, _>>()?;
    Ok(InferRequest {
        model_name: asked.model_name,
        model_version: asked.model_version,
        inputs,
        outputs: asked.outputs.into_iter().map(|output| output.name).collect(),
        deadline,
    })
}

fn to_tensor(input: InferInputTensor, raw: Option<&[u8]>) -> Result<InputTensor, InferError> {
    let values = match (raw, input.contents) {
        (Some(_), Some(_)) => {
            return Err(invalid(format!("input {:?} has contents beside raw_input_contents: send one of them", shortened(&input.name))));
        }
        (Some(raw), None) => from_raw(raw, &input.name)?,
        (None, Some(contents)) => contents.fp32_contents,
        (None, None) => Vec::new(),
    };
    Ok(InputTensor { name: input.name, datatype: input.datatype, shape: input.shape, values })
}

/// Little-endian floats, as the protocol says.
fn from_raw(raw: &[u8], name: &str) -> Result<Vec<f32>, InferError> {
    let (words, rest) = raw.as_chunks::<4>();
    if !rest.is_empty() {
        return Err(invalid(format!("raw contents of input {:?} are {} bytes, not a multiple of 4", shortened(name), raw.len())));
    }
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

fn to_response(answer: &InferAnswer, id: String, raw: bool) -> ModelInferResponse {
    let rows = i64::try_from(answer.scores.len()).unwrap_or(i64::MAX);
    let mut output = InferOutputTensor {
        name: OUTPUT_NAME.into(),
        datatype: "FP32".into(),
        shape: vec![rows, 1],
        parameters: HashMap::new(),
        contents: None,
    };
    let mut raw_output_contents = vec![];
    if raw {
        raw_output_contents.push(answer.scores.iter().flat_map(|score| score.to_le_bytes()).collect::<Vec<u8>>().into());
    } else {
        output.contents = Some(InferTensorContents { fp32_contents: answer.scores.clone(), ..Default::default() });
    }
    let digest = InferParameter { parameter_choice: Some(ParameterChoice::StringParam(answer.model.sha256.clone())) };
    ModelInferResponse {
        model_name: answer.model.name.clone(),
        model_version: answer.model.manifest.version.clone(),
        id,
        parameters: HashMap::from([("sha256".to_owned(), digest)]),
        outputs: vec![output],
        raw_output_contents,
    }
}

fn metadata(model: &LoadedModel) -> ModelMetadataResponse {
    let tensor = |name: &str, columns: usize| TensorMetadata {
        name: name.into(),
        datatype: "FP32".into(),
        shape: vec![-1, i64::try_from(columns).unwrap_or(i64::MAX)],
    };
    ModelMetadataResponse {
        name: model.name.clone(),
        versions: vec![model.manifest.version.clone()],
        platform: "onnx_onnxv1".into(),
        inputs: vec![tensor(INPUT_NAME, model.features())],
        outputs: vec![tensor(OUTPUT_NAME, 1)],
        properties: HashMap::from([
            ("sha256".to_owned(), model.sha256.clone()),
            ("schema_fingerprint".to_owned(), model.manifest.schema_fingerprint.clone()),
        ]),
    }
}

impl From<InferError> for Status {
    fn from(error: InferError) -> Self {
        let text = error.to_string();
        match error {
            InferError::UnknownModel { .. } | InferError::UnknownVersion { .. } => Self::not_found(text),
            InferError::NoModel { .. } | InferError::ShuttingDown => Self::unavailable(text),
            InferError::Invalid(_) => Self::invalid_argument(text),
            InferError::Overloaded { .. } => Self::resource_exhausted(text),
            InferError::DeadlineExceeded => Self::deadline_exceeded(text),
            InferError::Engine(_) => Self::internal(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_of_the_client_is_understood_in_every_unit() {
        let now = Instant::now();
        let left = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            deadline(&metadata, now).map(|deadline| deadline - now)
        };
        assert_eq!(left("30m"), Some(Duration::from_millis(30)));
        assert_eq!(left("1S"), Some(Duration::from_secs(1)));
        assert_eq!(left("2M"), Some(Duration::from_secs(120)));
        assert_eq!(left("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(left("500u"), Some(Duration::from_micros(500)));
        assert_eq!(left("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "m", "5", "123456789m", "-1S", "1x"] {
            assert_eq!(left(bad), None, "{bad}");
        }
    }

    #[test]
    fn raw_contents_are_little_endian_floats() {
        assert_eq!(from_raw(&[0, 0, 128, 63, 0, 0, 0, 64], "features"), Ok(vec![1.0, 2.0]));
        assert!(from_raw(&[0, 0, 128], "features").unwrap_err().to_string().contains("not a multiple of 4"));
    }
}
