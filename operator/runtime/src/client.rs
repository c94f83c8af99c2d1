//! The Kubernetes client: every request of the operator passes through the layers that are put together here.
//!
//! From outside in: a timeout until the answer begins (a watch then goes on as long as it likes), a bound on requests
//! under way, counting, and whatever layer the caller puts next to the network, where faults can be injected.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, header::USER_AGENT};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, DynBody},
};
use tower::{BoxError, Layer, Service, layer::util::Identity, limit::ConcurrencyLimitLayer, timeout::TimeoutLayer, util::BoxService};

use crate::metrics::Metrics;

const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const REQUESTS_MAX: usize = 64;
const AGENT: &str = concat!("fraud-operator/", env!("CARGO_PKG_VERSION"));

/// What kube makes of a configuration: connections, TLS, authentication.
type Network = BoxService<Request<Body>, Response<Box<DynBody>>, BoxError>;

/// # Errors
/// When the configuration cannot be used.
pub(crate) fn connect(config: Config, metrics: &Metrics) -> kube::Result<Client> {
    connect_through(config, metrics, &Identity::new())
}

/// As [`connect`], with a layer of the caller's next to the network.
///
/// # Errors
/// When the configuration cannot be used.
pub(crate) fn connect_through<L>(config: Config, metrics: &Metrics, layer: &L) -> kube::Result<Client>
where
    L: Layer<Network>,
    L::Service: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError> + Send + 'static,
    <L::Service as Service<Request<Body>>>::Future: Send + 'static,
{
    let builder = ClientBuilder::try_from(config)?
        .with_layer(layer)
        .with_layer(&CountLayer { metrics: metrics.clone() })
        .with_layer(&ConcurrencyLimitLayer::new(REQUESTS_MAX))
        .with_layer(&TimeoutLayer::new(ANSWER_WITHIN));
    Ok(builder.build())
}

#[derive(Clone)]
struct CountLayer {
    metrics: Metrics,
}

impl<S> Layer<S> for CountLayer {
    type Service = Count<S>;

    fn layer(&self, inner: S) -> Count<S> {
        Count { inner, metrics: self.metrics.clone() }
    }
}

/// Names the operator to the API server, and counts.
struct Count<S> {
    inner: S,
    metrics: Metrics,
}

impl<S, B> Service<Request<Body>> for Count<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (verb, kind) = (verb_of(request.method()), kind_of(request.uri().path()));
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            metrics.api_request(verb, kind, answer.as_ref().map_or("failed", |response| result_of(response.status().as_u16())));
            answer
        })
    }
}

fn verb_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "replace",
        Method::PATCH => "apply",
        Method::DELETE => "delete",
        _ => "other",
    }
}

fn result_of(status: u16) -> &'static str {
    match status {
        409 => "conflict",
        429 => "throttled",
        0..400 => "ok",
        400..500 => "refused",
        _ => "failed",
    }
}

/// The kind of object that a path is about; one of a fixed set.
fn kind_of(path: &str) -> &'static str {
    const KINDS: [&str; 18] = [
        "fraudpipelines",
        "regionplans",
        "statefulsets",
        "deployments",
        "services",
        "configmaps",
        "serviceaccounts",
        "horizontalpodautoscalers",
        "poddisruptionbudgets",
        "networkpolicies",
        "secrets",
        "storageclasses",
        "leases",
        "events",
        "namespaces",
        "pods",
        "persistentvolumeclaims",
        "customresourcedefinitions",
    ];
    // The last part that is a kind: "namespaces" stands before the others.
    path.split('/').rev().find_map(|part| KINDS.into_iter().find(|kind| *kind == part)).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_counted_under_their_kind() {
        assert_eq!(kind_of("/apis/apps/v1/namespaces/fraud/statefulsets/payments-decision"), "statefulsets");
        assert_eq!(kind_of("/apis/fraudpipeline.dev/v1alpha1/namespaces/fraud/fraudpipelines/payments/status"), "fraudpipelines");
        assert_eq!(kind_of("/api/v1/namespaces/fraud"), "namespaces");
        assert_eq!(kind_of("/version"), "other");
    }
}
