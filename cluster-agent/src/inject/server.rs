//! HTTPS for the API server: one path, one kind of question.

use super::{
    Settings,
    asked::Asked,
    certificate::HttpsCertificate,
    configuration::PATH,
    review::{Namespace, Outcome, review},
};
use crate::index::View;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use rustls::ServerConfig;
use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tombolo_model::{
    NamespaceName,
    intent::{CaptureMode, Labels},
};
use tombolo_mtls::{accept_optional, https_server_config};
use tombolo_runtime::{
    bodies::{Bodies, Bounds, Unread},
    drain::Watch,
    metrics::Metrics,
    places::{Place, Places, Shares, Source},
    task,
    telemetry::chain,
};

/// The API server gives up after 5 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time. An API server has one for each pod that it asks about at the same time, and all of them may come from one
/// address; those with a question under way are taken from nobody.
const PLACES: Shares = Shares { all: 512, each: 512 };
/// How long a place is waited for, where none is free.
const WAIT: Duration = Duration::from_secs(1);
/// Connections that wait for a place at a time.
const WAITING: usize = 256;
/// A pod has at most 1.5 MiB in etcd, and the question says it twice at most.
const MAX_BODY: usize = 4 << 20;
/// All questions that are being read: the agent has little memory, and anybody in the cluster may ask.
const BODIES: Bounds = Bounds { all: 16 << 20, each: 8 << 20, bodies: Shares { all: 32, each: 8 } };
/// How long one may take to come: well within what the API server waits.
const BODY: Duration = Duration::from_secs(2);
/// How long a connection that never asked may be silent: clients open some ahead.
const UNUSED: Duration = Duration::from_secs(60);
/// How long a connection that asked once may be silent: the API server closes its own after 90 s.
const IDLE: Duration = Duration::from_secs(120);
/// How long after a failed accept the next one is tried (no file descriptors left, as a rule).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the answers are made of.
#[derive(Clone, Debug)]
pub struct Knowledge {
    /// What goes into a pod; none before the controller's first snapshot.
    pub settings: watch::Receiver<Option<Arc<Settings>>>,
    /// The namespaces.
    pub view: watch::Receiver<Arc<View>>,
    /// Which of them have which mode; none before that is known.
    pub asked: watch::Receiver<Option<Arc<Asked>>>,
}

