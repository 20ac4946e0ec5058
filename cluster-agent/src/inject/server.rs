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
use http_body_util::{BodyExt, Full, Limited};
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
use tombolo_model::{
    NamespaceName,
    intent::{CaptureMode, Labels},
};
use tombolo_mtls::{accept_optional, https_server_config};
use tombolo_runtime::{drain::Watch, metrics::Metrics, task, telemetry::chain};

/// The API server gives up after 5 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at a time; more wait in the listener's queue.
const MOST: usize = 256;
/// A pod has at most 1.5 MiB in etcd, and the question says it twice at most.
const MAX_BODY: usize = 4 << 20;
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
        let places = Arc::new(Semaphore::new(MOST));
        let Self { listener, tls, knowledge, pods, .. } = self;
        let answering = Answering { knowledge, pods };
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.signaled() => break,
                accepted = async {
                    let place = places.clone().acquire_owned().await;
                    (listener.accept().await, place)
                } => accepted,
            };
            match accepted {
                (Ok((stream, _)), place) => {
                    let (tls, answering, stop) = (tls.clone(), answering.clone(), stop.clone());
                    task::spawn("webhook connection", async move {
                        let _place = place;
                        answering.serve(stream, tls, stop).await;
                    });
                }
                (Err(error), _) => {
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
}

impl Answering {
    async fn serve(self, stream: TcpStream, tls: Arc<ServerConfig>, stop: Watch) {
        let stream = match timeout(PATIENCE, accept_optional(stream, tls)).await {
            Ok(Ok((stream, _))) => stream,
            Ok(Err(error)) => {
                let error = chain(&error);
                return tracing::debug!(error, "a handshake of the API server failed");
            }
            Err(_) => return tracing::debug!("the API server did not finish its handshake"),
        };
        let service = service_fn(move |request| {
            let this = self.clone();
            async move { Ok::<_, Infallible>(this.respond(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(120))
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
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

    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, format!("there is only {PATH} here\n"));
        }
        if request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only POST is known here\n");
        }
        let body = match timeout(PATIENCE, Limited::new(request.into_body(), MAX_BODY).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or broke off\n");
            }
            Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"),
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
