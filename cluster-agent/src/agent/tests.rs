//! The whole agent in process: true sockets, TLS, DNS and files; the controller is scripted.

mod torn;

use super::*;
use crate::{
    dns::{self, ForwardTo},
    gateways::HubConfig,
    health::HealthConfig,
    join::{JoinConfig, JoinError, join},
    state::StateError,
    vip::AddressMode,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tombolo_model::{
    ClusterName, Domain, Generation, Locality, Proximity, SpiffeId, TrustDomain,
    inventory::{PortSpec, Protocol, ServiceKey},
    snapshot::{
        ClusterResource, DomainSpec, EndToEnd, NameKind, NameSpec, Resource, Resources, SelfSpec, TargetSpec,
        Vip,
    },
};
use tombolo_mtls::{
    BundleLookup, LiveServerCertificate, Peer, ServerAuthority, TrustBundle, accept_optional,
    certificate_info, format_pin, optional_server_config,
};
use tombolo_runtime::{drain::Drained, task};
use tombolo_testkit::{
    ca::{Organization, valid},
    wait::until,
};
use tombolo_wire::{
    codec::encode_line,
    message::{
        AgentStatus, Digest, FeedLine, IntermediateRequest, IntermediateResponse, InventoryAck,
        InventoryUpdate, JoinRequest, JoinResponse,
    },
    problem::{FieldProblem, ProblemDetails},
    session::Publisher,
    version::Hello,
};

const SOON: Duration = Duration::from_secs(20);
const TOKEN: &str = "tmj_good";

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What the controller knows and was told.
#[derive(Default)]
struct Told {
    token_used: bool,
    inventories: Vec<InventoryUpdate>,
    statuses: Vec<AgentStatus>,
    peers: Vec<Option<Peer>>,
    /// Answers 409 to so many inventories.
    conflicts: usize,
    /// Gives intermediates that are past the half of their life.
    old: bool,
    /// What the next feeds say, each to its end, in place of what is so.
    scripts: VecDeque<Vec<u8>>,
    /// What agents said that they have when they asked for a feed.
    resumed: Vec<Option<Generation>>,
}

struct Controller {
    organization: Arc<Bundles>,
    publisher: Mutex<Publisher<ClusterResource>>,
    wake: watch::Sender<u64>,
    told: Mutex<Told>,
    pin: String,
    address: SocketAddr,
}

struct Bundles(Mutex<Organization>);
impl std::fmt::Debug for Bundles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bundles")
    }
}
impl BundleLookup for Bundles {
    fn bundle(&self, _of: &TrustDomain) -> Option<Arc<TrustBundle>> {
        Some(Arc::new(lock(&self.0).bundle()))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer<T: serde::Serialize>(status: u16, value: &T) -> Response<Body> {
    let body = Full::new(Bytes::from(serde_json::to_vec(value).unwrap())).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

impl Controller {
    async fn start(address: SocketAddr, organization: Organization) -> (Arc<Self>, Stop) {
        let authority = ServerAuthority::create(valid()).unwrap();
        let (chain, key) = authority.issue(&["127.0.0.1".to_owned()], valid()).unwrap();
        let certificate = LiveServerCertificate::new(&chain, &key).unwrap();
        let organization = Arc::new(Bundles(Mutex::new(organization)));
        let config = optional_server_config(organization.clone(), Arc::new(certificate), &[b"h2"]);
        let listener = TcpListener::bind(address).await.unwrap();
        let this = Arc::new(Self {
            organization,
            publisher: Mutex::new(Publisher::new(16)),
            wake: watch::Sender::new(0),
            told: Mutex::default(),
            pin: format_pin(&authority.fingerprint()),
            address: listener.local_addr().unwrap(),
        });
        let controller = Arc::clone(&this);
        let stop = tokio_util::sync::CancellationToken::new();
        let stopped = stop.clone();
        let accept = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (controller, config) = (Arc::clone(&controller), Arc::clone(&config));
                let stopped = stopped.clone();
                task::spawn("connection", async move {
                    let Ok((stream, peer)) = accept_optional(stream, config).await else { return };
                    let service = service_fn(move |request| {
                        let (controller, peer) = (Arc::clone(&controller), peer.clone());
                        async move { Ok::<_, Infallible>(controller.respond(request, peer).await) }
                    });
                    let serve = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service);
                    let _ = stopped.run_until_cancelled(serve).await;
                });
            }
        };
        let token = stop.clone();
        task::spawn("controller", async move { token.run_until_cancelled(accept).await });
        (this, Stop(stop))
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>, peer: Option<Peer>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let resume = request.uri().query().map(|query| {
            let parts: BTreeMap<_, _> = query.split('&').filter_map(|part| part.split_once('=')).collect();
            (Generation::new(parts["generation"].parse().unwrap()), Digest(parts["digest"].to_owned()))
        });
        let bearer = request.headers().get("authorization").and_then(|v| v.to_str().ok()).map(str::to_owned);
        if path != "/agent/v1/join" {
            if peer.is_none() {
                return answer(
                    401,
                    &ProblemDetails { detail: "no certificate".into(), ..Default::default() },
                );
            }
            lock(&self.told).peers.push(peer);
        }
        if path == "/agent/v1/feed" {
            return self.feed(resume);
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        match path.as_str() {
            "/agent/v1/join" => self.join(bearer.as_deref(), &serde_json::from_slice(&body).unwrap()),
            "/agent/v1/inventory" => {
                let update: InventoryUpdate = serde_json::from_slice(&body).unwrap();
                let mut told = lock(&self.told);
                if told.conflicts > 0 {
                    told.conflicts -= 1;
                    return answer(409, &ProblemDetails::default());
                }
                let sequence = update.sequence;
                told.inventories.push(update);
                answer(200, &InventoryAck { sequence })
            }
            "/agent/v1/status" => {
                lock(&self.told).statuses.push(serde_json::from_slice(&body).unwrap());
                answer(204, &())
            }
            "/agent/v1/certificate" => {
                let request: IntermediateRequest = serde_json::from_slice(&body).unwrap();
                let mut organization = lock(&self.organization.0);
                let id = SpiffeId::cluster(&organization.trust_domain, &"cluster-1".parse().unwrap());
                let intermediate = organization.root().sign_intermediate(&request.csr, &id, valid()).unwrap();
                organization.list(&id.cluster, certificate_info(&intermediate).unwrap().fingerprint);
                answer(200, &IntermediateResponse { intermediate })
            }
            _ => answer(204, &()),
        }
    }

    fn join(&self, bearer: Option<&str>, request: &JoinRequest) -> Response<Body> {
        let mut told = lock(&self.told);
        if bearer != Some("Bearer tmj_good") || told.token_used {
            let field = FieldProblem {
                field: "token".into(),
                message: "was used".into(),
                remedy: "make a new one".into(),
            };
            let problem = ProblemDetails {
                detail: "The token is no good.".into(),
                errors: vec![field],
                ..ProblemDetails::default()
            };
            return answer(401, &problem);
        }
        told.token_used = true;
        let mut organization = lock(&self.organization.0);
        let id = SpiffeId::cluster(&organization.trust_domain, &request.cluster);
        let mut validity = valid();
        if told.old {
            validity.not_after = validity.not_before + Duration::from_secs(6000);
        }
        let intermediate = organization.root().sign_intermediate(&request.csr, &id, validity).unwrap();
        let print = certificate_info(&intermediate).unwrap().fingerprint;
        organization.list(&request.cluster, print);
        let response = JoinResponse {
            hello: Hello::current("tombolo-controller"),
            organization: "acme".parse().unwrap(),
            trust_domain: organization.trust_domain.clone(),
            cluster: request.cluster.clone(),
            intermediate,
            bundle: organization.bundle_spec(),
        };
        answer(200, &response)
    }

    fn feed(self: Arc<Self>, resume: Option<(Generation, Digest)>) -> Response<Body> {
        {
            let mut told = lock(&self.told);
            told.resumed.push(resume.as_ref().map(|(generation, _)| *generation));
            if let Some(script) = told.scripts.pop_front() {
                return Response::new(Full::new(Bytes::from(script)).boxed_unsync());
            }
        }
        let mut first = vec![FeedLine::Hello(Hello::current("tombolo-controller"))];
        let (sent, wake) = {
            let publisher = lock(&self.publisher);
            first.extend(publisher.open(resume));
            (publisher.generation(), self.wake.subscribe())
        };
        let state = (first.into_iter(), sent, wake, self);
        let lines = futures::stream::unfold(state, |(mut first, mut sent, mut wake, this)| async move {
            let line = match first.next() {
                Some(line) => line,
                None => loop {
                    let beat = tokio::time::timeout(Duration::from_secs(1), wake.changed()).await.is_err();
                    let publisher = lock(&this.publisher);
                    let line = if beat { Some(publisher.beat(sent)) } else { publisher.since(sent) };
                    sent = publisher.generation();
                    if let Some(line) = line {
                        break line;
                    }
                },
            };
            let bytes = Bytes::from(encode_line(&line).unwrap());
            Some((Ok::<_, Infallible>(Frame::data(bytes)), (first, sent, wake, this)))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }

    /// Publishes a snapshot with one name, `catalog.acme.example.com`, served by `cluster-1` itself.
    fn publish(&self, generation: u64) {
        lock(&self.publisher).publish(Generation::new(generation), self.resources());
        self.wake.send_modify(|count| *count += 1);
    }

    /// What is in that snapshot.
    fn resources(&self) -> Resources<ClusterResource> {
        let organization = lock(&self.organization.0);
        let cluster: ClusterName = "cluster-1".parse().unwrap();
        let domain: Domain = "acme.example.com".parse().unwrap();
        let target = TargetSpec {
            cluster: cluster.clone(),
            proximity: Proximity::Cluster,
            services: [ServiceKey::try_from("default/catalog".to_owned()).unwrap()].into(),
            ports: [8082].into(),
            ready: 1,
            end_to_end: EndToEnd::None,
            accounts: [("default".parse().unwrap(), "catalog".parse().unwrap())].into(),
        };
        let port = PortSpec { port: 8082, protocol: Protocol::Tcp, name: None, app_protocol: None };
        [
            ClusterResource::Itself(
                SelfSpec {
                    cluster: cluster.clone(),
                    trust_domain: organization.trust_domain.clone(),
                    locality: Locality::default(),
                }
                .into(),
            ),
            ClusterResource::Bundle(organization.bundle_spec().into()),
            ClusterResource::Domain(
                DomainSpec {
                    domain: domain.clone(),
                    gns: "acme".parse().unwrap(),
                    members: [cluster].into(),
                }
                .into(),
            ),
            ClusterResource::Name(
                NameSpec {
                    name: "catalog.acme.example.com".parse().unwrap(),
                    domain,
                    kind: NameKind::Service,
                    pod: None,
                    vip: Vip { v4: [240, 0, 0, 9].into(), v6: "fd74:6f6d:6265:6c6f::9".parse().unwrap() },
                    headless: false,
                    ports: vec![port].into(),
                    targets: vec![target],
                }
                .into(),
            ),
        ]
        .into_iter()
        .map(|resource| (resource.key(), resource))
        .collect()
    }
}

/// Ends the controller, its connections too, when dropped.
struct Stop(tokio_util::sync::CancellationToken);
impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

fn join_config(controller: &Controller, data: &Path) -> JoinConfig {
    JoinConfig {
        controller: format!("https://{}", controller.address),
        ca_fingerprint: controller.pin.clone(),
        cluster: "cluster-1".parse().unwrap(),
        data: data.to_owned(),
        locality: Locality::default(),
        nodes: Locality::default(),
    }
}

fn config(dir: &Path) -> Config {
    Config {
        pace: crate::certificate::Pace::default(),
        data: dir.join("data"),
        source: SourceConfig::Manifests(dir.join("manifests")),
        dns: Some(dns::Config::new(LOOPBACK, ForwardTo::Refuse)),
        gateway_socket: Some(dir.join("run/agent.sock")),
        gateway_listen: None,
        registries: Default::default(),
        never_dial: Default::default(),
        mode: AddressMode::Explicit("127.101.0.0/16".parse().unwrap()),
        admin: Some(LOOPBACK),
        health: HealthConfig::default(),
        hub: HubConfig::default(),
    }
}

/// A running agent.
struct Agent {
    dns: SocketAddr,
    admin: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Ended>,
}

impl Agent {
    async fn start(dir: &Path) -> Self {
        let bound = build(config(dir), Deps::default()).await.unwrap();
        let (dns, admin) = (bound.dns.unwrap(), bound.admin.unwrap());
        let (stop, stopped) = oneshot::channel();
        let ended = task::spawn("agent", bound.run(async { drop(stopped.await) }, SOON));
        Self { dns, admin, stop, ended }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.ended.await.unwrap(), Ended::Stopped(Drained::All));
    }

    /// The A record of the name, if there is one.
    async fn ask(&self, name: &str) -> Option<IpAddr> {
        use hickory_proto::{
            op::{Message, MessageType, OpCode, Query},
            rr::{Name, RData, RecordType},
        };
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), RecordType::A));
        let socket = tokio::net::UdpSocket::bind(LOOPBACK).await.unwrap();
        socket.send_to(&message.to_vec().unwrap(), self.dns).await.unwrap();
        let mut packet = [0; 1500];
        let n = tokio::time::timeout(SOON, socket.recv(&mut packet)).await.unwrap().unwrap();
        let answer = Message::from_vec(&packet[..n]).unwrap();
        answer.answers.iter().find_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            _ => None,
        })
    }

    async fn get(&self, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}

