//! Services, EndpointSlices and pods, as many as a large cluster has.

use futures::{StreamExt as _, stream};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    fmt::Debug,
    sync::LazyLock,
    time::{Duration, Instant},
};

const NAMESPACES: usize = 50;
/// How many services; TOMBOLO_SERVICES says another number.
static SERVICES: LazyLock<usize> = LazyLock::new(|| {
    std::env::var("TOMBOLO_SERVICES")
        .map_or(5_000, |text| text.parse().expect("TOMBOLO_SERVICES is a number"))
});
pub(crate) const ENDPOINTS: usize = 10; // of each
/// Requests at the same time.
const TOGETHER: usize = 32;
/// Changes of an endpoint a second.
const CHANGES: u32 = 20;

pub(crate) fn services() -> usize {
    *SERVICES
}

fn namespace(service: usize) -> String {
    format!("scale-{}", service % NAMESPACES)
}

pub(crate) fn namespaces() -> impl Iterator<Item = String> {
    (0..NAMESPACES).map(namespace)
}

async fn make<K>(api: &Api<K>, object: Value)
where
    K: Clone + Debug + Serialize + DeserializeOwned,
{
    let object: K = serde_json::from_value(object).expect("an object");
    api.create(&PostParams::default(), &object).await.expect("made");
}

/// How many Services the agent has made.
pub(crate) async fn exposed(client: &Client) -> usize {
    let api: Api<Service> = Api::namespaced(client.clone(), "tombolo-system");
    let page = api.list_metadata(&ListParams::default().limit(1)).await.expect("a list");
    let more = page.metadata.remaining_item_count.unwrap_or_default();
    page.items.len() + usize::try_from(more).expect("a number of objects")
}

/// The agent may everything: its rights are another test's.
pub(crate) async fn rights(client: &Client) {
    let group = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "tombolo"}]);
    let of = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let binding = json!({"metadata": {"name": "tombolo"}, "subjects": group, "roleRef": of});
    make::<ClusterRoleBinding>(&Api::all(client.clone()), binding).await;
    make::<Namespace>(&Api::all(client.clone()), json!({ "metadata": { "name": "tombolo-system" } })).await;
}

/// The name of endpoint `at` of a service, and its address.
fn pod(service: usize, at: usize) -> (String, String) {
    let all = service * ENDPOINTS + at;
    let address = format!("10.{}.{}.{}", 128 + all / 65_536, all / 256 % 256, all % 256);
    (format!("service-{service}-7d9c8b6f5-{all:05}"), address)
}

/// A pod as the kubelet reports it, with what agents read and much that they do not.
async fn make_pod(client: &Client, service: usize, at: usize) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace(service));
    let (name, address) = pod(service, at);
    let account = format!("service-{service}");
    let env: Vec<Value> =
        (0..10).map(|n| json!({ "name": format!("SETTING_{n}"), "value": "some value" })).collect();
    let container = json!({ "name": "server", "image": "registry.example.com/server:1", "env": env,
                            "ports": [{ "name": "http", "containerPort": 8080 }] });
    let metadata = json!({ "name": name, "labels": { "app": account, "pod-template-hash": "7d9c8b6f5" } });
    make(&pods, json!({ "metadata": metadata, "spec": {
        "serviceAccountName": account, "nodeName": format!("node-{}", at % 100), "containers": [container] } }))
    .await;
    let status = json!({ "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
                                     "conditions": [{ "type": "Ready", "status": "True" }] } });
    pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.expect("it runs");
}

async fn make_service(client: &Client, number: usize) {
    let (namespace, name) = (namespace(number), format!("service-{number}"));
    let ports =
        json!([{ "name": "http", "port": 8080, "appProtocol": "http" }, { "name": "grpc", "port": 9090 }]);
    let service = json!({ "metadata": { "name": name, "labels": { "team": format!("team-{}", number % 7) } }, "spec": { "ports": ports } });
    make::<Service>(&Api::namespaced(client.clone(), &namespace), service).await;
    for at in 0..ENDPOINTS {
        make_pod(client, number, at).await;
    }
    let endpoint = |at: usize| {
        let (pod, address) = pod(number, at);
        json!({ "addresses": [address], "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": format!("node-{}", at % 100), "targetRef": { "kind": "Pod", "namespace": namespace, "name": pod } })
    };
    let slice = json!({
        "metadata": { "name": slice(number), "labels": { "kubernetes.io/service-name": name } },
        "addressType": "IPv4", "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }, { "name": "grpc", "port": 9090, "protocol": "TCP" }],
    });
    make::<EndpointSlice>(&Api::namespaced(client.clone(), &namespace), slice).await;
}

fn slice(service: usize) -> String {
    format!("service-{service}-x7x7x")
}

/// All of them.
pub(crate) async fn fill(client: &Client) {
    let all: Api<Namespace> = Api::all(client.clone());
    for name in namespaces() {
        make(&all, json!({ "metadata": { "name": name } })).await;
    }
    stream::iter(0..services())
        .map(|number| make_service(client, number))
        .buffer_unordered(TOGETHER)
        .collect::<()>()
        .await;
}

/// Endpoints come and go, 20 a second, for this long. How many changes there were.
pub(crate) async fn churn(client: &Client, long: Duration) -> usize {
    let (began, mut changes) = (Instant::now(), 0);
    let mut pace = tokio::time::interval(Duration::from_secs(1) / CHANGES);
    while began.elapsed() < long {
        pace.tick().await;
        let number = changes % services();
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace(number));
        let change = json!([{ "op": "replace", "path": "/endpoints/0/conditions/ready", "value": false }]);
        let patch: Patch<EndpointSlice> = Patch::Json(serde_json::from_value(change).expect("a patch"));
        slices.patch(&slice(number), &PatchParams::default(), &patch).await.expect("patched");
        changes += 1;
    }
    changes
}
