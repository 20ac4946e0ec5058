//! A true port, `tombolo-feed`'s client as the gateway, and an API server that knows three pods.

use super::*;
use crate::{
    ages::Ages,
    certificate::Authority,
    gateways::{Hub, HubConfig, caller::AUDIENCE, tests::membership},
    health::Results,
    index::{Index, View},
    source::{NamespaceObject, Object, PodObject},
    state::DataDir,
    synthesis::{Changed, Local, synthesize},
    vip::AddressMode,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use std::{collections::BTreeSet, fs, path::PathBuf};
use tokio::sync::watch;
use tombolo_feed::{Client, Options, RequestError, Requests, TlsConnector, TokenFile};
use tombolo_model::{
    GatewayRole, Generation, Locality, SpiffeId,
    snapshot::{ClusterResource, GatewayResource, Resource as _, Resources, SelfSpec, WorkloadSelector},
};
use tombolo_mtls::{BundleStore, PrivateKey, agent_client_config};
use tombolo_runtime::{clock::SystemClock, drain};
use tombolo_testkit::{ca::Organization, wait::until};
use tombolo_wire::{
    message::{GatewayHello, GatewayStatus, GatewayWelcome, LeafRequest, LeafResponse},
    version::Hello,
};

const SOON: Duration = Duration::from_secs(10);

fn pod(namespace: &str, account: &str, name: &str, node: &str, address: &str) -> Object {
    Object::Pod(PodObject {
        namespace: namespace.parse().unwrap(),
        name: name.parse().unwrap(),
        uid: format!("uid-{name}").into(),
        node: Some(node.parse().unwrap()),
        addresses: [address.parse().unwrap()].into(),
        host_network: false,
        account: account.parse().unwrap(),
    })
}

fn view() -> View {
    let mut index = Index::default();
    let labels = [("tombolo.io/capture".to_owned(), "node".to_owned())].into();
    let all = [
        Object::Namespace(NamespaceObject { name: "shop".parse().unwrap(), labels, ending: false }),
        pod("shop", "cart", "cart-1", "n1", "127.0.0.7"),
        pod("shop", "catalog", "catalog-1", "n2", "127.0.0.8"),
        pod("other", "plain", "plain-1", "n1", "127.0.0.9"),
        pod("tombolo-system", "tombolo-egress", "egress-1", "n1", "127.0.0.1"),
        pod("tombolo-system", "tombolo-node", "node-1", "n1", "127.0.0.2"),
    ];
    for object in all {
        index.apply(object);
    }
    index.view()
}

/// A token whose claims are who it is; the API server takes it at its word, unless it is of `elsewhere`.
fn token(namespace: &str, account: &str, pod: &str) -> String {
    let claims = json!({"exp": 4_000_000_000_u64, "who": [namespace, account, pod]});
    format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn api_server() -> Ask {
    Arc::new(|token| {
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let who = |at: usize| claims["who"][at].as_str().unwrap().to_owned();
        let status = match who(0).as_str() {
            "elsewhere" => json!({"authenticated": false, "error": "invalid signature"}),
            namespace => json!({
                "authenticated": true, "audiences": [AUDIENCE],
                "user": {
                    "username": format!("system:serviceaccount:{namespace}:{}", who(1)),
                    "extra": {
                        "authentication.kubernetes.io/pod-name": [who(2)],
                        "authentication.kubernetes.io/pod-uid": [format!("uid-{}", who(2))],
                    },
                },
            }),
        };
        async move { Ok(serde_json::from_value(status).unwrap()) }.boxed()
    })
}

struct Lab {
    dir: tempfile::TempDir,
    hub: Arc<Hub>,
    organization: Organization,
    address: SocketAddr,
    view: Arc<View>,
    _drain: drain::Drain,
}

impl Lab {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(&dir.path().join("data")).unwrap();
        let hub = Hub::new(HubConfig::default(), data, Generation::new(1000));
        let mut organization = Organization::new("acme.internal");
        let cluster = organization.join("c1");
        let credentials = cluster.credentials(&cluster.agent());
        let listener = PodListener::bind(([127, 0, 0, 1], 0).into(), &credentials).await.unwrap();
        let address = listener.address();
        let view = Arc::new(view());
        let (drain, stop) = drain::channel();
        let context = Context {
            hub: Arc::clone(&hub),
            authority: Arc::new(Authority::new(cluster.intermediate, Arc::new(SystemClock))),
            membership: Arc::new(membership()),
            view: watch::channel(Arc::clone(&view)).1,
            snapshot: watch::channel(Arc::default()).1,
            standings: crate::lease::Standings::alone(),
            reading: Default::default(),
            stop,
        };
        let own = "tombolo-system".parse().unwrap();
        let keeper = Doorkeeper::asking(api_server(), own, Arc::new(SystemClock));
        task::spawn("gateways", listener.run(context, keeper));
        Self { dir, hub, organization, address, view, _drain: drain }
    }

    fn publish(&self) {
        let own = membership();
        let itself =
            SelfSpec { cluster: own.cluster, trust_domain: own.trust_domain, locality: Locality::default() };
        let resources: Resources<ClusterResource> = [
            ClusterResource::Itself(itself.into()),
            ClusterResource::Bundle(self.organization.bundle_spec().into()),
        ]
        .into_iter()
        .map(|resource| (resource.key(), resource))
        .collect();
        let gateways = self.hub.gateways();
        let local = Local {
            view: &self.view,
            ages: &Ages::new(),
            passing: &Arc::new(Results::new()),
            gateways: &gateways,
            mode: AddressMode::Allocated,
            exposed: &Default::default(),
        };
        let all = synthesize(&resources, local).unwrap();
        self.hub.publish(&all, &Changed::Everything, Generation::new(7));
    }

    /// A connection that shows this token and says this once, and that nobody makes again: what it was answered, and the connection, which
    /// ends with the other side.
    async fn connection(&self, token: &str, hello: &GatewayHello) -> (u16, Held) {
        let agent = SpiffeId::agent(&membership().trust_domain, &membership().cluster);
        let roots = [self.organization.root().cert_pem().to_owned()];
        let tls = agent_client_config(&roots, &BundleStore::new(), &agent, &[b"h2"]).unwrap();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let (tls, _) = tombolo_mtls::connect(tcp, tls, name).await.unwrap();
        let (mut send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        let running =
            AbortOnDropHandle::new(task::spawn("connection", async move { drop(connection.await) }));
        let request = http::Request::post(format!("https://{}/gateway/v1/hello", self.address))
            .header("authorization", format!("Bearer {token}"))
            .header("tombolo-protocol", hello.hello.protocol.to_string())
            .body(Full::new(Bytes::from(serde_json::to_vec(hello).unwrap())))
            .unwrap();
        let answer = send.send_request(request).await.unwrap();
        (answer.status().as_u16(), Held { running, _send: send })
    }

    /// A gateway that shows this token (none: no token) and says this.
    fn gateway(&self, token: Option<&str>, hello: GatewayHello) -> Gateway {
        self.believing(self.organization.root().cert_pem(), token, hello)
    }

    fn believing(&self, root: &str, token: Option<&str>, hello: GatewayHello) -> Gateway {
        let agent = SpiffeId::agent(&membership().trust_domain, &membership().cluster);
        let tls = agent_client_config(&[root.to_owned()], &BundleStore::new(), &agent, &[b"h2"]).unwrap();
        let connector = TlsConnector::new("127.0.0.1", self.address.port(), tls).unwrap();
        let instance = hello.instance.clone();
        let mut options = Options::new(
            format!("/gateway/v1/feed?instance={instance}"),
            format!("/gateway/v1/ack?instance={instance}"),
        );
        let file = self.dir.path().join(format!("token-{instance}"));
        if let Some(token) = token {
            fs::write(&file, token).unwrap();
            options.token = Some(TokenFile::new(&file));
        }
        options.on_connect = Some(Arc::new(move |requests: Requests| {
            let hello = hello.clone();
            async move { requests.post::<_, GatewayWelcome>("/gateway/v1/hello", &hello).await.map(drop) }
                .boxed()
        }));
        let (client, running) = Client::build(connector, options);
        Gateway { client, file, _running: AbortOnDropHandle::new(task::spawn("feed", running.run())) }
    }
}

use tokio_util::task::AbortOnDropHandle;

/// A connection; without its sender it would end.
struct Held {
    running: AbortOnDropHandle<()>,
    _send: http2::SendRequest<Full<Bytes>>,
}

struct Gateway {
    client: Client<GatewayResource>,
    file: PathBuf,
    _running: AbortOnDropHandle<()>,
}

impl Gateway {
    async fn connected(&self) {
        let mut status = self.client.status();
        tokio::time::timeout(SOON, status.wait_for(|s| s.connected)).await.expect("connected").unwrap();
    }

    /// Why it is not.
    async fn refused(&self) -> String {
        let mut status = self.client.status();
        let status = tokio::time::timeout(SOON, status.wait_for(|s| s.error.is_some() || s.connected)).await;
        let status = status.expect("an end").unwrap();
        assert!(!status.connected, "it is taken");
        status.error.clone().unwrap()
    }

    async fn may_have(&self, instance: &str, identity: &str) -> Result<(), u16> {
        let identity: SpiffeId = identity.parse().unwrap();
        let csr = PrivateKey::generate().unwrap().csr(&identity).unwrap();
        let path = format!("/gateway/v1/certificate?instance={instance}");
        let answer: Result<LeafResponse, RequestError> =
            self.client.requests().post(&path, &LeafRequest { identity, csr }).await;
        answer.map(drop).map_err(|error| error.status().unwrap().as_u16())
    }
}

fn hello(role: GatewayRole, instance: &str, address: &str) -> GatewayHello {
    GatewayHello::new(
        Hello::current("tombolo-gateway"),
        instance.to_owned(),
        role,
        format!("{address}:15008").parse().unwrap(),
    )
}

const CLUSTER: &str = "spiffe://acme.internal/cluster/c1";

#[tokio::test]
async fn each_pod_gets_what_is_its_own() {
    let lab = Lab::start().await;
    let egress_token = token("tombolo-system", "tombolo-egress", "egress-1");
    let egress =
        lab.gateway(Some(&egress_token), hello(GatewayRole::Egress, "tombolo-system.egress-1", "127.0.0.1"));
    let node = lab.gateway(
        Some(&token("tombolo-system", "tombolo-node", "node-1")),
        hello(GatewayRole::Node, "tombolo-system.node-1", "127.0.0.2"),
    );
    let sidecar = GatewayHello {
        serves: BTreeSet::from(["127.0.0.7".parse().unwrap()]),
        workloads: BTreeSet::from([("shop".parse().unwrap(), "cart".parse().unwrap())]),
        ..hello(GatewayRole::Sidecar, "shop.cart-1", "127.0.0.7")
    };
    let sidecar = lab.gateway(Some(&token("shop", "cart", "cart-1")), sidecar);
    for gateway in [&egress, &node, &sidecar] {
        gateway.connected().await;
    }
    lab.publish();
    for (gateway, instance, allowed) in [
        (&egress, "tombolo-system.egress-1", ["/gateway/egress"].as_slice()),
        (&node, "tombolo-system.node-1", &["/gateway/node", "/ns/shop/sa/cart"]),
        (&sidecar, "shop.cart-1", &["/gateway/sidecar", "/ns/shop/sa/cart"]),
    ] {
        for path in [
            "/gateway/egress",
            "/gateway/ingress",
            "/gateway/sidecar",
            "/gateway/node",
            "/agent",
            "/ns/shop/sa/cart",
            "/ns/shop/sa/catalog",
            "/ns/other/sa/plain",
        ] {
            let expected = if allowed.contains(&path) { Ok(()) } else { Err(403) };
            let found = gateway.may_have(instance, &format!("{CLUSTER}{path}")).await;
            assert_eq!(found, expected, "{instance} {path}");
        }
    }
    // With its own token nobody speaks of another's gateway.
    let other = egress.may_have("shop.cart-1", &format!("{CLUSTER}/ns/shop/sa/cart")).await;
    assert_eq!(other, Err(403));
    // The node's proxy is told the pods on its node whose namespace wants it, by address.
    let workloads = || async {
        let state = node.client.state().borrow().clone();
        let workload = |resource: &GatewayResource| match resource {
            GatewayResource::Workload(w) => Some((w.identity.to_string(), w.selectors.clone())),
            _ => None,
        };
        state.resources.values().filter_map(workload).collect::<Vec<_>>()
    };
    let address = WorkloadSelector::Address("127.0.0.7".parse().unwrap());
    let cart = (format!("{CLUSTER}/ns/shop/sa/cart"), BTreeSet::from([address]));
    until("its workloads", SOON, workloads, |all| *all == [cart.clone()]).await;
    // A token that was replaced in its file is used, without a new connection.
    fs::write(&egress.file, token("shop", "cart", "cart-1")).unwrap();
    let mine = egress.may_have("tombolo-system.egress-1", &format!("{CLUSTER}/gateway/egress")).await;
    assert_eq!(mine, Err(403));
    fs::write(&egress.file, egress_token).unwrap();
    egress.may_have("tombolo-system.egress-1", &format!("{CLUSTER}/gateway/egress")).await.unwrap();
}

#[tokio::test]
async fn strangers() {
    let lab = Lab::start().await;
    let say = || hello(GatewayRole::Egress, "tombolo-system.egress-1", "127.0.0.1");
    for (token, why) in [
        (None, "no token"),
        (Some("x".to_owned()), "no service-account token"),
        (Some(token("elsewhere", "tombolo-egress", "egress-1")), "does not take the token"),
        (Some(token("tombolo-system", "tombolo-egress", "egress-2")), "is called tombolo-system.egress-2"),
        (Some(token("shop", "cart", "cart-1")), "is called shop.cart-1"),
    ] {
        let error = lab.gateway(token.as_deref(), say()).refused().await;
        assert!(error.contains(why), "{why}: {error}");
    }
    let node = hello(GatewayRole::Node, "shop.cart-1", "127.0.0.7");
    let error = lab.gateway(Some(&token("shop", "cart", "cart-1")), node).refused().await;
    assert!(error.contains("run as tombolo-system/tombolo-node"), "{error}");
    assert_eq!(lab.hub.gateways().len(), 0);
    // And the gateway does not show its token to one who is not its agent.
    let other = Organization::new("acme.internal");
    let good = token("tombolo-system", "tombolo-egress", "egress-1");
    let error = lab.believing(other.root().cert_pem(), Some(&good), say()).refused().await;
    assert!(error.contains("the peer is refused"), "{error}");
    assert_eq!(lab.hub.gateways().len(), 0);
}

#[tokio::test]
async fn connections_that_show_no_token_keep_no_gateway_out() {
    tombolo_runtime::limits::prepare();
    let lab = Lab::start().await;
    let mut held = Vec::new();
    for hog in 0..UNKNOWN.all / UNKNOWN.each {
        for _ in 0..UNKNOWN.each {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(format!("127.0.1.{hog}").parse().unwrap(), 0)).unwrap();
            held.push(socket.connect(lab.address).await.unwrap());
        }
    }
    let egress = lab.gateway(
        Some(&token("tombolo-system", "tombolo-egress", "egress-1")),
        hello(GatewayRole::Egress, "tombolo-system.egress-1", "127.0.0.1"),
    );
    egress.connected().await;
}

/// Of its connections, too, a pod has so many, whatever it shows: the oldest goes for a new one, and no other pod's.
#[tokio::test]
async fn a_pod_has_its_share_of_connections() {
    let lab = Lab::start().await;
    let say = |pod: &str, address: &str| GatewayHello {
        serves: BTreeSet::from([address.parse().unwrap()]),
        ..hello(GatewayRole::Sidecar, &format!("shop.{pod}"), address)
    };
    let other = lab.connection(&token("shop", "catalog", "catalog-1"), &say("catalog-1", "127.0.0.8")).await;
    assert_eq!(other.0, 200);
    let mut held = Vec::new();
    for number in 0..KNOWN.each + 2 {
        let (status, connection) =
            lab.connection(&token("shop", "cart", "cart-1"), &say("cart-1", "127.0.0.7")).await;
        assert_eq!(status, 200, "{number}");
        held.push(connection);
    }
    let ended = || async { held.iter().map(|held| held.running.is_finished()).collect::<Vec<_>>() };
    let ended = until("those over its share end", SOON, ended, |ended| ended[0] && ended[1]).await;
    assert!(ended[2..].iter().all(|ended| !ended), "the later ones are its share: {ended:?}");
    assert!(!other.1.running.is_finished(), "what others have stays");
}

#[tokio::test]
async fn a_body_is_as_long_as_its_sender_needs() {
    let lab = Lab::start().await;
    let egress = lab.gateway(
        Some(&token("tombolo-system", "tombolo-egress", "egress-1")),
        hello(GatewayRole::Egress, "tombolo-system.egress-1", "127.0.0.1"),
    );
    let sidecar = GatewayHello {
        serves: BTreeSet::from(["127.0.0.7".parse().unwrap()]),
        ..hello(GatewayRole::Sidecar, "shop.cart-1", "127.0.0.7")
    };
    let sidecar = lab.gateway(Some(&token("shop", "cart", "cart-1")), sidecar);
    egress.connected().await;
    sidecar.connected().await;
    let say = async |gateway: &Gateway, what: &str, instance: &str| {
        let problem =
            tombolo_wire::message::Problem { subject: "x".repeat(2100 << 10), message: String::new() };
        let status = GatewayStatus { problems: vec![problem], ..GatewayStatus::default() };
        let path = format!("/gateway/v1/{what}?instance={instance}");
        let answer: Result<(), RequestError> = gateway.client.requests().post(&path, &status).await;
        answer.map_err(|error| error.status().unwrap().as_u16())
    };
    assert_eq!(say(&egress, "status", "tombolo-system.egress-1").await, Ok(()));
    assert_eq!(say(&sidecar, "status", "shop.cart-1").await, Err(413));
    assert_eq!(say(&egress, "ack", "tombolo-system.egress-1").await, Err(413));
    // whose gateway it is not is told so, and not that its body is too long
    assert_eq!(say(&sidecar, "status", "tombolo-system.egress-1").await, Err(403));
}
