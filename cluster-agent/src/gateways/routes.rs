//! The requests of a gateway, one function each.

use super::{
    advertise,
    authorize::authorize,
    caller::Caller,
    hub::{Hub, Refusal},
    permit::{Denied, permit},
    reading::{Kind, Reading},
    review::ReviewError,
    siblings,
    stream::Stream,
};
use crate::{capture::Chosen, certificate::Authority, index::View, lease::Standings, state::Membership};
use bytes::Bytes;
use futures::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use std::{convert::Infallible, fmt::Display, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tombolo_feed::State;
use tombolo_model::{
    GatewayRole, Generation, NamespaceName,
    snapshot::{ClusterResource, GatewayResource},
};
use tombolo_runtime::{drain::Watch, telemetry::chain};
use tombolo_wire::{
    codec::encode_line,
    message::{
        Ack, Digest, FeedLine, GatewayHello, GatewayStatus, GatewayWelcome, LeafRequest, ReplicaAnswer,
        ReplicaRequest,
    },
    problem::ProblemDetails,
    session::HEARTBEAT,
    version::{Hello, ProtocolVersion},
};

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the requests need.
#[derive(Clone, Debug)]
pub struct Context {
    /// The gateways.
    pub hub: Arc<Hub>,
    /// Signs for them.
    pub authority: Arc<Authority>,
    /// Whose agent this is.
    pub membership: Arc<Membership>,
    /// What runs in the cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// The controller's snapshot.
    pub snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    /// Whether this replica holds the Lease.
    pub standings: Standings,
    /// Reads what they send.
    pub reading: Reading,
    /// When the agent ends.
    pub stop: Watch,
}

/// How long another replica waits for news.
const NEWS: Duration = Duration::from_secs(2);
/// What comes within this goes together.
const TOGETHER: Duration = Duration::from_millis(20);

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A process of this machine, of the agent's user or of root.
    Process,
    /// A pod, as the API server knows it.
    Pod {
        /// Which.
        caller: Arc<Caller>,
        /// The agent's own namespace.
        own: NamespaceName,
    },
}

impl Peer {
    /// Whether it is another replica of this agent.
    fn is_replica(&self) -> bool {
        matches!(self, Self::Pod { caller, own }
            if caller.namespace == *own && caller.account.as_str() == siblings::ACCOUNT)
    }

    /// Which pod it is; empty for a process.
    pub(super) fn uid(&self) -> String {
        self.caller().map(|caller| caller.uid.clone()).unwrap_or_default()
    }

    /// Whom what it sends is counted for: a pod, or a gateway of this machine.
    fn name(&self, query: &Query) -> String {
        match self {
            Self::Process => query.instance.clone().unwrap_or_default(),
            Self::Pod { caller, .. } => caller.uid.clone(),
        }
    }

    fn caller(&self) -> Option<&Caller> {
        match self {
            Self::Process => None,
            Self::Pod { caller, .. } => Some(caller),
        }
    }

    /// What a gateway says of itself, as far as it may.
    fn permit(&self, mut hello: GatewayHello, view: &View) -> Result<GatewayHello, Problem> {
        match self {
            Self::Pod { caller, own } => Ok(permit(hello, caller, own, &view.pods)?),
            Self::Process if hello.role == GatewayRole::Node => {
                let detail =
                    "a node gateway says which node it is on with its pod's token; start it with --agent";
                Err(problem(StatusCode::UNPROCESSABLE_ENTITY, detail))
            }
            Self::Process => {
                (hello.node, hello.pod) = (None, None);
                Ok(hello)
            }
        }
    }
}

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
}

fn problem(status: StatusCode, detail: impl Display) -> Problem {
    Problem { status, detail: detail.to_string() }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Unknown => StatusCode::CONFLICT,
        };
        problem(status, refusal)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::NotKnown { .. } => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::FORBIDDEN,
        };
        problem(status, denied)
    }
}

