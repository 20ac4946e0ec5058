//! True agents against the true controller: joining, and what goes up and down between them. Gateways are stood in
//! for by the feed's client on the agents' sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::oneshot,
    task::JoinHandle,
};
use tombolo_agent::{
    agent::{self, Ended},
    dns::{self, ForwardTo},
    gateways::HubConfig,
    health::HealthConfig,
    join::{JoinConfig, JoinError, join},
    vip::AddressMode,
};
use tombolo_controller::config::Database as Stored;
use tombolo_feed::{Client, Options, Requests, UnixConnector};
use tombolo_model::{
    GatewayRole, Locality,
    snapshot::{GatewayResource, PeerSpec, RouteSpec, TrustBundleSpec},
};
use tombolo_mtls::{parse_pin, pinned_client_config};
use tombolo_runtime::{
    clock::{Clock, ManualClock, SystemClock},
    task,
};
use tombolo_testkit::{
    postgres::Database,
    process::{Program, binary},
    wait::until,
};
use tombolo_wire::{
    message::{GatewayHello, GatewayWelcome},
    version::Hello,
};

/// Several processes' worth of work, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(60);
const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const NAME: &str = "catalog.acme.example.com";

/// The controller, and a token of each kind that is needed.
struct Controller {
    bound: tombolo_controller::Bound,
    http: reqwest::Client,
    admin: String,
    _data: tempfile::TempDir,
    _database: Database,
}

impl Controller {
    async fn start(clock: Arc<dyn Clock>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let database = tokio::task::spawn_blocking(Database::create).await.unwrap();
        let stored = Stored::Url(database.url().to_owned());
        let config = tombolo_controller::Config::for_tests(data.path(), stored);
        let deps = tombolo_controller::Deps { clock };
        let bound = tombolo_controller::build(config, deps).await.unwrap();
        let tls = pinned_client_config(parse_pin(&bound.ca_fingerprint).unwrap(), None, &[b"h2"]);
        let http = reqwest::Client::builder().tls_backend_preconfigured((*tls).clone()).build().unwrap();
        let admin = fs::read_to_string(data.path().join("owner-token")).unwrap();
        let mut this = Self { bound, http, admin: admin.trim().to_owned(), _data: data, _database: database };
        this.post("/organizations", json!({ "name": "acme" })).await;
        let token = this.post("/organizations/acme/tokens", json!({ "name": "t", "role": "admin" })).await;
        token["token"].as_str().unwrap().clone_into(&mut this.admin);
        this
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        etag: Option<&str>,
    ) -> (StatusCode, Value, Option<String>) {
        let url = format!("{}/api/v1{path}", self.bound.public_url);
        let mut request = self.http.request(method, url).bearer_auth(&self.admin);
        if let Some(body) = body {
            request = request.json(&body);
        }
        if let Some(etag) = etag {
            request = request.header("if-match", etag);
        }
        let response = request.send().await.unwrap();
        let etag = response.headers().get("etag").map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default(), etag)
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body, _) = self.call(Method::GET, path, None, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, body, _) = self.call(Method::POST, path, Some(body), None).await;
        assert_eq!(status, StatusCode::CREATED, "{path}: {body}");
        body
    }

    async fn delete(&self, path: &str) {
        let (_, _, etag) = self.call(Method::GET, path, None, None).await;
        let (status, body, _) = self.call(Method::DELETE, path, None, etag.as_deref()).await;
        assert!(status.is_success(), "{path}: {status} {body}");
    }

    async fn token(&self, cluster: &str) -> String {
        let path = format!("/organizations/acme/clusters/{cluster}/onboarding-tokens");
        self.post(&path, json!({})).await["token"].as_str().unwrap().to_owned()
    }

    fn join(&self, cluster: &str, data: &Path) -> JoinConfig {
        JoinConfig {
            controller: self.bound.public_url.clone(),
            ca_fingerprint: self.bound.ca_fingerprint.clone(),
            cluster: cluster.parse().unwrap(),
            data: data.to_owned(),
            locality: Locality::default(),
            nodes: Locality::default(),
        }
    }
}

/// A cluster with a running agent.
struct Cluster {
    dir: tempfile::TempDir,
    dns: SocketAddr,
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Ended>,
}

