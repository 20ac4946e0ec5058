//! A metrics server measures what the pods of a cluster use, and there is one egress gateway, which gets more to do than is meant for one: its own
//! metrics are asked for without a pause, beside the calls. The cluster's autoscaler makes more of them by what is measured. When nobody measures any
//! more there is one again. No call fails.

use crate::{
    lab::{Cluster, checkout},
    load::Load,
    onboard::URL,
    pair::Pair,
    world::{SOON, World},
};
use serde_json::Value;
use std::{fs, time::Duration};
use tombolo_testkit::wait::{until, until_ok};

const OURS: &str = "tombolo-system";
const EGRESS: &str = "tombolo-egress";
/// It is measured every ten seconds and looked at every fifteen, and counts once a pod has begun to be steady.
const LATER: Duration = Duration::from_secs(300);

async fn install(world: &World, cluster: &Cluster, option: &[&str]) {
    let order = ["cluster", "install", &cluster.name, "--ingress", "node-port"];
    world.tombolo(&[&order[..], option].concat()).await.expect("it is installed");
}

fn metrics_server() -> String {
    let file = checkout().join("tests/kubernetes/manifests/metrics-server.yaml");
    fs::read_to_string(file).expect("the manifest")
}

/// How many there should be, and how many are ready.
async fn counts(cluster: &Cluster) -> (u32, u32) {
    let path = "jsonpath={.spec.replicas} {.status.readyReplicas}";
    let said = cluster.kubectl(&["-n", OURS, "get", "deploy", EGRESS, "-o", path]).await.unwrap_or_default();
    let mut numbers = said.split_whitespace().map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What each egress gateway uses, as it is measured.
async fn used(cluster: &Cluster) -> Result<Vec<String>, String> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{OURS}/pods");
    let said = cluster.kubectl(&["get", "--raw", &path]).await?;
    let said: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let of_egress =
        |pod: &&Value| pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(EGRESS));
    let pods = said["items"].as_array().into_iter().flatten().filter(of_egress);
    let used: Vec<String> = pods.map(|pod| pod["containers"][0]["usage"].to_string()).collect();
    if used.is_empty() { Err(said.to_string()) } else { Ok(used) }
}

/// How many took calls.
async fn busy(cluster: &Cluster) -> usize {
    let label = format!("app.kubernetes.io/name={EGRESS}");
    let pods = cluster.kubectl(&["-n", OURS, "get", "pods", "-l", &label, "-o", "name"]).await;
    let mut count = 0;
    for pod in pods.unwrap_or_default().lines() {
        let log = cluster.kubectl(&["-n", OURS, "logs", pod, "--tail=100"]).await.unwrap_or_default();
        count += usize::from(log.contains("\"direction\""));
    }
    count
}

async fn autoscalers(cluster: &Cluster) -> Result<String, String> {
    cluster.kubectl(&["-n", OURS, "get", "horizontalpodautoscalers", "-o", "name"]).await
}

#[tokio::test]
async fn a_metrics_server_measures_egress_gateways() {
    let pair = Pair::up([0, 1]).await;
    let [one, _] = pair.clusters();
    install(&pair.world, one, &["--egress-replicas", "1"]).await;
    until("one egress gateway", SOON, || counts(one), |counts| *counts == (1, 1)).await;

    one.load(&["metrics-server"]).await.expect("its image, which takes minutes where it is not built yet");
    one.apply(&metrics_server()).await.expect("a metrics server");
    let wait = ["wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=180s"];
    one.kubectl(&wait).await.expect("it answers");
    let before = until_ok("what the gateway uses is measured", SOON, || used(one)).await;
    println!("it uses, with nothing to do: {before:?}");
    let both = |found: &Result<String, String>| found.as_ref().is_ok_and(|found| found.lines().count() == 2);
    let _ = until("the agent asks for autoscalers", SOON, || autoscalers(one), both).await;
    assert_eq!(counts(one).await.0, 1, "nothing is to do yet");

    let load = Load::start(one, URL).await;
    let path = "jsonpath={.items[0].status.podIP}";
    let label = format!("app.kubernetes.io/name={EGRESS}");
    let address = one.kubectl(&["-n", OURS, "get", "pods", "-l", &label, "-o", path]).await.expect("a pod");
    // a small machine has no room for so many calls, each of which is work for three others, too
    let work = Load::without_pause(one, &format!("http://{address}:15014/metrics")).await;
    let more = until("there are more", LATER, || counts(one), |(all, ready)| *all > 1 && ready == all).await;
    println!("{} egress gateways; they use {:?}", more.0, used(one).await);
    until("at least two take calls", SOON, || busy(one), |busy| *busy > 1).await;
    work.stop().await.assert_none_failed();
    load.stop().await.assert_none_failed();

    one.kubectl_with(&["delete", "-f", "-", "--timeout=120s"], &metrics_server()).await.expect("it goes");
    let none = |found: &Result<String, String>| found.as_ref().is_ok_and(|found| found.trim().is_empty());
    let _ = until("the autoscalers go", SOON, || autoscalers(one), none).await;
    until("as many as were ordered", SOON, || counts(one), |counts| *counts == (1, 1)).await;
    install(&pair.world, one, &["--reset"]).await;
    until("two, as ever", SOON, || counts(one), |counts| *counts == (2, 2)).await;
    pair.park().await;
}
