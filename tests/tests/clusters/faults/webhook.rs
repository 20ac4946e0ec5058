//! The agents, which the API server asks about new pods of mode `sidecar`, hang, then are gone: such pods start as ever, without a proxy, and reach
//! global names as in mode `gateway`. Pods made after it have their proxy again.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]

use crate::{
    lab::Cluster,
    onboard::{SHOP, URL},
    pair::Pair,
    world::SOON,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tombolo_testkit::wait::{until, until_ok};

/// How long the API server waits for an answer, and some more for all else. A pod that waited for the agents' return took longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The shop's new pods get proxies, and the API server knows that.
pub(super) async fn sidecars(cluster: &Cluster) {
    cluster.kubectl(&["label", "namespace", SHOP, "tombolo.io/capture=sidecar"]).await.expect("a mode");
    let names = ["get", "mutatingwebhookconfiguration", "tombolo", "-o", "jsonpath={.webhooks[*].name}"];
    let asked = |names: &Result<String, String>| names.as_ref().is_ok_and(|names| names.contains("sidecar"));
    let _ = until("the API server asks the agents", SOON, || cluster.kubectl(&names), asked).await;
}

/// They get none any more.
pub(super) async fn no_sidecars(cluster: &Cluster) {
    cluster.kubectl(&["label", "namespace", SHOP, "tombolo.io/capture-"]).await.expect("no mode");
}

/// A pod of the shop's, without a proxy yet.
pub(super) fn pod(name: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": SHOP },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [{
            "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": ["serve", "-name", name],
            "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 },
        }] },
    });
    pod.to_string()
}

/// What would be put into a new pod; none is made. A Deployment counts as rolled out some moments before kube-proxy leads the API server to its pods.
pub(super) async fn would_get_a_proxy(cluster: &Cluster) -> Result<String, String> {
    let path = "jsonpath={.spec.initContainers[*].name}";
    cluster.kubectl_with(&["create", "--dry-run=server", "-f", "-", "-o", path], &pod("asked-only")).await
}

/// A new pod: what was put into it, and how long it took until it was ready.
async fn started(cluster: &Cluster, name: &str) -> (String, Duration) {
    let began = Instant::now();
    cluster.apply(&pod(name)).await.expect("made");
    let wait = ["-n", SHOP, "wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=180s"];
    cluster.kubectl(&wait).await.expect("it is ready");
    let took = began.elapsed();
    let inside = ["-n", SHOP, "get", "pod", name, "-o", "jsonpath={.spec.initContainers[*].name}"];
    let inside = cluster.kubectl(&inside).await.expect("a pod");
    println!("{name}: ready after {} ms, with {inside:?}", took.as_millis());
    (inside, took)
}

/// The cluster whose server answers this pod.
pub(super) async fn answers(cluster: &Cluster, pod: &str) -> Result<String, String> {
    let get = ["/tools", "get", "-timeout", "5s", URL];
    let said = cluster.exec(SHOP, &format!("pod/{pod}"), &get).await?;
    let said: Value = serde_json::from_str(&said).map_err(|error| format!("{error}: {said}"))?;
    said["server"].as_str().map(str::to_owned).ok_or_else(|| format!("no server in {said}"))
}

#[tokio::test]
async fn nobody_answers_about_new_pods() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    sidecars(one).await;
    let (inside, _) = started(one, "asked").await;
    assert!(inside.contains("tombolo-proxy"), "{inside}");

    let signal = async |signal: &str| {
        one.node_exec(1, &["pkill", signal, "-x", "tombolo-agent"]).await.expect("signalled");
    };
    signal("-STOP").await;
    let (inside, took) = started(one, "hung").await;
    signal("-CONT").await;
    assert_eq!(inside, "", "nobody could put anything in");
    assert!(took < PATIENCE, "{took:?}");
    assert_eq!(until_ok("it calls", SOON, || answers(one, "hung")).await, other.name);

    let agents = ["-n", "tombolo-system"];
    let scale = async |replicas: &str| {
        let scale = ["scale", "deploy/tombolo-agent", replicas];
        one.kubectl(&[&agents[..], &scale].concat()).await.expect("scaled");
    };
    scale("--replicas=0").await;
    let of_it = ["-l", "app.kubernetes.io/name=tombolo-agent", "--timeout=120s"];
    let gone = [&agents[..], &["wait", "--for=delete", "pod"], &of_it].concat();
    one.kubectl(&gone).await.expect("they end");
    let (inside, took) = started(one, "alone").await;
    assert_eq!(inside, "", "nobody could put anything in");
    assert!(took < PATIENCE, "{took:?}");
    // No agent is there, so nobody tells the gateways or CoreDNS anything: they go on with what they know.
    assert_eq!(answers(one, "alone").await, Ok(other.name.clone()));

    scale("--replicas=2").await;
    let status = ["rollout", "status", "deploy/tombolo-agent", "--timeout=180s"];
    one.kubectl(&[&agents[..], &status].concat()).await.expect("they are back");
    let proxy = |inside: &Result<String, String>| {
        inside.as_ref().is_ok_and(|inside| inside.contains("tombolo-proxy"))
    };
    let _ = until("the API server reaches them", SOON, || would_get_a_proxy(one), proxy).await;
    let (inside, _) = started(one, "after").await;
    assert!(inside.contains("tombolo-proxy"), "{inside}");
    assert_eq!(until_ok("it calls", SOON, || answers(one, "after")).await, other.name);

    no_sidecars(one).await;
    let delete = ["-n", SHOP, "delete", "pod", "asked", "hung", "alone", "after", "--timeout=120s"];
    one.kubectl(&delete).await.expect("they go");
    pair.park().await;
}
