//! The policy `fail`, in a cluster in which `sidecar` is the mode of all namespaces that say nothing: while the agents are away, no such pod is made
//! without its proxy. All others are, above all those that bring the agents back; then those that waited are made, too.

use super::webhook::{answers, pod, would_get_a_proxy};
use crate::{lab::Cluster, onboard::SHOP, pair::Pair, world::SOON};
use serde_json::{Value, json};
use std::time::Instant;
use tombolo_testkit::wait::{until, until_ok};

const OURS: [&str; 2] = ["-n", "tombolo-system"];
/// What the API server says of a pod about which it can ask nobody.
const NOBODY: &str = "failed calling webhook";
/// A namespace in another mode.
const OPEN: &str = "open";

async fn ours(cluster: &Cluster, args: &[&str]) -> String {
    cluster.kubectl(&[&OURS[..], args].concat()).await.unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

async fn install(pair: &Pair, cluster: &Cluster, options: &[&str]) {
    let order = ["cluster", "install", &cluster.name, "--ingress", "node-port"];
    pair.world.tombolo(&[&order[..], options].concat()).await.expect("it is installed");
}

/// The API server goes by these policies, of the namespaces with the label and of those without.
async fn policies(cluster: &Cluster, wanted: &str) {
    let path = "jsonpath={.webhooks[*].failurePolicy}";
    let get = ["get", "mutatingwebhookconfiguration", "tombolo", "-o", path];
    let _ = until("the policy", SOON, || cluster.kubectl(&get), |now| now.as_deref() == Ok(wanted)).await;
}

/// Whether the API server takes a pod; none is made.
async fn would_be_made(cluster: &Cluster, namespace: &str, labels: &Value) -> Result<String, String> {
    let container = json!({ "name": "tools", "image": "localhost/tools:dev", "args": ["sleep"] });
    let meta = json!({ "name": "asked-only", "namespace": namespace, "labels": labels });
    let pod =
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": { "containers": [container] } });
    cluster.kubectl_with(&["create", "--dry-run=server", "-f", "-", "-o", "name"], &pod.to_string()).await
}

/// A Deployment of the pod.
fn deployment(name: &str) -> String {
    let pod: Value = serde_json::from_str(&pod(name)).expect("a pod");
    let labels = json!({ "app": name });
    let all = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": pod["metadata"], "spec": {
        "replicas": 1, "selector": { "matchLabels": labels },
        "template": { "metadata": { "labels": labels }, "spec": pod["spec"] } } });
    all.to_string()
}

#[tokio::test]
async fn pods_wait_for_an_answer() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    install(&pair, one, &["--capture", "sidecar", "--webhook-failure", "fail"]).await;
    policies(one, "Fail Fail").await;
    let open = json!({ "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": OPEN, "labels": { "tombolo.io/capture": "gateway" } } });
    one.apply(&open.to_string()).await.expect("a namespace");
    let proxy = |inside: &Result<String, String>| {
        inside.as_ref().is_ok_and(|inside| inside.contains("tombolo-proxy"))
    };
    let _ = until("pods get proxies", SOON, || would_get_a_proxy(one), proxy).await;

    ours(one, &["scale", "deploy/tombolo-agent", "--replicas=0"]).await;
    let of_it = ["-l", "app.kubernetes.io/name=tombolo-agent", "--timeout=120s"];
    ours(one, &[&["wait", "--for=delete", "pod"][..], &of_it].concat()).await;

    // None is made without a proxy, by hand or by a Deployment, whose status says why.
    let refused = one.apply(&pod("alone")).await.expect_err("nobody could be asked about it");
    assert!(refused.contains(NOBODY), "{refused}");
    one.apply(&deployment("waits")).await.expect("a Deployment");
    let path = "jsonpath={.status.conditions[?(@.type=='ReplicaFailure')].message}";
    let why = ["-n", SHOP, "get", "deploy", "waits", "-o", path];
    let said = |why: &Result<String, String>| why.as_ref().is_ok_and(|why| why.contains(NOBODY));
    let _ = until("it can make no pods", SOON, || one.kubectl(&why), said).await;
    let pods = ["-n", SHOP, "get", "pods", "-o", "name"];
    let pods = one.kubectl(&pods).await.expect("pods");
    assert!(!pods.contains("alone") && !pods.contains("waits"), "{pods}");
    // So it is where nobody said anything of the namespace.
    let refused = would_be_made(one, "default", &json!({})).await.expect_err("by the cluster's default");
    assert!(refused.contains(NOBODY), "{refused}");

    // About all others nobody is asked: those of the system and our own, of other modes, and those that say so themselves.
    for namespace in ["kube-system", "tombolo-system", OPEN] {
        would_be_made(one, namespace, &json!({}))
            .await
            .unwrap_or_else(|error| panic!("{namespace}: {error}"));
    }
    let out = json!({ "tombolo.io/inject": "false" });
    would_be_made(one, SHOP, &out).await.expect("a pod that wants no proxy");
    let path = "jsonpath={.items[0].metadata.name}";
    let label = "app.kubernetes.io/name=tombolo-egress";
    let gateway = ours(one, &["get", "pods", "-l", label, "-o", path]).await;
    ours(one, &["delete", "pod", &gateway, "--timeout=120s"]).await;
    let made = async || {
        let count =
            ours(one, &["get", "deploy", "tombolo-egress", "-o", "jsonpath={.status.replicas}"]).await;
        let names = ours(one, &["get", "pods", "-l", label, "-o", "name"]).await;
        (count, names.contains(&gateway))
    };
    // it is ready once an agent is there that tells it what it is
    until("another egress gateway is made", SOON, made, |made| *made == ("2".to_owned(), false)).await;

    // Their own pods start without anybody who answers; then those that waited are made, with a proxy.
    let began = Instant::now();
    ours(one, &["scale", "deploy/tombolo-agent", "--replicas=2"]).await;
    ours(one, &["rollout", "status", "deploy/tombolo-agent", "--timeout=180s"]).await;
    let _ = until("the API server reaches them", SOON, || would_get_a_proxy(one), proxy).await;
    one.kubectl(&["-n", SHOP, "rollout", "status", "deploy/waits", "--timeout=240s"])
        .await
        .expect("it is made");
    println!(
        "those that waited are ready {} ms after the agents were called back",
        began.elapsed().as_millis()
    );
    let path = "jsonpath={.items[*].spec.initContainers[*].name}";
    let inside = ["-n", SHOP, "get", "pods", "-l", "app=waits", "-o", path];
    assert_eq!(one.kubectl(&inside).await.as_deref(), Ok("tombolo-init tombolo-proxy"));
    let name = one.kubectl(&[
        "-n",
        SHOP,
        "get",
        "pods",
        "-l",
        "app=waits",
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ]);
    let name = name.await.expect("a pod");
    assert_eq!(until_ok("it calls", SOON, || answers(one, &name)).await, other.name);

    one.kubectl(&["-n", SHOP, "delete", "deploy", "waits", "--timeout=120s"]).await.expect("it goes");
    one.kubectl(&["delete", "namespace", OPEN, "--timeout=120s"]).await.expect("it goes");
    install(&pair, one, &["--reset"]).await;
    policies(one, "Ignore").await;
    pair.park().await;
}
