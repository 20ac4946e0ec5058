//! Gateways in pods: who they are, the API server says; what they may be follows from that. Tokens are true ones, as the
//! kubelet has them made: bound to a pod, for an audience.

use crate::{
    let_agent_may, make, make_wide, meta,
    server::{ADMIN, Server, Store},
    world::{Agent, Controller, SOON},
};
use futures::FutureExt as _;
use k8s_openapi::api::{
    authentication::v1::TokenRequest,
    core::v1::{Namespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Command, sync::Arc};
use tombolo_feed::{Client as Feed, Options, Requests, TlsConnector, TokenFile};
use tombolo_model::{GatewayRole, SpiffeId, snapshot::GatewayResource};
use tombolo_mtls::{BundleStore, PrivateKey, agent_client_config};
use tombolo_testkit::{
    process::{Program, binary},
    wait::until,
};
use tombolo_wire::{
    message::{GatewayHello, GatewayWelcome, LeafRequest, LeafResponse},
    version::Hello,
};

pub(crate) const OWN: &str = "tombolo-system";
pub(crate) const AUDIENCE: &str = "tombolo-agent";

/// A pod on a node, with an address, as scheduler and kubelet would leave it.
pub(crate) async fn pod(client: &Client, namespace: &str, account: &str, name: &str, node: &str, ip: &str) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    if accounts.get_opt(account).await.expect("asked").is_none() {
        make::<ServiceAccount>(client, json!({"metadata": meta(namespace, account)})).await;
    }
    let containers = json!([{"name": "c", "image": "none"}]);
    let spec = json!({"serviceAccountName": account, "nodeName": node, "containers": containers});
    make::<Pod>(client, json!({"metadata": meta(namespace, name), "spec": spec})).await;
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
}

/// A token as the kubelet projects it. Without a pod, one that somebody had made by hand.
pub(crate) async fn token(
    client: &Client,
    namespace: &str,
    account: &str,
    pod: Option<&str>,
    audience: &str,
) -> String {
    let mut spec = json!({"audiences": [audience], "expirationSeconds": 600});
    if let Some(pod) = pod {
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let uid = pods.get(pod).await.expect("a pod").metadata.uid.expect("a uid");
        spec["boundObjectRef"] = json!({"kind": "Pod", "apiVersion": "v1", "name": pod, "uid": uid});
    }
    let request: TokenRequest =
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a request");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let made =
        accounts.create_token_request(account, &PostParams::default(), &request).await.expect("a token");
    made.status.expect("a status").token
}