impl Knowledge {
    /// What is known of a namespace. Of one that the agent has not seen yet nothing, and then the API server asks because of what it
    /// knows itself; but one that takes no part gets nothing.
    pub(super) fn namespace(&self, name: &NamespaceName) -> Option<Namespace> {
        let labels = self.view.borrow().namespaces.get(name).cloned();
        let asked = self.asked.borrow().clone();
        let Some(labels) = labels else {
            let apart = asked.is_some_and(|asked| !asked.chosen.takes_part(name));
            return apart.then(|| Namespace { labels: Labels::new(), wanted: false });
        };
        let wanted = asked.is_none_or(|asked| asked.chosen.mode(name, &labels) == CaptureMode::Sidecar);
        Some(Namespace { labels, wanted })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Became {
    outcome: &'static str,
}

/// The bound port.
#[derive(Debug)]
pub struct Webhook {
    listener: TcpListener,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    knowledge: Knowledge,
    pods: Family<Became, Counter>,
}

impl Webhook {
    /// Binds the port.
    ///
    /// # Errors
    /// As bind(2).
    pub async fn bind(
        address: SocketAddr,
        certificate: &HttpsCertificate,
        knowledge: Knowledge,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let tls = https_server_config(Arc::new(certificate.live()), &[b"http/1.1"]);
        let pods = metrics.register("webhook_pods", "Pods that were asked about", Family::default());
        Ok(Self { listener, address, tls, knowledge, pods })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until the draining.
    pub async fn run(self, stop: Watch) {
        let places = Places::new(PLACES);
        let Self { listener, tls, knowledge, pods, .. } = self;
        let answering = Answering { knowledge, pods, bodies: Bodies::new(BODIES) };
        let waiting = Arc::new(Semaphore::new(WAITING));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.signaled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, client)) => {
                    let Ok(waits) = Arc::clone(&waiting).try_acquire_owned() else { continue };
                    let (tls, answering, stop) = (tls.clone(), answering.clone(), stop.clone());
                    let (places, source) = (places.clone(), Source::of(client.ip()));
                    task::spawn("webhook connection", async move {
                        let place = places.take_within(&source, WAIT).await;
                        drop(waits);
                        match place {
                            Ok(place) => answering.serve(stream, source, place, tls, stop).await,
                            Err(full) => {
                                tracing::debug!(client = %client, full = ?full, "no place at the webhook");
                            }
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the webhook could not accept a connection; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[derive(Clone)]
struct Answering {
    knowledge: Knowledge,
    pods: Family<Became, Counter>,
    bodies: Bodies<Source>,
}

impl Answering {
    async fn serve(
        self,
        stream: TcpStream,
        source: Source,
        place: Place,
        tls: Arc<ServerConfig>,
        stop: Watch,
    ) {
        let accepted = tokio::select! {
            accepted = timeout(PATIENCE, accept_optional(stream, tls)) => accepted,
            () = place.lost() => return,
        };
        let stream = match accepted {
            Ok(Ok((stream, _))) => stream,
            Ok(Err(error)) => {
                let error = chain(&error);
                return tracing::debug!(error, "a handshake of the API server failed");
            }
            Err(_) => return tracing::debug!("the API server did not finish its handshake"),
        };
        let asked = CancellationToken::new();
        let first = asked.clone();
        let place = Arc::new(place);
        let held = Arc::clone(&place);
        let service = service_fn(move |request| {
            first.cancel();
            let (this, busy) = (self.clone(), held.busy());
            async move {
                let answer = this.respond(request, source).await;
                drop(busy);
                Ok::<_, Infallible>(answer)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        // who asks nothing, or more than others, does not keep a place
        let given_up = async {
            tokio::select! {
                () = asked.cancelled() => place.lost().await,
                () = place.lost() => {}
                () = sleep(UNUSED) => {}
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = given_up => Ok(()),
            () = stop.signaled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = stop.cut() => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error = %error, "a connection of the API server ended early");
        }
    }

    async fn respond(&self, request: Request<Incoming>, source: Source) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, format!("there is only {PATH} here\n"));
        }
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only POST is known here\n");
        }
        if self.knowledge.asked.borrow().is_none() {
            // what becomes of the pod, the failure policy says
            return plain(StatusCode::SERVICE_UNAVAILABLE, "the agent does not know yet what is asked for\n");
        }
        let (head, body) = request.into_parts();
        let body = match self.bodies.read(&source, &head.headers, body, MAX_BODY, BODY).await {
            Ok(body) => body,
            Err(unread) => {
                let status = match unread {
                    Unread::TooLong(_) | Unread::Broken => StatusCode::PAYLOAD_TOO_LARGE,
                    Unread::Late => StatusCode::SERVICE_UNAVAILABLE,
                };
                return plain(status, format!("{unread}\n"));
            }
        };
        let settings = self.knowledge.settings.borrow().clone();
        match review(&body, |name| self.knowledge.namespace(name), settings.as_deref()) {
            Ok((answer, outcome)) => {
                self.pods.get_or_create(&Became { outcome: outcome.reason() }).inc();
                if let Outcome::Left(left) = &outcome {
                    tracing::info!(pod.left = %left, "a pod gets no proxy");
                }
                let mut response = Response::new(Full::new(answer.to_string().into()));
                let kind = header::HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Err(error) => {
                tracing::warn!(error = %error, "a question of the API server makes no sense");
                plain(StatusCode::BAD_REQUEST, format!("{error}\n"))
            }
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests;
