//! Capture mode `sidecar`: the API server asks the agent about new pods, believes its certificate, and takes what it adds.

use crate::{
    capture::own_address,
    let_agent, make, make_wide, meta,
    server::{ADMIN, Server, Store},
    world::{Agent, Controller, SOON},
};
use k8s_openapi::{
    ByteString,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Namespace, Pod, Service},
        discovery::v1::EndpointSlice,
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};
use tombolo_testkit::wait::until;

const OWN: &str = "tombolo-system";

/// The Service that the API server asks, and where it leads.
async fn make_service(client: &Client, webhook: SocketAddr) {
    let port = json!({"name": "webhook", "port": 443, "targetPort": webhook.port()});
    make::<Service>(client, json!({"metadata": meta(OWN, "tombolo-agent"), "spec": {"ports": [port]}})).await;
    let mut metadata = meta(OWN, "tombolo-agent-x");
    metadata["labels"] = json!({"kubernetes.io/service-name": "tombolo-agent"});
    let endpoints = json!([{"addresses": [webhook.ip()], "conditions": {"ready": true}}]);
    let ports = json!([{"name": "webhook", "port": webhook.port()}]);
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    make::<EndpointSlice>(client, slice).await;
}

/// The one object that the agent may change, empty as the manifest has it.
async fn let_agent_inject(client: &Client) {
    make_wide::<MutatingWebhookConfiguration>(client, json!({"metadata": {"name": "tombolo"}})).await;
    let rules = json!([{
        "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
        "resourceNames": ["tombolo"], "verbs": ["create", "get", "patch"],
    }]);
    make_wide::<ClusterRole>(client, json!({"metadata": {"name": "tombolo-webhook"}, "rules": rules})).await;
    let group = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "tombolo"}]);
    let of =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tombolo-webhook"});
    let binding = json!({"metadata": {"name": "tombolo-webhook"}, "subjects": group, "roleRef": of});
    make_wide::<ClusterRoleBinding>(client, binding).await;
}

/// The init containers of a new pod.
async fn made(client: &Client, namespace: &str, name: &str, labels: Value) -> Vec<String> {
    let mut metadata = meta(namespace, name);
    metadata["labels"] = labels;
    let container = json!({"name": "c", "image": "none", "ports": [{"containerPort": 8080}]});
    // Elsewhere an admission plugin fills the account in, before it asks anybody.
    let spec = json!({"serviceAccountName": "default", "containers": [container]});
    let pod: Pod = make(client, json!({"metadata": metadata, "spec": spec})).await;
    let spec = pod.spec.expect("a spec");
    spec.init_containers.into_iter().flatten().map(|container| container.name).collect()
}

/// An API server that asks the agent about pods.
struct Site {
    client: Client,
    controller: Controller,
    agent: Agent,
    pods: AtomicU32,
    _server: Server,
    _store: Store,
    _home: tempfile::TempDir,
}

