//! The agent against a true API server. `make test-kubernetes` runs it; it needs etcd and kube-apiserver.

mod away;
mod capture;
mod context;
mod endpoints;
mod identity;
mod inject;
mod install;
mod mcs;
mod policy;
mod preflight;
mod replicas;
mod rights;
mod server;
mod world;

use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use server::{ADMIN, Store};
use std::{fmt::Debug, time::Instant};
use tombolo_testkit::wait::until;
use world::{Agent, Controller, SOON};

/// Makes an object of a namespace.
async fn make<K>(client: &Client, object: Value) -> K
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let namespace = object["metadata"]["namespace"].as_str().expect("a namespace").to_owned();
    let object: K = serde_json::from_value(object).expect("an object");
    Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &object).await.expect("made")
}

async fn make_wide<K>(client: &Client, object: Value)
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let object: K = serde_json::from_value(object).expect("an object");
    Api::all(client.clone()).create(&PostParams::default(), &object).await.expect("made");
}

fn meta(namespace: &str, name: &str) -> Value {
    json!({"namespace": namespace, "name": name})
}

async fn make_service(client: &Client, namespace: &str, name: &str) {
    let ports = json!([
        {"name": "web", "port": 80, "targetPort": "http", "appProtocol": "http"},
        {"name": "alt", "port": 81, "targetPort": "http"},
    ]);
    make::<Service>(client, json!({"metadata": meta(namespace, name), "spec": {"ports": ports}})).await;
}

/// What the EndpointSlice controller would write: two pods.
async fn make_endpoints(client: &Client, namespace: &str, name: &str) {
    let mut endpoints = Vec::new();
    for number in 1..=2 {
        let pod = format!("{name}-{number}");
        let spec = json!({"serviceAccountName": name, "containers": [{"name": "c", "image": "none"}]});
        make::<Pod>(client, json!({"metadata": meta(namespace, &pod), "spec": spec})).await;
        endpoints.push(json!({
            "addresses": [format!("10.1.0.{number}")],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod},
        }));
    }
    let mut metadata = meta(namespace, &format!("{name}-x"));
    metadata["labels"] = json!({"kubernetes.io/service-name": name});
    let ports = json!([{"name": "web", "port": 8080}, {"name": "alt", "port": 8080}]);
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    make::<EndpointSlice>(client, slice).await;
}

/// Sets whether the first endpoint is ready.
async fn set_ready(client: &Client, name: &str, ready: bool) {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "shop");
    let change = json!([{"op": "replace", "path": "/endpoints/0/conditions/ready", "value": ready}]);
    let patch: Patch<EndpointSlice> = Patch::Json(serde_json::from_value(change).expect("a patch"));
    slices.patch(&format!("{name}-x"), &PatchParams::default(), &patch).await.expect("patched");
}

/// What the agent may, and no more.
async fn let_agent(client: &Client, resources: &[&str]) {
    let_agent_may(client, resources, &[]).await;
}

/// The same, and these rules.
async fn let_agent_may(client: &Client, resources: &[&str], more: &[Value]) {
    let mut rules = vec![
        json!({"apiGroups": [""], "resources": resources, "verbs": ["get", "list", "watch"]}),
        json!({"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}),
    ];
    rules.extend(more.iter().cloned());
    let role = json!({"metadata": {"name": "tombolo"}, "rules": rules});
    make_wide::<ClusterRole>(client, role).await;
    let group = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "tombolo"}]);
    let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "tombolo"});
    let binding = json!({"metadata": {"name": "tombolo"}, "subjects": group, "roleRef": of});
    make_wide::<ClusterRoleBinding>(client, binding).await;
}

/// The server no longer has a version that it had before it was killed: who watches from there must list again.
async fn is_expired(client: &Client, version: &str) -> bool {
    use futures::StreamExt;
    let services: Api<Service> = Api::all(client.clone());
    let watch = services.watch(&WatchParams::default().timeout(5), version).await.expect("a watch");
    let mut watch = Box::pin(watch);
    match watch.next().await {
        Some(Ok(WatchEvent::Error(status))) => status.code == 410,
        other => panic!("{other:?}"),
    }
}

