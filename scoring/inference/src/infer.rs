//! One inference, whichever way it came in: checks, queue, deadline, answer. Both transports translate to and from this.

use std::{sync::Arc, time::Instant};

use scoring_model::{INPUT_NAME, OUTPUT_NAME};
use tokio::sync::oneshot;

use crate::{
    metrics::Metrics,
    models::{LoadedModel, Models},
    pool::{Job, Pool},
};

/// An input tensor with values that were read as numbers already.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InputTensor {
    pub(crate) name: String,
    pub(crate) datatype: String,
    pub(crate) shape: Vec<i64>,
    pub(crate) values: Vec<f32>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InferRequest {
    pub(crate) model_name: String,
    /// Empty: whichever is in service.
    pub(crate) model_version: String,
    pub(crate) inputs: Vec<InputTensor>,
    /// Empty: all.
    pub(crate) outputs: Vec<String>,
    pub(crate) deadline: Option<Instant>,
}

/// One score per row, and the model that gave them.
pub(crate) struct InferAnswer {
    pub(crate) model: Arc<LoadedModel>,
    pub(crate) scores: Vec<f32>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InferError {
    #[error("model {given:?} is not served here: this service has {served}")]
    UnknownModel { given: String, served: String },
    #[error("version {given:?} of model {name} is not in service: ask for {served}, or for no version in particular")]
    UnknownVersion { name: String, given: String, served: String },
    #[error("no model is in service yet{why}")]
    NoModel { why: String },
    #[error("{0}")]
    Invalid(String),
    #[error("more than {jobs_max} requests wait already: ask another instance, or go on without a score")]
    Overloaded { jobs_max: usize },
    #[error("the deadline passed before the model could run")]
    DeadlineExceeded,
    #[error("this instance is shutting down: ask another one")]
    ShuttingDown,
    #[error("the model failed: {0}")]
    Engine(String),
}

impl InferError {
    /// For counting; a short fixed list.
    fn outcome(&self) -> &'static str {
        match self {
            Self::UnknownModel { .. } | Self::UnknownVersion { .. } => "unknown_model",
            Self::NoModel { .. } => "no_model",
            Self::Invalid(_) => "invalid",
            Self::Overloaded { .. } => "overloaded",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ShuttingDown => "shutting_down",
            Self::Engine(_) => "engine_failed",
        }
    }
}

/// The service behind both transports.
pub(crate) struct Service {
    pub(crate) models: Arc<Models>,
    pub(crate) pool: Pool,
    pub(crate) metrics: Metrics,
    pub(crate) rows_max: usize,
}

impl Service {
    pub(crate) async fn infer(&self, request: InferRequest) -> Result<InferAnswer, InferError> {
        let arrived = Instant::now();
        let answer = self.answer(request).await;
        match &answer {
            Ok(answer) => self.metrics.answered("ok", answer.scores.len(), arrived.elapsed()),
            Err(error) => self.metrics.answered(error.outcome(), 0, arrived.elapsed()),
        }
        answer
    }

    async fn answer(&self, request: InferRequest) -> Result<InferAnswer, InferError> {
        let model = self.model(&request.model_name, &request.model_version)?;
        let rows = check(request.inputs, &request.outputs, &model, self.rows_max)?;
        let (reply, answered) = oneshot::channel();
        self.pool.submit(Job { model: model.clone(), rows, deadline: request.deadline, reply })?;
        let answered = async { answered.await.unwrap_or(Err(InferError::ShuttingDown)) };
        let scores = match request.deadline {
            None => answered.await?,
            Some(deadline) => tokio::time::timeout_at(deadline.into(), answered).await.unwrap_or(Err(InferError::DeadlineExceeded))?,
        };
        Ok(InferAnswer { model, scores })
    }

    /// The model in service, if it has this name and (unless empty) this version.
    pub(crate) fn model(&self, name: &str, version: &str) -> Result<Arc<LoadedModel>, InferError> {
        let Some(model) = self.models.current() else {
            let why = self.models.problem().map(|problem| format!(": {problem}")).unwrap_or_default();
            return Err(InferError::NoModel { why });
        };
        if model.name != name {
            return Err(InferError::UnknownModel { given: shortened(name), served: model.name.clone() });
        }
        let served = &model.manifest.version;
        if !version.is_empty() && version != served {
            return Err(InferError::UnknownVersion { name: model.name.clone(), given: shortened(version), served: served.clone() });
        }
        Ok(model)
    }
}

/// The rows of a request, or the sentence that says what is wrong with it.
fn check(mut inputs: Vec<InputTensor>, outputs: &[String], model: &LoadedModel, rows_max: usize) -> Result<Vec<f32>, InferError> {
    if let Some(output) = outputs.iter().find(|output| *output != OUTPUT_NAME) {
        return Err(invalid(format!("outputs has {:?}: the model has one output, {OUTPUT_NAME:?}", shortened(output))));
    }
    let count = inputs.len();
    let input = match (inputs.pop(), count) {
        (Some(input), 1) => input,
        _ => return Err(invalid(format!("inputs has {count} tensors: the model takes one, {INPUT_NAME:?}"))),
    };
    if input.name != INPUT_NAME {
        return Err(invalid(format!("input {:?} is unknown: the model's input is {INPUT_NAME:?}", shortened(&input.name))));
    }
    if input.datatype != "FP32" {
        return Err(invalid(format!("input {INPUT_NAME:?} has datatype {:?}: send FP32", shortened(&input.datatype))));
    }
    check_shape(&input, model.features(), rows_max)?;
    check_values(&input.values, &model.manifest.features)?;
    Ok(input.values)
}

fn check_shape(input: &InputTensor, features: usize, rows_max: usize) -> Result<(), InferError> {
    let shape: Option<Vec<usize>> = input.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
    let rows = match shape.as_deref() {
        Some(&[rows, columns]) if columns == features && rows >= 1 => rows,
        _ => {
            let shown: Vec<String> = input.shape.iter().take(8).map(ToString::to_string).collect();
            return Err(invalid(format!(
                "input {INPUT_NAME:?} has shape [{}]: send [rows, {features}] with at least one row",
                shown.join(", ")
            )));
        }
    };
    if rows > rows_max {
        return Err(invalid(format!("input {INPUT_NAME:?} has {rows} rows: at most {rows_max} are scored at once, split the request")));
    }
    if input.values.len() != rows * features {
        return Err(invalid(format!(
            "input {INPUT_NAME:?} has {} values, its shape [{rows}, {features}] needs {}",
            input.values.len(),
            rows * features
        )));
    }
    Ok(())
}

/// NaN is a missing feature. Infinity is nothing that a feature can be.
fn check_values(values: &[f32], names: &[String]) -> Result<(), InferError> {
    match values.iter().position(|value| value.is_infinite()) {
        None => Ok(()),
        Some(at) => {
            let (row, column) = (at / names.len(), at % names.len());
            let name = names.get(column).map_or("", String::as_str);
            Err(invalid(format!("row {row}, column {column} ({name}) is infinite: send a finite number, or NaN when it is missing")))
        }
    }
}

pub(crate) fn invalid(why: String) -> InferError {
    InferError::Invalid(why)
}

/// Untrusted text, short enough to be repeated in an answer.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