fn manifest(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: catalog}}\nspec: {{ports: [{{port: 8082}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: catalog-1, labels: \
         {{kubernetes.io/service-name: catalog}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\n\
         endpoints: [{{addresses: [127.0.0.1]}}]\n"
    )
}

fn ready_counts(told: &Told) -> Vec<u32> {
    told.inventories.iter().flat_map(|update| update.services.values().map(|record| record.ready)).collect()
}

#[tokio::test]
async fn joins_runs_and_outlives_its_controller() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(dir.path().join("manifests")).unwrap();
    let (controller, controller_runs) = Controller::start(LOOPBACK, Organization::new("acme.internal")).await;

    // What does not join.
    let good = join_config(&controller, &data);
    let error = join(&good, "tmj_bad").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the controller refuses: The token is no good.; token: was used (make a new one)"
    );
    let stranger = JoinConfig { ca_fingerprint: format!("sha256:{}", "00".repeat(32)), ..good.clone() };
    assert!(matches!(join(&stranger, TOKEN).await, Err(JoinError::Ask { .. })));
    assert!(!lock(&controller.told).token_used, "a stranger does not learn the token");
    assert!(matches!(build(config(dir.path()), Deps::default()).await, Err(BuildError::State(_))));

    // Joins; the endpoint is up; the controller lacks the first update's base once.
    let membership = join(&good, &format!("{TOKEN}\n")).await.unwrap();
    assert_eq!(membership.cluster_id().to_string(), "spiffe://acme.internal/cluster/cluster-1");
    assert!(matches!(join(&good, TOKEN).await, Err(JoinError::Refused(_))), "one use");
    let app = TcpListener::bind(LOOPBACK).await.unwrap();
    let port = app.local_addr().unwrap().port();
    fs::write(dir.path().join("manifests/shop.yaml"), manifest(port)).unwrap();
    fs::write(dir.path().join("manifests/typo.yaml"), "apiVersion: v1\nkind: Servise\n").unwrap();
    lock(&controller.told).conflicts = 1;
    controller.publish(3);
    let agent = Agent::start(dir.path()).await;
    until(
        "reported whole, and ready",
        SOON,
        || async { ready_counts(&lock(&controller.told)) },
        |r| *r == [1],
    )
    .await;
    {
        let told = lock(&controller.told);
        assert!(told.inventories[0].whole && told.inventories[0].sequence == 2);
        let peer = told.peers[0].as_ref().unwrap();
        assert_eq!(peer.id.to_string(), "spiffe://acme.internal/cluster/cluster-1/agent");
    }
    let problems = || async {
        let told = lock(&controller.told);
        told.statuses.last().map(|s| s.problems.iter().map(|p| p.subject.clone()).collect::<Vec<_>>())
    };
    until("the bad file is named", SOON, problems, |p| p.as_deref() == Some(&["typo.yaml:1".to_owned()]))
        .await;
    until(
        "the name is answered",
        SOON,
        || agent.ask("catalog.acme.example.com"),
        |a| *a == Some([127, 101, 0, 9].into()),
    )
    .await;
    let applied = || async { lock(&controller.told).statuses.last().map(|status| status.generation) };
    until("the generation is reported", SOON, applied, |g| *g == Some(Generation::new(3))).await;
    assert!(agent.get("/metrics").await.contains("tombolo_agent_snapshot_generation 3"));
    assert!(agent.get("/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(agent.get("/dump").await.contains("\"connected\": true"));

    // The controller is gone. The endpoint dies, and a second agent on the directory is refused.
    drop(controller_runs);
    drop(app);
    until(
        "the endpoint fails here",
        SOON,
        || agent.get("/metrics"),
        |text| {
            text.contains("tombolo_agent_endpoints_failing 1")
                && text.contains("tombolo_agent_controller_connected 0")
        },
    )
    .await;
    assert_eq!(agent.ask("catalog.acme.example.com").await, Some([127, 101, 0, 9].into()));
    let second = build(config(dir.path()), Deps::default()).await;
    assert!(matches!(second, Err(BuildError::State(StateError::InUse { .. }))));
    agent.stop().await;

    // It starts again, without a controller, and answers from what it kept.
    let agent = Agent::start(dir.path()).await;
    assert_eq!(agent.ask("catalog.acme.example.com").await, Some([127, 101, 0, 9].into()));
    assert!(agent.get("/dump").await.contains("\"from_cache\": true"));
    agent.stop().await;
    assert!(!dir.path().join("run/agent.sock").exists());
}

#[tokio::test]
async fn a_snapshot_of_another_cluster_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    let (controller, _runs) = Controller::start(LOOPBACK, Organization::new("acme.internal")).await;
    let mut config = join_config(&controller, &dir.path().join("data"));
    config.cluster = "cluster-9".parse().unwrap();
    join(&config, TOKEN).await.unwrap();
    controller.publish(3);
    let agent = Agent::start(dir.path()).await;
    until(
        "refused",
        SOON,
        || agent.get("/dump"),
        |text| text.contains("of cluster cluster-1, not cluster-9"),
    )
    .await;
    assert_eq!(agent.ask("catalog.acme.example.com").await, None);
    assert!(agent.get("/readyz").await.contains("no snapshot from the controller yet"));
    agent.stop().await;
}

#[tokio::test]
async fn an_intermediate_past_half_of_its_life_is_renewed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("manifests")).unwrap();
    let (controller, _runs) = Controller::start(LOOPBACK, Organization::new("acme.internal")).await;
    lock(&controller.told).old = true;
    let data = dir.path().join("data");
    join(&join_config(&controller, &data), TOKEN).await.unwrap();
    controller.publish(3);
    let agent = Agent::start(dir.path()).await;
    let next = || async { fs::read_to_string(data.join("intermediate-next.pem")).ok() };
    let next = until("the next intermediate is kept", SOON, next, Option::is_some).await.unwrap();
    let certificate = &next[next.find("-----BEGIN CERTIFICATE").unwrap()..];
    let print = certificate_info(certificate).unwrap().fingerprint;
    let listed = lock(&controller.organization.0).bundle_spec();
    assert!(listed.clusters.values().any(|prints| prints.contains(&print) && prints.len() == 2));
    // It does not sign before peers have it.
    assert!(!agent.get("/dump").await.contains(&print.to_string()));
    agent.stop().await;
}