const CATALOG: &str = "catalog.acme.example.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let mut server = store.server().await;
    let client = server.client(ADMIN).await;
    for name in ["shop", "secret"] {
        make_wide::<Namespace>(&client, json!({"metadata": {"name": name}})).await;
    }
    let_agent(&client, &["namespaces", "services", "pods", "serviceaccounts"]).await;
    make_service(&client, "shop", "catalog").await;
    make_endpoints(&client, "shop", "catalog").await;
    make_service(&client, "secret", "vault").await;
    make_service(&client, "kube-system", "metrics").await;

    let controller = Controller::start().await;
    controller.join(home.path()).await;
    let started = Instant::now();
    let agent = Agent::start(home.path(), &server, &["--exclude-namespace", "secret"]).await;
    let inventory = || agent.inventory();
    let catalog = |ready: u8| vec![format!(r#"shop/catalog {ready}/2 ["catalog"]"#)];
    until("the inventory", SOON, inventory, |all| *all == catalog(2)).await;
    let vip = until("the name", SOON, || agent.ask(CATALOG), Result::is_ok).await;
    eprintln!("start to first answer: {} ms", started.elapsed().as_millis());

    // A role that lacks nodes is no obstacle, and is said; so is a service that can't be exported.
    let external = json!({"type": "ExternalName", "externalName": "db.example.org"});
    make::<Service>(&client, json!({"metadata": meta("shop", "db"), "spec": external})).await;
    let said = |all: &Vec<String>| {
        let has = |start: &str, part: &str| all.iter().any(|p| p.starts_with(start) && p.contains(part));
        all.len() == 3
            && has("API multicluster.x-k8s.io", "does not have it")
            && has("every Node: can't be watched since", "let its role get, list and watch")
            && has("Service shop/db: spec.type", "can't be exported")
    };
    until("what is wrong", SOON, || controller.problems(), said).await;

    // Endpoints come and go.
    for ready in [false, true] {
        let changed = Instant::now();
        set_ready(&client, "catalog", ready).await;
        until("the endpoint", SOON, inventory, |all| *all == catalog(1 + u8::from(ready))).await;
        eprintln!("an endpoint is seen after {} ms", changed.elapsed().as_millis());
    }
    make_service(&client, "shop", "cart").await;
    let _ = until("a service without endpoints", SOON, || agent.ask("cart.acme.example.com"), Result::is_ok)
        .await;
    let before = Api::<Service>::all(client.clone()).list(&Default::default()).await.expect("a list");
    let version = before.metadata.resource_version.expect("a version");

    // The server dies: names and inventory stay as they are, and it is said.
    let all = agent.inventory().await;
    server.kill();
    let silent = |all: &Vec<String>| {
        all.iter().any(|p| p.starts_with("API server") && p.contains("does not answer since"))
    };
    until("the silence", SOON, || controller.problems(), silent).await;
    assert_eq!(agent.inventory().await, all);
    assert_eq!(agent.ask(CATALOG).await, vip);

    // Meanwhile the cluster changes, through another server.
    let other = store.server().await;
    let elsewhere = other.client(ADMIN).await;
    let services: Api<Service> = Api::namespaced(elsewhere.clone(), "shop");
    services.delete("cart", &DeleteParams::default()).await.expect("deleted");
    make_service(&elsewhere, "shop", "orders").await;
    set_ready(&elsewhere, "catalog", false).await;
    assert_eq!(agent.inventory().await, all, "the agent can't know it yet");

    // It is back, without the version that the agent's watches were at: a new list, held against what is known.
    store.run(&mut server).await;
    assert!(is_expired(&server.client(ADMIN).await, &version).await);
    let now = vec![r#"shop/catalog 1/2 ["catalog"]"#.to_owned(), "shop/orders 0/0 []".to_owned()];
    until("what changed meanwhile", SOON, inventory, |all| *all == now).await;
    let _ =
        until("the name of what is gone", SOON, || agent.ask("cart.acme.example.com"), Result::is_err).await;
    let _ =
        until("the name of what is new", SOON, || agent.ask("orders.acme.example.com"), Result::is_ok).await;
    assert_eq!(agent.ask(CATALOG).await, vip);
    until("the end of the silence", SOON, || controller.problems(), |all| said(all) && !silent(all)).await;
}
