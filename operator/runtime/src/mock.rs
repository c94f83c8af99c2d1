//! An API server for tests: answers what it was told to, and keeps what it was asked. Only in test builds.

use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use serde::Serialize;
use serde_json::json;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    body: String,
}

impl Answer {
    pub(crate) fn ok(value: &impl Serialize) -> Self {
        Self { status: 200, body: serde_json::to_string(value).unwrap() }
    }

    pub(crate) fn not_found() -> Self {
        Self::failed(404, "NotFound")
    }

    pub(crate) fn failed(status: u16, reason: &str) -> Self {
        let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": status});
        Self { status, body: body.to_string() }
    }
}

#[derive(Clone, Default)]
pub(crate) struct Server {
    answers: Arc<Mutex<Vec<(Method, String, Answer)>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// From now on, requests with this method whose path ends so are answered so.
    pub(crate) fn answer(&self, method: Method, path_end: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(0, (method, path_end.to_owned(), answer));
    }

    pub(crate) fn requests(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn respond(&self, asked: Asked) -> Response<Body> {
        let answers = self.answers.lock().unwrap();
        let found = answers.iter().find(|(method, end, _)| *method == asked.method && asked.path.ends_with(end));
        let answer = found.map_or_else(|| Answer::failed(500, "no answer was prepared"), |(_, _, answer)| answer.clone());
        self.asked.lock().unwrap().push(asked);
        Response::builder().status(answer.status).body(Body::from(answer.body.into_bytes())).unwrap()
    }
}

/// A client and the server that it talks to.
pub(crate) fn api_server() -> (Client, Server) {
    let server = Server::default();
    let answering = server.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = answering.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let asked = Asked {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            Ok::<_, kube::Error>(server.respond(asked))
        }
    });
    (Client::new(service, "default"), server)
}
