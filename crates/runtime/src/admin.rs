//! The admin port: `/metrics`, `/healthz`, `/readyz`, and the dumps of the program. Plain HTTP/1.1 for the machine's own people and scrapers; it
//! changes nothing, and its bounds keep it from hurting what it watches. In a pod it is open to the whole network, for kubelet and scrapers: so
//! the dumps, which have routes and addresses in them, are for those alone who come over its loopback.

use crate::{
    drain, metrics,
    places::{Place, Places, Shares, Source},
    task,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::{collections::BTreeMap, convert::Infallible, fmt, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};

/// Connections at a time, from elsewhere. One more takes the place of whoever has most.
const ELSEWHERE: Shares = Shares { all: 128, each: 16 };
/// The same, from the machine or pod itself.
const OWN: Shares = Shares { all: 64, each: 64 };
/// How long a client may take to say what it wants; also between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last: a client that takes no answer holds no place for ever.
const LIFE: Duration = Duration::from_secs(60);
/// How long after a failed accept the next one is tried (no file descriptors left, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether the program takes requests. Clones share it; it starts as not ready, "starting".
#[derive(Clone, Debug)]
pub struct Readiness(watch::Sender<Result<(), String>>);

impl Readiness {
    /// Not ready yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(Err("starting".to_owned())))
    }
    /// Ready from now on.
    pub fn set_ready(&self) {
        let _ = self.0.send_replace(Ok(()));
    }
    /// Not ready from now on, and why.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        let _ = self.0.send_replace(Err(reason.into()));
    }
    /// Ready, or why not.
    ///
    /// # Errors
    /// The reason why not.
    pub fn get(&self) -> Result<(), String> {
        self.0.borrow().clone()
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

/// What a dump answers.
#[derive(Clone, Debug)]
pub struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Answer {
    /// Plain text, 200.
    #[must_use]
    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: "text/plain; charset=utf-8", body: body.into() }
    }
    /// A value as indented JSON, 200; 500 where it can't be written.
    #[must_use]
    pub fn json<T: Serialize>(value: &T) -> Self {
        match serde_json::to_vec_pretty(value) {
            Ok(body) => Self { status: StatusCode::OK, content_type: "application/json", body: body.into() },
            Err(error) => Self::text(format!("the dump can't be written: {error}\n"))
                .status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
    /// With another status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static(self.content_type));
        response
    }
}

type Handler = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// The dumps of a program, by path.
#[derive(Clone, Default)]
pub struct Routes(BTreeMap<&'static str, (&'static str, Handler)>);

impl Routes {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds `GET path`; `help` stands in the list that `/` gives. The handler gets the query (without `?`, not decoded); it is called
    /// in the task of the connection, so it must not block.
    #[must_use]
    pub fn get(
        mut self,
        path: &'static str,
        help: &'static str,
        handler: impl Fn(&str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.0.insert(path, (help, Arc::new(handler)));
        self
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Serves the admin port until the draining's deadline: it answers while the program drains, with `/readyz` as 503. It does not hold the drain up.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<metrics::Metrics>,
    readiness: Readiness,
    routes: Routes,
    stop: drain::Watch,
) {
    serve_to(listener, metrics, readiness, routes, stop, is_own).await;
}

/// Whether a client is on the machine, or in the pod, that it asks. Its own address does not say so: a gateway dials for others, too.
fn is_own(client: SocketAddr) -> bool {
    client.ip().to_canonical().is_loopback()
}

async fn serve_to(
    listener: TcpListener,
    metrics: Arc<metrics::Metrics>,
    readiness: Readiness,
    routes: Routes,
    stop: drain::Watch,
    is_own: fn(SocketAddr) -> bool,
) {
    let admin = Arc::new(Admin { metrics, readiness, routes, draining: stop.draining() });
    let ended = stop.ended();
    drop(stop);
    let (elsewhere, own) = (Places::new(ELSEWHERE), Places::new(OWN));
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    let from_here = is_own(client);
                    let places = if from_here { &own } else { &elsewhere };
                    let place = match places.take(&Source::of(client.ip())) {
                        Ok(place) => place,
                        Err(full) => {
                            tracing::debug!(client = %client, full = ?full, "no place at the admin port");
                            continue;
                        }
                    };
                    let admin = admin.clone();
                    let ended = ended.clone();
                    task::spawn("admin connection", async move {
                        ended.run_until_cancelled(admin.connection(stream, from_here, place)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the admin port could not accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    ended.run_until_cancelled(accept).await;
}

struct Admin {
    metrics: Arc<metrics::Metrics>,
    readiness: Readiness,
    routes: Routes,
    draining: tokio_util::sync::CancellationToken,
}

impl Admin {
    async fn connection(self: Arc<Self>, stream: TcpStream, from_here: bool, place: Place) {
        let service = service_fn(|request: Request<Incoming>| {
            let response = self.respond(&request, from_here).into_response();
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(16 * 1024)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = place.lost() => return,
            () = sleep(LIFE) => {
                connection.as_mut().graceful_shutdown();
                timeout(HEADER_TIMEOUT, connection.as_mut()).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            tracing::debug!(error = %error, "an admin connection ended early");
        }
    }

    fn respond<B>(&self, request: &Request<B>, from_here: bool) -> Answer {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Answer::text("only GET is known here\n").status(StatusCode::METHOD_NOT_ALLOWED);
        }
        match request.uri().path() {
            "/healthz" => Answer::text("ok\n"),
            "/readyz" => match self.readiness.get() {
                _ if self.draining.is_cancelled() => {
                    Answer::text("draining\n").status(StatusCode::SERVICE_UNAVAILABLE)
                }
                Ok(()) => Answer::text("ok\n"),
                Err(reason) => Answer::text(format!("{reason}\n")).status(StatusCode::SERVICE_UNAVAILABLE),
            },
            "/metrics" => Answer {
                status: StatusCode::OK,
                content_type: metrics::CONTENT_TYPE,
                body: self.metrics.encode().into(),
            },
            "/" => Answer::text(self.list()),
            other => match self.routes.0.get(other) {
                Some(_) if !from_here => Answer::text(
                    "dumps are for who is on this machine, or in this pod; in Kubernetes use kubectl port-forward\n",
                )
                .status(StatusCode::FORBIDDEN),
                Some((_, handler)) => handler(request.uri().query().unwrap_or_default()),
                None => Answer::text(format!("there is no {other} here; what there is:\n\n{}", self.list()))
                    .status(StatusCode::NOT_FOUND),
            },
        }
    }

    fn list(&self) -> String {
        let own = [
            ("/healthz", "whether the process lives"),
            ("/metrics", "metrics, in the OpenMetrics format"),
            ("/readyz", "whether it takes requests, or why not"),
        ];
        let dumps = self.routes.0.iter().map(|(path, (help, _))| (*path, *help));
        own.into_iter().chain(dumps).map(|(path, help)| format!("{path:<24} {help}\n")).collect()
    }
}

#[cfg(test)]
mod tests;