impl Cluster {
    async fn start(controller: &Controller, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, manifests) = (dir.path().join("data"), dir.path().join("manifests"));
        fs::create_dir(&manifests).unwrap();
        join(&controller.join(name, &data), &controller.token(name).await).await.unwrap();
        let socket = dir.path().join("agent.sock");
        let config = agent::Config {
            pace: tombolo_agent::certificate::Pace::default(),
            data,
            source: agent::SourceConfig::Manifests(manifests),
            dns: Some(dns::Config::new(LOOPBACK, ForwardTo::Refuse)),
            gateway_socket: Some(socket.clone()),
            gateway_listen: None,
            registries: Default::default(),
            never_dial: Default::default(),
            mode: AddressMode::Allocated,
            admin: None,
            health: HealthConfig::default(),
            hub: HubConfig::default(),
        };
        let bound = agent::build(config, agent::Deps::default()).await.unwrap();
        let dns = bound.dns.unwrap();
        let (stop, stopped) = oneshot::channel();
        let ended = task::spawn("agent", bound.run(async { drop(stopped.await) }, SOON));
        Self { dir, dns, socket, stop, ended }
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        assert!(matches!(self.ended.await.unwrap(), Ended::Stopped(_)));
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join("manifests").join(file), text).unwrap();
    }

    /// A gateway of this cluster.
    async fn gateway(&self, role: GatewayRole, advertise: &[&str]) -> Gateway {
        let hello = GatewayHello {
            advertise: advertise.iter().map(|address| (*address).to_owned()).collect(),
            ..GatewayHello::new(
                Hello::current("tombolo-gateway"),
                role.to_string(),
                role,
                ([127, 0, 0, 1], 4000 + role as u16).into(),
            )
        };
        let mut options = Options::new(
            format!("/gateway/v1/feed?instance={role}"),
            format!("/gateway/v1/ack?instance={role}"),
        );
        options.on_connect = Some(Arc::new(move |requests: Requests| {
            let hello = hello.clone();
            Box::pin(async move {
                requests.post::<_, GatewayWelcome>("/gateway/v1/hello", &hello).await.map(drop)
            })
        }));
        let (client, running) = Client::build(UnixConnector::new(&self.socket), options);
        Gateway { client, task: task::spawn("gateway", running.run()) }
    }

    /// The A record of a name.
    async fn ask(&self, name: &str) -> Option<Ipv4Addr> {
        use hickory_proto::{
            op::{Message, MessageType, OpCode, Query},
            rr::{Name, RData, RecordType},
        };
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), RecordType::A));
        let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
        socket.send_to(&message.to_vec().unwrap(), self.dns).await.unwrap();
        let mut packet = [0; 1500];
        let n = tokio::time::timeout(SOON, socket.recv(&mut packet)).await.unwrap().unwrap();
        Message::from_vec(&packet[..n]).unwrap().answers.iter().find_map(|record| match &record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        })
    }
}

