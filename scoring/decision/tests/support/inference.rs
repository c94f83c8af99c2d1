//! A stand-in for the inference service, behind real gRPC: it answers as a test tells it to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse,
    ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer},
    model_infer_response::InferOutputTensor,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

#[derive(Debug, Clone, Copy)]
pub(crate) enum Behaviour {
    Scores(f32),
    /// Scores, but only after this time.
    Slow(Duration),
    Refuses,
    WrongShape,
}

#[derive(Clone)]
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    /// Calls that were begun, and calls that ran to their end.
    pub(crate) begun: Arc<AtomicUsize>,
    pub(crate) finished: Arc<AtomicUsize>,
}

impl StandIn {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stand_in = Self {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            begun: Arc::default(),
            finished: Arc::default(),
        };
        let server = Server::builder().add_service(GrpcInferenceServiceServer::new(stand_in.clone()));
        // Ends with the test's runtime.
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        stand_in
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }
}

fn answer(shape: &[i64], score: f32) -> ModelInferResponse {
    ModelInferResponse {
        model_name: "payments".into(),
        model_version: "full-digest".into(),
        outputs: vec![InferOutputTensor {
            name: "score".into(),
            datatype: "FP32".into(),
            shape: shape.to_vec(),
            ..InferOutputTensor::default()
        }],
        raw_output_contents: vec![score.to_le_bytes().to_vec().into()],
        ..ModelInferResponse::default()
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for StandIn {
    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        let request = request.into_inner();
        let columns = usize::try_from(request.inputs[0].shape[1]).unwrap();
        assert_eq!(request.raw_input_contents[0].len(), columns * 4, "one FP32 row");
        let behaviour = *self.behaviour.lock().unwrap();
        let response = match behaviour {
            Behaviour::Scores(score) => Ok(answer(&[1, 1], score)),
            Behaviour::Slow(wait) => {
                tokio::time::sleep(wait).await;
                Ok(answer(&[1, 1], 0.1))
            }
            Behaviour::Refuses => Err(Status::unavailable("no model")),
            Behaviour::WrongShape => Ok(answer(&[2, 3], 0.1)),
        };
        self.finished.fetch_add(1, Ordering::SeqCst);
        response.map(Response::new)
    }

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: true }))
    }

    async fn model_ready(&self, _: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        Ok(Response::new(ModelReadyResponse { ready: true }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse::default()))
    }

    async fn model_metadata(&self, _: Request<ModelMetadataRequest>) -> Result<Response<ModelMetadataResponse>, Status> {
        Ok(Response::new(ModelMetadataResponse::default()))
    }
}