impl From<ReviewError> for Problem {
    fn from(error: ReviewError) -> Self {
        let status = match error {
            ReviewError::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
            ReviewError::Nobody(_) | ReviewError::Token(_) => StatusCode::UNAUTHORIZED,
        };
        problem(status, error)
    }
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Display) -> Self {
        problem(status, detail)
    }

    /// One caller has more connections than it needs.
    pub(super) fn crowded() -> Self {
        let detail = "this pod has too many connections to the agent; it is told to come again";
        problem(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    /// Nobody says who asks.
    pub(super) fn no_token() -> Self {
        problem(StatusCode::UNAUTHORIZED, "there is no token; start the gateway with --agent-token-file")
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The caller is a stranger.
    pub(super) fn stranger(uid: u32, own: u32) -> Self {
        let detail = format!(
            "the agent takes gateways of its own user ({own}) and of root; this process runs as user {uid}"
        );
        problem(StatusCode::FORBIDDEN, detail)
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let details = ProblemDetails {
            status: self.status.as_u16(),
            title: self.status.canonical_reason().unwrap_or_default().to_owned(),
            detail: self.detail,
            ..ProblemDetails::default()
        };
        let mut response = json(&details);
        *response.status_mut() = self.status;
        let kind = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let mut response = Response::new(full(text));
            let kind = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            let mut response = Response::new(full(error.to_string()));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    }
}

fn empty() -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

impl Context {
    /// Answers a request.
    pub(super) async fn respond(self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        self.route(request, &peer).await.unwrap_or_else(|problem| {
            tracing::warn!(
                http.method = %method,
                http.path = path,
                http.status = problem.status.as_u16(),
                error = problem.detail,
                "a gateway's request is refused"
            );
            problem.into_response()
        })
    }

    async fn route(self, request: Request<Incoming>, peer: &Peer) -> Result<Response<Body>, Problem> {
        check_version(&request)?;
        let query = Query::of(request.uri().query());
        self.is_its_own(&query, peer)?;
        // who asks, and of which gateway, is known before a body is taken
        let caller = peer.name(&query);
        match (request.method(), request.uri().path()) {
            (&Method::POST, "/gateway/v1/hello") => {
                let hello = self.reading.read(request, &caller, Kind::Hello).await?;
                self.hello(hello, peer)
            }
            (&Method::GET, "/gateway/v1/feed") => self.feed(query),
            (&Method::POST, "/gateway/v1/ack") => {
                let instance = query.instance()?;
                self.hub.known(instance)?;
                let ack: Ack = self.reading.read(request, &caller, Kind::Ack).await?;
                self.hub.ack(instance, ack)?;
                Ok(empty())
            }
            (&Method::POST, "/gateway/v1/status") => {
                let instance = query.instance()?;
                let role = self.hub.known(instance)?.role;
                let status: GatewayStatus = self.reading.read(request, &caller, Kind::Status(role)).await?;
                self.hub.status(instance, status)?;
                Ok(empty())
            }
            (&Method::POST, "/gateway/v1/certificate") => {
                let instance = query.instance()?;
                self.hub.known(instance)?;
                let wanted = self.reading.read(request, &caller, Kind::Certificate).await?;
                self.certificate(instance, wanted, peer)
            }
            (&Method::POST, "/gateway/v1/replica") => {
                if !peer.is_replica() {
                    let detail = "only other replicas of this agent are told of its gateways";
                    return Err(problem(StatusCode::FORBIDDEN, detail));
                }
                let asked = self.reading.read(request, &caller, Kind::Replica).await?;
                self.replica(asked).await
            }
            (method, path) => {
                Err(problem(StatusCode::NOT_FOUND, format_args!("there is no {method} {path} here")))
            }
        }
    }

    /// Answers another replica: at once where there is news, else when there is, or after a while.
    async fn replica(&self, request: ReplicaRequest) -> Result<Response<Body>, Problem> {
        let (mut set, mut reports) = (self.hub.watch_set(), self.hub.watch_reports());
        let deadline = Instant::now() + NEWS;
        let mut over = false;
        loop {
            set.borrow_and_update();
            reports.borrow_and_update();
            let leads = self.standings.own().writes();
            if let Some(news) = self.hub.news(&request.process, request.since, leads) {
                return Ok(json(&news));
            }
            if over {
                let (process, stamp) = self.hub.stands();
                let hello = Hello::current("tombolo-agent");
                let (gateways, gone) = (Vec::new(), Default::default());
                let (whole, more) = (false, false);
                return Ok(json(&ReplicaAnswer {
                    hello,
                    process,
                    leads,
                    stamp,
                    whole,
                    more,
                    gateways,
                    gone,
                }));
            }
            tokio::select! {
                _ = set.changed() => sleep(TOGETHER).await,
                _ = reports.changed() => sleep(TOGETHER).await,
                () = sleep_until(deadline) => over = true,
                () = self.stop.signaled() => over = true,
            }
        }
    }

    /// A pod speaks of its own gateway alone; and what that said of itself, perhaps in an earlier pod of the name, must
    /// still hold.
    fn is_its_own(&self, query: &Query, peer: &Peer) -> Result<(), Problem> {
        let (Some(caller), Some(instance)) = (peer.caller(), &query.instance) else { return Ok(()) };
        let expected = caller.instance();
        if *instance != expected {
            return Err(Denied::Instance { expected, found: instance.clone() }.into());
        }
        match self.hub.known(instance) {
            Ok(hello) => peer.permit(hello, &self.view.borrow()).map(drop),
            // The request itself says so.
            Err(_) => Ok(()),
        }
    }

    fn hello(&self, hello: GatewayHello, peer: &Peer) -> Result<Response<Body>, Problem> {
        let (theirs, ours) = (hello.hello.protocol, ProtocolVersion::CURRENT);
        if !theirs.meets(ours) {
            return Err(too_far(theirs, ours));
        }
        check_instance(&hello.instance)?;
        let hello = peer.permit(hello, &self.view.borrow())?;
        check_tunnel(&hello)?;
        advertise::check(&hello.advertise, advertise::is_loopback(&self.membership.controller))
            .map_err(|detail| problem(StatusCode::UNPROCESSABLE_ENTITY, detail))?;
        tracing::info!(
            gateway.instance = hello.instance,
            gateway.role = %hello.role,
            gateway.software = hello.hello.software,
            gateway.tunnel = %hello.tunnel,
            "a gateway says hello"
        );
        self.hub.hello(hello)?;
        Ok(json(&GatewayWelcome {
            hello: Hello::current("tombolo-agent"),
            cluster: self.membership.cluster.clone(),
            trust_domain: self.membership.trust_domain.clone(),
        }))
    }

    fn certificate(
        &self,
        instance: &str,
        request: LeafRequest,
        peer: &Peer,
    ) -> Result<Response<Body>, Problem> {
        let hello = self.hub.known(instance)?;
        let identity = &request.identity;
        let chosen = Chosen::of(&self.snapshot.borrow().resources);
        authorize(&hello, peer.caller(), identity, &self.membership, &self.view.borrow(), &chosen)
            .map_err(|forbidden| problem(StatusCode::FORBIDDEN, forbidden))?;
        let leaf = self
            .authority
            .issue(&request.csr, identity)
            .map_err(|error| problem(StatusCode::UNPROCESSABLE_ENTITY, chain(&error)))?;
        tracing::info!(
            gateway.instance = instance,
            certificate.identity = %identity,
            certificate.not_after_s = leaf.not_after_s,
            "a certificate is issued"
        );
        Ok(json(&leaf))
    }

    fn feed(self, query: Query) -> Result<Response<Body>, Problem> {
        let (stream, lines) = self.hub.open(query.instance()?, query.resume()?)?;
        let mut first = vec![FeedLine::Hello(Hello::current("tombolo-agent"))];
        first.extend(lines);
        let feed = Feed { first: first.into_iter(), stream: Some(stream), stop: self.stop };
        let frames = stream::unfold(feed, |mut feed| async move {
            let bytes = feed.next().await?;
            Some((Ok(Frame::data(bytes)), feed))
        });
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        let kind = header::HeaderValue::from_static("application/x-ndjson");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    }
}

/// A feed that is being sent.
struct Feed {
    first: std::vec::IntoIter<FeedLine<GatewayResource>>,
    /// None after the last line.
    stream: Option<Stream>,
    stop: Watch,
}

impl Feed {
    async fn next(&mut self) -> Option<Bytes> {
        let line = match self.first.next() {
            Some(line) => line,
            None => {
                let stream = self.stream.as_mut()?;
                let next = tokio::select! {
                    biased;
                    () = self.stop.signaled() => Err("the agent is ending"),
                    next = stream.next(HEARTBEAT) => next.ok_or("another connection took this one's place"),
                };
                next.unwrap_or_else(|reason| {
                    self.stream = None;
                    FeedLine::Goodbye { reason: reason.to_owned() }
                })
            }
        };
        encode_line(&line)
            .inspect_err(|error| tracing::error!(error = %error, "a feed line can't be written"))
            .ok()
            .map(Bytes::from)
    }
}

fn check_version(request: &Request<Incoming>) -> Result<(), Problem> {
    let Some(header) = request.headers().get(tombolo_feed::request::PROTOCOL_HEADER) else {
        return Err(problem(StatusCode::BAD_REQUEST, "the header tombolo-protocol is missing; send 1.0"));
    };
    let version = header.to_str().ok().and_then(|text| {
        let (major, minor) = text.split_once('.')?;
        Some(ProtocolVersion { major: major.parse().ok()?, minor: minor.parse().ok()? })
    });
    match version {
        Some(version) if version.meets(ProtocolVersion::CURRENT) => Ok(()),
        Some(version) => Err(too_far(version, ProtocolVersion::CURRENT)),
        None => Err(problem(StatusCode::BAD_REQUEST, "the header tombolo-protocol is not MAJOR.MINOR")),
    }
}

/// More minor versions apart than may be.
fn too_far(theirs: ProtocolVersion, ours: ProtocolVersion) -> Problem {
    let older = if theirs < ours { "gateway" } else { "agent" };
    let detail = format!("the gateway speaks {theirs}, the agent {ours}; upgrade the {older} first");
    problem(StatusCode::UPGRADE_REQUIRED, detail)
}

/// A name of a process goes into paths, logs and dumps, so it is plain. In Kubernetes it is a pod's, with its namespace.
fn check_instance(instance: &str) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if instance.is_empty() || instance.len() > 320 || !instance.bytes().all(plain) {
        let detail = "instance: use 1 to 320 letters, digits, dots, hyphens and underscores";
        return Err(problem(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    Ok(())
}

/// Sidecars and egress gateways are dialled at the address they listen on; an ingress gateway at what it advertises.
fn check_tunnel(hello: &GatewayHello) -> Result<(), Problem> {
    if hello.role == GatewayRole::Ingress || !hello.tunnel.ip().is_unspecified() {
        return Ok(());
    }
    let detail = format!(
        "tunnel: {} can't be dialled; give --tunnel the address that this cluster's gateways reach it at",
        hello.tunnel
    );
    Err(problem(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

/// The query of a request. Unknown parts are passed over: a newer gateway may send more.
#[derive(Debug, Default)]
struct Query {
    instance: Option<String>,
    generation: Option<String>,
    digest: Option<String>,
}

impl Query {
    fn of(query: Option<&str>) -> Self {
        let mut all = Self::default();
        for (key, value) in query.unwrap_or_default().split('&').filter_map(|part| part.split_once('=')) {
            let place = match key {
                "instance" => &mut all.instance,
                "generation" => &mut all.generation,
                "digest" => &mut all.digest,
                _ => continue,
            };
            *place = Some(value.to_owned());
        }
        all
    }

    fn instance(&self) -> Result<&str, Problem> {
        self.instance
            .as_deref()
            .ok_or_else(|| problem(StatusCode::BAD_REQUEST, "instance is missing in the query"))
    }

    /// What the gateway has; both or none.
    fn resume(&self) -> Result<Option<(Generation, Digest)>, Problem> {
        match (&self.generation, &self.digest) {
            (None, None) => Ok(None),
            (Some(generation), Some(digest)) => {
                let number = generation.parse().map_err(|_| {
                    problem(
                        StatusCode::BAD_REQUEST,
                        format_args!("generation: {generation:?} is not a number"),
                    )
                })?;
                Ok(Some((Generation::new(number), Digest(digest.clone()))))
            }
            _ => Err(problem(StatusCode::BAD_REQUEST, "generation and digest go together")),
        }
    }
}