struct Gateway {
    client: Client<GatewayResource>,
    task: JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gateway {
    fn find<T>(&self, pick: impl Fn(&GatewayResource) -> Option<T>) -> Option<T> {
        self.client.state().borrow().resources.values().find_map(pick)
    }
    fn route(&self) -> Option<RouteSpec> {
        self.find(|resource| match resource {
            GatewayResource::Route(route) if route.name.as_str() == NAME => Some(RouteSpec::clone(route)),
            _ => None,
        })
    }
    fn peer(&self) -> Option<PeerSpec> {
        self.find(|resource| match resource {
            GatewayResource::Peer(peer) => Some(PeerSpec::clone(peer)),
            _ => None,
        })
    }
    fn bundle(&self) -> Option<TrustBundleSpec> {
        self.find(|resource| match resource {
            GatewayResource::Bundle(bundle) => Some(TrustBundleSpec::clone(bundle)),
            _ => None,
        })
    }
}

fn catalog(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: catalog, annotations: \
         {{tombolo.io/service-account: catalog}}}}\nspec: {{ports: [{{port: 8082}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: catalog-1, labels: \
         {{kubernetes.io/service-name: catalog}}}}\naddressType: IPv4\nports: [{{port: {port}}}]\n\
         endpoints: [{{addresses: [127.0.0.1]}}]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_learn_of_each_other() {
    let controller = Controller::start(Arc::new(SystemClock)).await;
    for cluster in ["cluster-1", "cluster-2"] {
        controller.post("/organizations/acme/clusters", json!({ "name": cluster })).await;
    }
    let rule = json!({ "cluster": { "labels": {} }, "namespace": { "name": "default" } });
    let gns = json!({ "name": "acme", "domain": "acme.example.com", "rules": [rule] });
    controller.post("/organizations/acme/global-namespaces", gns).await;
    let one = Cluster::start(&controller, "cluster-1").await;
    let two = Cluster::start(&controller, "cluster-2").await;
    one.write("shop.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: shopping}\n");

    // A service of cluster-2 has a name in cluster-1.
    assert_eq!(one.ask(NAME).await, None);
    let app = TcpListener::bind(LOOPBACK).await.unwrap();
    two.write("catalog.yaml", &catalog(app.local_addr().unwrap().port()));
    let vip = until("the name is answered in cluster-1", SOON, || one.ask(NAME), Option::is_some).await;
    assert!(vip.is_some_and(|vip| vip.octets()[0] >= 240), "{vip:?}");
    until("the same in cluster-2", SOON, || two.ask(NAME), |found| *found == vip).await;

    // Its ingress gateway's address reaches the egress gateway of cluster-1, with the route.
    let _ingress = two.gateway(GatewayRole::Ingress, &["192.0.2.2:15008"]).await;
    let egress = one.gateway(GatewayRole::Egress, &[]).await;
    until(
        "the peer's address",
        SOON,
        || async { egress.peer() },
        |peer| {
            peer.as_ref().is_some_and(|peer| {
                peer.cluster.as_str() == "cluster-2" && peer.ingress.contains("192.0.2.2:15008")
            })
        },
    )
    .await;
    let ready =
        || async { egress.route().and_then(|route| route.targets.first().map(|target| target.ready)) };
    until("one ready endpoint", SOON, ready, |ready| *ready == Some(1)).await;
    let route = egress.route().unwrap();
    assert_eq!(route.targets[0].cluster.as_str(), "cluster-2");
    let identities: Vec<String> = route.targets[0].identities.iter().map(ToString::to_string).collect();
    assert!(identities.len() == 1 && identities[0].ends_with("/cluster/cluster-2/ns/default/sa/catalog"));

    // Its health reaches cluster-1, both ways; so does the status with what is wrong.
    drop(app);
    until("no ready endpoint", SOON, ready, |ready| *ready == Some(0)).await;
    assert_eq!(one.ask(NAME).await, vip, "a name without endpoints is still a name");
    let app = TcpListener::bind(LOOPBACK).await.unwrap();
    two.write("catalog.yaml", &catalog(app.local_addr().unwrap().port()));
    until("ready again", SOON, ready, |ready| *ready == Some(1)).await;
    two.write("typo.yaml", "apiVersion: v1\nkind: Servise\n");
    let status = || controller.get("/organizations/acme/clusters/cluster-2/status");
    let status = until("the status of cluster-2", SOON, status, |status| {
        status["problems"][0]["subject"] == "typo.yaml:1" && status["gateways"][0]["role"] == "ingress"
    })
    .await;
    assert_eq!(status["state"], "connected", "{status}");

    // Gone from the file is gone everywhere; and back, with the same address.
    two.write("catalog.yaml", "# nothing\n");
    until("the name is gone", SOON, || one.ask(NAME), Option::is_none).await;
    two.write("catalog.yaml", &catalog(app.local_addr().unwrap().port()));
    until("the name is back", SOON, || one.ask(NAME), |found| *found == vip).await;

    // A revoked cluster leaves the bundle of its peers, and its targets leave the route.
    controller.delete("/organizations/acme/clusters/cluster-2").await;
    until(
        "cluster-2 is out of the bundle",
        Duration::from_secs(5),
        || async { egress.bundle() },
        |bundle| {
            bundle.as_ref().is_some_and(|bundle| {
                bundle.clusters.len() == 1 && !bundle.clusters.keys().any(|name| name.as_str() == "cluster-2")
            })
        },
    )
    .await;
    until("no peer is left", SOON, || async { egress.peer() }, Option::is_none).await;

    // The controller ends: what was told last stays.
    drop(egress);
    let vip = one.ask(NAME).await;
    controller.bound.drain().await;
    assert_eq!(one.ask(NAME).await, vip);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_do_not_let_in() {
    let clock = ManualClock::new(SystemClock.now());
    let controller = Controller::start(Arc::new(clock.clone())).await;
    for cluster in ["cluster-1", "cluster-2"] {
        controller.post("/organizations/acme/clusters", json!({ "name": cluster })).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = controller.join("cluster-1", &dir.path().join("data"));
    let refused = async |token: &str| match join(&config, token).await {
        Err(JoinError::Refused(problem)) => problem.detail.clone(),
        other => panic!("{other:?}"),
    };
    assert!(refused("tmj_nothing").await.contains("no such onboarding token"));
    assert!(refused("tmb_an-api-token").await.contains("begins with tmj_"));
    let other = controller.token("cluster-2").await;
    assert!(refused(&other).await.contains("for another cluster"));
    let revoked = controller.token("cluster-1").await;
    let path = "/organizations/acme/clusters/cluster-1/onboarding-tokens";
    let tokens = controller.get(path).await;
    let id = tokens["items"][0]["id"].as_str().unwrap().to_owned();
    let (status, body, _) = controller.call(Method::DELETE, &format!("{path}/{id}"), None, None).await;
    assert!(status.is_success(), "{body}");
    assert!(refused(&revoked).await.contains("was revoked"));
    let short = controller.post(path, json!({ "expires_in": "1m" })).await;
    clock.advance(Duration::from_secs(61));
    assert!(refused(short["token"].as_str().unwrap()).await.contains("ended at"));

    // A good one, once; then a new one adopts the record.
    let good = controller.token("cluster-1").await;
    join(&config, &good).await.unwrap();
    assert!(refused(&good).await.contains("was used"));
    let membership = join(&config, &controller.token("cluster-1").await).await.unwrap();
    assert_eq!(membership.cluster.as_str(), "cluster-1");
    controller.bound.drain().await;
}

/// The true program: what a user types, and what other users may see of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program() {
    let controller = Controller::start(Arc::new(SystemClock)).await;
    controller.post("/organizations/acme/clusters", json!({ "name": "cluster-1" })).await;
    let dir = tempfile::tempdir().unwrap();
    let (data, ready) = (dir.path().join("data"), dir.path().join("ready.json"));
    fs::create_dir(dir.path().join("manifests")).unwrap();
    let command = |verb: &str| {
        let mut command = Command::new(binary("tombolo-agent"));
        command.arg(verb).arg("--data").arg(&data);
        command
    };
    let run = || {
        let mut command = command("run");
        command.arg("--manifests").arg(dir.path().join("manifests"));
        command.args(["--dns", "127.0.0.1:0", "--dns-forward", "refuse", "--admin", "127.0.0.1:0"]);
        command.args(["--explicit-prefix", "127.101.0.0/16"]);
        command.arg("--gateway-socket").arg(dir.path().join("agent.sock"));
        command.arg("--ready-file").arg(&ready);
        command
    };
    let mut early = Program::spawn("agent", run());
    assert_eq!(early.wait(SOON).await.code(), Some(1));
    assert!(early.stderr().contains("run `tombolo-agent join` with this --data first"), "{}", early.stderr());

    let join = || {
        let mut join = command("join");
        join.args(["--controller", &controller.bound.public_url, "--cluster", "cluster-1"]);
        join.args(["--ca-fingerprint", &controller.bound.ca_fingerprint, "--token-file", "-"]);
        join.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        join
    };
    let typed = async |token: &str| {
        let mut child = join().spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{token}").unwrap();
        let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = typed("tmj_wrong").await;
    assert!(code == Some(1) && text.contains("no such onboarding token"), "{text}");
    assert!(!text.contains("tmj_wrong"), "a token does not go into the log");
    let (code, text) = typed(&controller.token("cluster-1").await).await;
    assert_eq!(code, Some(0), "{text}");
    for file in ["state.json", "intermediate.pem"] {
        let mode = fs::metadata(data.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }

    let mut agent = Program::start("agent", run(), &ready, SOON).await;
    assert_eq!(agent.ready()["cluster"], "cluster-1");
    assert_eq!(agent.ready()["gateway_socket"], json!(dir.path().join("agent.sock")));
    assert!(agent.address("dns").port() > 0 && agent.address("admin").port() > 0);
    let state = || async {
        let status = controller.get("/organizations/acme/clusters/cluster-1/status").await;
        status["state"].clone()
    };
    until("connected", SOON, state, |state| *state == "connected").await;
    assert_eq!(agent.stop(SOON).await.code(), Some(0));
    until("disconnected", SOON, state, |state| *state == "disconnected").await;
    controller.bound.drain().await;
}