/// What a gateway in a pod would be told. Dropping it ends it.
pub(crate) struct Gateway {
    feed: Feed<GatewayResource>,
    running: tokio::task::JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Gateway {
    pub(crate) fn start(home: &Path, agent: &Agent, root: &str, token: &str, hello: GatewayHello) -> Self {
        Self::at(home, (agent.gateways(), &agent.trust_domain), root, token, hello)
    }

    pub(crate) fn at(
        home: &Path,
        (agent, trust_domain): (SocketAddr, &str),
        root: &str,
        token: &str,
        hello: GatewayHello,
    ) -> Self {
        let id = "spiffe://acme.tombolo.internal/cluster/cluster-1/agent";
        let id = SpiffeId::parse(&id.replace("acme.tombolo.internal", trust_domain)).expect("an id");
        let tls = agent_client_config(&[root.to_owned()], &BundleStore::new(), &id, &[b"h2"]).expect("roots");
        let connector = TlsConnector::new(&agent.ip().to_string(), agent.port(), tls).expect("an address");
        let instance = hello.instance.clone();
        let path = |what: &str| format!("/gateway/v1/{what}?instance={instance}");
        let mut options = Options::new(path("feed"), path("ack"));
        let file = home.join(format!("token-{instance}"));
        fs::write(&file, token).expect("a token is written");
        options.token = Some(TokenFile::new(file));
        options.on_connect = Some(Arc::new(move |requests: Requests| {
            let hello = hello.clone();
            async move { requests.post::<_, GatewayWelcome>("/gateway/v1/hello", &hello).await.map(drop) }
                .boxed()
        }));
        let (feed, running) = Feed::build(connector, options);
        Self { feed, running: tombolo_runtime::task::spawn("feed", running.run()) }
    }

    async fn refused(&self) -> String {
        let mut status = self.feed.status();
        let status = tokio::time::timeout(SOON, status.wait_for(|s| s.error.is_some() || s.connected)).await;
        let status = status.expect("an end").expect("a status");
        assert!(!status.connected, "it is taken");
        status.error.clone().unwrap_or_default()
    }

    pub(crate) async fn connected(&self) {
        let status = || async { self.feed.status().borrow().clone() };
        until("connected", SOON, status, |status| status.connected).await;
    }

    async fn may_have(&self, instance: &str, path: &str, agent: &Agent) -> bool {
        let identity = format!("spiffe://{}/cluster/cluster-1{path}", agent.trust_domain);
        let identity = SpiffeId::parse(&identity).expect("an id");
        let csr = PrivateKey::generate().and_then(|key| key.csr(&identity)).expect("a request");
        let request = LeafRequest { identity, csr };
        let to = format!("/gateway/v1/certificate?instance={instance}");
        self.feed.requests().post::<_, LeafResponse>(&to, &request).await.is_ok()
    }
}

pub(crate) fn hello(role: GatewayRole, instance: &str, ip: &str) -> GatewayHello {
    GatewayHello::new(
        Hello::current("tombolo-gateway"),
        instance.to_owned(),
        role,
        format!("{ip}:15008").parse().expect("an address"),
    )
}

fn sidecar(instance: &str, ip: &str, account: &str) -> GatewayHello {
    let (namespace, _) = instance.split_once('.').expect("an instance");
    GatewayHello {
        serves: BTreeSet::from([ip.parse().expect("an address")]),
        workloads: BTreeSet::from([(namespace.parse().expect("a name"), account.parse().expect("a name"))]),
        ..hello(GatewayRole::Sidecar, instance, ip)
    }
}

/// The true program, as its pod would start it.
async fn egress(home: &Path, agent: &Agent, token: &str, roots: &str) -> Program {
    let (ready, file) = (home.join("egress.json"), home.join("egress.token"));
    fs::write(&file, token).expect("a token is written");
    let mut command = Command::new(binary("tombolo-gateway"));
    command.args([
        "run",
        "--role",
        "egress",
        "--cluster",
        "cluster-1",
        "--trust-domain",
        &agent.trust_domain,
    ]);
    command.args(["--agent", &format!("https://{}", agent.gateways()), "--tunnel", "127.0.0.1:0"]);
    command.arg("--agent-token-file").arg(&file).arg("--ready-file").arg(&ready);
    command.env("POD_NAMESPACE", OWN).env("POD_NAME", "egress-1").env("POD_IP", "127.0.0.1");
    command.env("TOMBOLO_AGENT_ROOTS", roots);
    Program::start("egress", command, &ready, SOON).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identity() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server: Server = store.server().await;
    let client = server.client(ADMIN).await;
    for name in ["shop", "plain", OWN] {
        let mode = if name == "shop" { "node" } else { "none" };
        let metadata = json!({"name": name, "labels": {"tombolo.io/capture": mode}});
        make_wide::<Namespace>(&client, json!({ "metadata": metadata })).await;
    }
    let reviews =
        json!({"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]});
    let_agent_may(&client, &["namespaces", "services", "pods", "serviceaccounts", "nodes"], &[reviews]).await;
    pod(&client, OWN, "tombolo-egress", "egress-1", "n1", "127.0.0.1").await;
    pod(&client, OWN, "tombolo-node", "node-1", "n1", "127.0.0.2").await;
    pod(&client, "shop", "cart", "cart-1", "n1", "127.0.0.7").await;
    pod(&client, "shop", "catalog", "catalog-1", "n2", "127.0.0.8").await;
    pod(&client, "plain", "cart", "cart-2", "n1", "127.0.0.9").await;

    let controller = Controller::start().await;
    controller.join(home.path()).await;
    let options = ["--gateway-listen", "127.0.0.1:0"];
    let agent = Agent::start(home.path(), &server, &options).await;
    let root = until("the root", SOON, || agent.root(), Option::is_some).await.expect("a root");

    // The true gateway gets its table and its certificate.
    let bound = token(&client, OWN, "tombolo-egress", Some("egress-1"), AUDIENCE).await;
    let program = egress(home.path(), &agent, &bound, &root).await;
    let gateways = || agent.dump("gateways");
    let has = |all: &Value, instance: &str| all.to_string().contains(instance);
    until("the egress gateway", SOON, gateways, |all| has(all, "tombolo-system.egress-1")).await;
    drop(program);

    // A node's proxy: the captured pods on its node, and no others.
    let made = token(&client, OWN, "tombolo-node", Some("node-1"), AUDIENCE).await;
    let instance = "tombolo-system.node-1";
    let said = hello(GatewayRole::Node, instance, "127.0.0.2");
    let node = Gateway::start(home.path(), &agent, &root, &made, said);
    node.connected().await;
    for (path, may) in [
        ("/gateway/node", true),
        ("/ns/shop/sa/cart", true),
        ("/ns/shop/sa/catalog", false),
        ("/ns/plain/sa/cart", false),
        ("/gateway/egress", false),
    ] {
        assert_eq!(node.may_have(instance, path, &agent).await, may, "{path}");
    }
    let workloads = || async {
        let state = node.feed.state().borrow().clone();
        let workload = |r: &GatewayResource| match r {
            GatewayResource::Workload(w) => Some(format!("{} {:?}", w.identity, w.selectors)),
            _ => None,
        };
        state.resources.values().filter_map(workload).collect::<Vec<_>>()
    };
    let cart = |all: &Vec<String>| all.len() == 1 && all[0].contains("sa/cart {Address(127.0.0.7)}");
    until("the node's workloads", SOON, workloads, cart).await;
    pod(&client, "shop", "catalog", "catalog-2", "n1", "127.0.0.10").await;
    let two = |all: &Vec<String>| all.len() == 2 && all[1].contains("sa/catalog {Address(127.0.0.10)}");
    until("a pod that came", SOON, workloads, two).await;

    // A sidecar: its own workload.
    let made = token(&client, "shop", "cart", Some("cart-1"), AUDIENCE).await;
    let own = Gateway::start(home.path(), &agent, &root, &made, sidecar("shop.cart-1", "127.0.0.7", "cart"));
    own.connected().await;
    assert!(own.may_have("shop.cart-1", "/ns/shop/sa/cart", &agent).await);
    assert!(!own.may_have("shop.cart-1", "/ns/shop/sa/catalog", &agent).await);
    assert!(!own.may_have("tombolo-system.egress-1", "/gateway/egress", &agent).await);

    refusals(home.path(), &client, &agent, &root).await;
    // A token of another cluster, for a pod of the same name.
    let away = tempfile::tempdir().expect("a folder");
    let elsewhere = Store::start(&away.path().join("kubernetes"));
    let its_server = elsewhere.server().await;
    let other = its_server.client(ADMIN).await;
    make_wide::<Namespace>(&other, json!({"metadata": {"name": "shop"}})).await;
    pod(&other, "shop", "cart", "cart-1", "n1", "127.0.0.7").await;
    let made = token(&other, "shop", "cart", Some("cart-1"), AUDIENCE).await;
    let said = sidecar("shop.cart-1", "127.0.0.7", "cart");
    let error = Gateway::start(home.path(), &agent, &root, &made, said).refused().await;
    assert!(error.contains("does not take the token"), "{error}");
}

async fn refusals(home: &Path, client: &Client, agent: &Agent, root: &str) {
    let cart = || sidecar("shop.cart-1", "127.0.0.7", "cart");
    let of_cart = token(client, "shop", "cart", Some("cart-1"), AUDIENCE).await;
    let elsewhere =
        GatewayHello { serves: BTreeSet::from(["127.0.0.8".parse().expect("an address")]), ..cart() };
    let egress = hello(GatewayRole::Egress, "tombolo-system.egress-1", "127.0.0.1");
    let of_egress = token(client, OWN, "tombolo-egress", Some("egress-1"), AUDIENCE).await;
    let ingress = GatewayHello { role: GatewayRole::Ingress, ..egress.clone() };
    let gone = {
        pod(client, "shop", "cart", "cart-9", "n1", "127.0.0.19").await;
        let made = token(client, "shop", "cart", Some("cart-9"), AUDIENCE).await;
        let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
        pods.delete("cart-9", &DeleteParams::default().grace_period(0)).await.expect("deleted");
        made
    };
    for (made, said, why) in [
        (
            token(client, "shop", "cart", Some("cart-1"), "https://kubernetes.default.svc").await,
            cart(),
            "does not take the token",
        ),
        (token(client, "shop", "cart", None, AUDIENCE).await, cart(), "bound to no pod"),
        (token(client, "plain", "cart", Some("cart-2"), AUDIENCE).await, cart(), "is called plain.cart-2"),
        (of_cart.clone(), sidecar("shop.cart-1", "127.0.0.7", "catalog"), "speaks for shop/cart only"),
        (of_cart.clone(), elsewhere, "--serve: 127.0.0.8 is not an address of shop.cart-1"),
        (of_cart.clone(), sidecar("shop.cart-1", "127.0.0.8", "cart"), "--tunnel: 127.0.0.8 is not"),
        (
            of_cart,
            hello(GatewayRole::Egress, "shop.cart-1", "127.0.0.7"),
            "run as tombolo-system/tombolo-egress",
        ),
        (of_egress, ingress, "run as tombolo-system/tombolo-ingress"),
        (gone, sidecar("shop.cart-9", "127.0.0.19", "cart"), "does not take the token"),
        ("made.up.token".to_owned(), cart(), "no service-account token"),
    ] {
        let error = Gateway::start(home, agent, root, &made, said).refused().await;
        assert!(error.contains(why), "{why}: {error}");
    }
}
