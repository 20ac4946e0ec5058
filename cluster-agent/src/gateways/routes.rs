//! The requests of a gateway, one function each.

use super::{
    advertise,
    answer::{Body, empty, json},
    authorize::authorize,
    check::{check_instance, check_tunnel, check_version, too_far},
    feed::Feed,
    hub::Hub,
    peer::Peer,
    permit::Denied,
    problem::{Problem, problem},
    query::Query,
    reading::{Kind, Reading},
};
use crate::{capture::Chosen, certificate::Authority, index::View, lease::Standings, state::Membership};
use futures::stream;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tombolo_feed::State;
use tombolo_model::snapshot::ClusterResource;
use tombolo_runtime::{drain::Watch, telemetry::chain};
use tombolo_wire::{
    message::{
        Ack, FeedLine, GatewayHello, GatewayStatus, GatewayWelcome, LeafRequest, ReplicaAnswer,
        ReplicaRequest,
    },
    version::{Hello, ProtocolVersion},
};

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
impl Context {
    /// Answers a request.
    pub(super) async fn respond(self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        self.route(request, &peer).await.unwrap_or_else(|problem| {
            tracing::warn!(
                http.method = %method,
                http.path = path,
                http.status = problem.status.as_u16(),
                error = problem.detail(),
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