impl Site {
    /// With these namespaces, each with its labels.
    async fn start(namespaces: &[(&str, Value)]) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let store = Store::start(&home.path().join("kubernetes"));
        // There is no kube-proxy: the API server goes to the endpoint itself.
        let server = store.server_with(&["--enable-aggregator-routing=true"]).await;
        let client = server.client(ADMIN).await;
        for (name, labels) in namespaces.iter().chain([&(OWN, json!({}))]) {
            make_wide::<Namespace>(&client, json!({"metadata": {"name": name, "labels": labels}})).await;
        }
        let_agent(&client, &["namespaces", "services", "pods", "serviceaccounts", "nodes"]).await;
        let_agent_inject(&client).await;
        let controller = Controller::start().await;
        controller.join(home.path()).await;
        let listen = SocketAddr::new(own_address(), 0).to_string();
        let options = ["--webhook-listen", &listen, "--gateway-image", "localhost/tombolo-gateway:dev"];
        let agent = Agent::start(home.path(), &server, &options).await;
        make_service(&client, agent.address("webhook")).await;
        Self {
            client,
            controller,
            agent,
            pods: AtomicU32::new(0),
            _server: server,
            _store: store,
            _home: home,
        }
    }

    /// The init containers of a new pod with these labels.
    async fn made(&self, namespace: &str, labels: Value) -> Vec<String> {
        let name = format!("pod-{}", self.pods.fetch_add(1, Ordering::Relaxed));
        made(&self.client, namespace, &name, labels).await
    }

    /// Makes pods until one gets a proxy, or none: it takes a moment until the API server knows whom to ask.
    async fn until_made(&self, what: &str, namespace: &str, proxy: bool) {
        let wanted: &[&str] = if proxy { &["tombolo-init", "tombolo-proxy"] } else { &[] };
        until(what, SOON, || self.made(namespace, json!({})), |found| found == wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_proxies() {
    let sidecar = json!({"tombolo.io/capture": "sidecar"});
    let mut site = Site::start(&[("shop", sidecar), ("bank", json!({}))]).await;
    site.until_made("a proxy", "shop", true).await;
    assert_eq!(site.made("bank", json!({})).await, [""; 0], "a namespace without the label");
    let opted_out = json!({"tombolo.io/inject": "false"});
    assert_eq!(site.made("shop", opted_out).await, [""; 0]);

    // What somebody breaks by hand is mended.
    let all: Api<MutatingWebhookConfiguration> = Api::all(site.client.clone());
    let bundle = || async {
        let found = all.get_opt("tombolo").await.expect("an answer")?.webhooks.unwrap_or_default();
        (found.len() == 1).then(|| found[0].client_config.ca_bundle.clone()).flatten()
    };
    let before = bundle().await;
    assert!(before.as_ref().is_some_and(|ByteString(pem)| pem.starts_with(b"-----BEGIN CERTIFICATE-----")));
    let broken = json!({"webhooks": []});
    all.patch("tombolo", &PatchParams::default(), &Patch::Merge(broken)).await.expect("broken");
    until("it is mended", SOON, bundle, |found| *found == before).await;
    all.delete("tombolo", &DeleteParams::default()).await.expect("deleted");
    until("it is made anew", SOON, bundle, |found| *found == before).await;

    // Where no agent answers, pods start as ever.
    site.agent.kill();
    assert_eq!(site.made("shop", json!({})).await, [""; 0], "fail-open");
}

/// The GNS of the test has `shop` in it, and others choose nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_global_namespace_chooses() {
    let left = json!({"tombolo.io/capture": "none"});
    let site = Site::start(&[("shop", json!({})), ("bank", json!({})), ("left", left)]).await;
    site.controller.choose(&["shop", "left", "soon"], Some("sidecar")).await;
    site.until_made("a proxy", "shop", true).await;
    assert_eq!(site.made("bank", json!({})).await, [""; 0], "it is of no global namespace");
    assert_eq!(site.made("left", json!({})).await, [""; 0], "its label goes before");
    // A namespace that a rule names has its mode from the first pod on.
    make_wide::<Namespace>(&site.client, json!({"metadata": {"name": "soon"}})).await;
    assert_eq!(site.made("soon", json!({})).await, ["tombolo-init", "tombolo-proxy"]);

    // Another one, whose name comes later, has no say, and that is told.
    site.controller.claim("beta", "shop", "node").await;
    let told = |all: &Vec<String>| {
        all.iter()
            .any(|one| one.starts_with("capture modes: ") && one.contains("shop (acme sidecar, beta node)"))
    };
    until("the two are told of", SOON, || site.controller.problems(), told).await;
    assert_eq!(site.made("shop", json!({})).await, ["tombolo-init", "tombolo-proxy"]);

    // What is chosen no more is for pods that are made from then on.
    site.controller.choose(&["shop", "left", "soon"], None).await;
    site.until_made("no proxy", "shop", false).await;
}
