//! HTTP for all services: bounded in connections, time and size, one log line for each request.

use super::{Role, Service};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Where a service says in which cluster it runs.
pub(super) const SERVED_BY: &str = "x-served-by";

const CONNECTIONS: usize = 512;
const BODY_BYTES: usize = 64 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open requests have once the service is to end.
const DRAIN: Duration = Duration::from_secs(5);

/// A request, read whole.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: hyper::HeaderMap,
    pub(super) body: Bytes,
}

impl Call {
    /// Method and the parts of the path, to be matched on.
    pub(super) fn route(&self) -> (&str, Vec<&str>) {
        (self.method.as_str(), self.path.split('/').filter(|part| !part.is_empty()).collect())
    }

    /// The body as JSON, or the reply that says what is wrong with it.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Reply> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Reply::error(StatusCode::BAD_REQUEST, &error.to_string()))
    }
}

/// A response.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    body: Bytes,
    headers: Vec<(header::HeaderName, String)>,
}

impl Reply {
    pub(super) fn new(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Self {
        Self { status, body: body.into(), headers: vec![(header::CONTENT_TYPE, kind.to_owned())] }
    }
    pub(super) fn json(value: &impl Serialize) -> Self {
        Self::json_as(StatusCode::OK, value)
    }
    pub(super) fn json_as(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(status, "application/json", body),
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }
    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        Self::new(status, "application/json", json!({ "error": message }).to_string())
    }
    pub(super) fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "there is nothing here")
    }
    /// Back to a page, after a form.
    pub(super) fn see_other(path: &str) -> Self {
        Self::new(StatusCode::SEE_OTHER, "text/plain", "").with(header::LOCATION, path)
    }
    pub(super) fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// The HTTP server of one service.
#[derive(Clone, Debug)]
pub(super) struct Server {
    role: Role,
    cluster: Arc<str>,
    service: Arc<Service>,
}

impl Server {
    pub(super) fn new(role: Role, cluster: String, service: Service) -> Self {
        Self { role, cluster: cluster.into(), service: Arc::new(service) }
    }

    pub(super) async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let service = self.role.as_str();
        let address = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
        tracing::info!(service, address, "serving");
        let (token, places) = (CancellationToken::new(), Arc::new(Semaphore::new(CONNECTIONS)));
        let mut connections = JoinSet::new();
        tokio::pin!(stop);
        loop {
            let (stream, peer) = tokio::select! {
                biased;
                () = &mut stop => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(service, %error, "accepting a connection failed");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            // Too many: closing at once says so sooner than silence.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (server, token) = (self.clone(), token.clone());
            connections.spawn(async move {
                let _place = place;
                let answer = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request, peer).await) }
                });
                let mut builder = http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_headers(64);
                let connection = builder.serve_connection(TokioIo::new(stream), answer);
                tokio::pin!(connection);
                let result = tokio::select! {
                    result = &mut connection => result,
                    () = token.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                };
                if let Err(error) = result {
                    tracing::debug!(service, %error, "a connection broke off");
                }
            });
        }
        token.cancel();
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(DRAIN, ended).await.is_err() {
            tracing::warn!(service, "requests were still open at the end");
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Response<Full<Bytes>> {
        let start = Instant::now();
        let (head, body) = request.into_parts();
        let (method, path) = (head.method.clone(), head.uri.path().to_owned());
        let reply = match timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES).collect()).await {
            Ok(Ok(body)) => {
                let body = body.to_bytes();
                let call = Call { method: head.method, path: path.clone(), headers: head.headers, body };
                match (call.method.as_str(), &*call.path) {
                    ("GET", "/healthz") => Reply::json(&json!({ "status": "ok" })),
                    _ => self.service.answer(&call).await,
                }
            }
            Ok(Err(_)) => {
                Reply::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is cut off, or longer than 64 KiB")
            }
            Err(_) => Reply::error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
        };
        let took = start.elapsed();
        tracing::info!(
            service = self.role.as_str(),
            http.method = %method,
            http.path = path,
            http.status = reply.status.as_u16(),
            http.duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            peer = %peer,
            "request"
        );
        let mut response = Response::builder().status(reply.status).header(SERVED_BY, &*self.cluster);
        for (name, value) in reply.headers {
            response = response.header(name, value);
        }
        // Only a header value that is none can fail it: a cluster's name with a line break in it.
        response.body(Full::new(reply.body)).unwrap_or_else(|_| Response::new(Full::new(Bytes::new())))
    }
}
