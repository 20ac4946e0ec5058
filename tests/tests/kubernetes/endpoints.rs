//! Who may write an EndpointSlice of one namespace can't send the gateways anywhere: what no application has is left out, and with
//! `--foreign-endpoints refuse` what is no pod of that namespace.

use crate::{
    let_agent, make, make_service, make_wide, meta,
    server::{ADMIN, Store},
    world::{Agent, Controller, SOON},
};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use tombolo_testkit::wait::until;

/// A pod that runs, with this address.
async fn pod(client: &Client, namespace: &str, name: &str, ip: &str) {
    let spec = json!({"serviceAccountName": "catalog", "containers": [{"name": "c", "image": "none"}]});
    make::<Pod>(client, json!({"metadata": meta(namespace, name), "spec": spec})).await;
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
}

/// A slice of the catalog that somebody wrote by hand.
async fn slice(client: &Client, name: &str, addresses: &[&str]) {
    let mut metadata = meta("shop", name);
    metadata["labels"] = json!({"kubernetes.io/service-name": "catalog"});
    let ports = json!([{"name": "web", "port": 8080}, {"name": "alt", "port": 8080}]);
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    let slice = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    make::<EndpointSlice>(client, slice).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_endpoints_are_held_to() {
    let home = tempfile::tempdir().expect("a folder");
    let store = Store::start(&home.path().join("kubernetes"));
    let server = store.server().await;
    let client = server.client(ADMIN).await;
    for name in ["shop", "bank"] {
        make_wide::<Namespace>(&client, json!({"metadata": {"name": name}})).await;
    }
    let_agent(&client, &["namespaces", "services", "pods", "serviceaccounts", "nodes"]).await;
    make_service(&client, "shop", "catalog").await;
    pod(&client, "shop", "catalog-1", "10.1.0.1").await;
    pod(&client, "bank", "vault-1", "10.1.0.2").await;
    slice(&client, "by-hand", &["10.1.0.1", "10.1.0.2", "192.0.2.7", "168.63.129.16", "240.0.0.7"]).await;

    let controller = Controller::start().await;
    controller.join(home.path()).await;
    let said = |all: &[String], part: &str| {
        all.iter()
            .any(|problem| problem.starts_with("EndpointSlice shop/by-hand: ") && problem.contains(part))
    };
    // as Kubernetes has it, but for what no application has
    let agent = Agent::start(home.path(), &server, &[]).await;
    let count = |all: &Vec<String>, count: &str| all.len() == 1 && all[0].starts_with(count);
    until("the inventory", SOON, || agent.inventory(), |all| count(all, "shop/catalog 3/3 ")).await;
    let both = |all: &Vec<String>| {
        said(all, "168.63.129.16 is where a cloud") && said(all, "240.0.0.7 is a virtual address")
    };
    until("what is left out", SOON, || controller.problems(), both).await;
    drop(agent);

    // and pods of the namespace alone
    let agent = Agent::start(home.path(), &server, &["--foreign-endpoints", "refuse"]).await;
    until("the inventory", SOON, || agent.inventory(), |all| count(all, "shop/catalog 1/1 ")).await;
    let foreign = |all: &Vec<String>| said(all, "10.1.0.2, 192.0.2.7 are no pod of this namespace");
    until("what is left out", SOON, || controller.problems(), foreign).await;
    // the pod goes, and its address to another namespace
    let pods: Api<Pod> = Api::namespaced(client.clone(), "shop");
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete("catalog-1", &at_once).await.expect("deleted");
    pod(&client, "bank", "vault-2", "10.1.0.1").await;
    until("nobody is left", SOON, || agent.inventory(), |all| count(all, "shop/catalog 0/0 ")).await;
}
