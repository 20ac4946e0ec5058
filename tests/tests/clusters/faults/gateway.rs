//! A gateway's pod of each kind goes under load: with two of them, no call fails that begins after it.

use crate::{
    lab::Cluster,
    load::Load,
    onboard::{SHOP, URL, who},
    pair::Pair,
    world::SOON,
};
use tombolo_testkit::wait::until;

async fn one_of(cluster: &Cluster, name: &str) -> String {
    let label = format!("app.kubernetes.io/name={name}");
    let path = "jsonpath={.items[0].metadata.name}";
    cluster.kubectl(&["-n", "tombolo-system", "get", "pods", "-l", &label, "-o", path]).await.expect("a pod")
}

#[tokio::test]
async fn a_gateway_is_deleted_under_load() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    for (cluster, name) in [(one, "tombolo-egress"), (other, "tombolo-ingress")] {
        let pod = one_of(cluster, name).await;
        cluster.kubectl(&["-n", "tombolo-system", "delete", "pod", &pod]).await.expect("deleted");
        let rollout =
            ["-n", "tombolo-system", "rollout", "status", &format!("deploy/{name}"), "--timeout=180s"];
        cluster.kubectl(&rollout).await.expect("there are two again");
    }
    load.stop().await.assert_none_failed();
    assert_eq!(who(one).await, Ok(other.name.clone()));
    pair.down().await;
}

async fn kill(cluster: &Cluster, name: &str) {
    let pod = one_of(cluster, name).await;
    let path = "jsonpath={.status.containerStatuses[0].containerID}";
    let id = ["-n", "tombolo-system", "get", "pod", &pod, "-o", path];
    let id = cluster.kubectl(&id).await.expect("a container");
    let id = id.trim_start_matches("containerd://");
    let kill = ["ctr", "-n", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id];
    cluster.node_exec(1, &kill).await.expect("killed");
    let path = "jsonpath={.status.containerStatuses[0].restartCount}{.status.containerStatuses[0].ready}";
    let again = ["-n", "tombolo-system", "get", "pod", &pod, "-o", path];
    let again = || cluster.kubectl(&again);
    let _ = until("it is back", SOON, again, |now| now.as_deref() == Ok("1true")).await;
}

#[tokio::test]
async fn an_ingress_gateway_is_killed_under_load() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    kill(other, "tombolo-ingress").await;
    load.stop().await.assert_no_new_one_failed();
    pair.down().await;
}

/// Pods without a proxy are at the cluster's own proxying, which sends some to the dead gateway until it has heard of it. Pods with one try
/// the other gateway at once.
#[tokio::test]
async fn an_egress_gateway_is_killed_under_load() {
    let pair = Pair::up([0, 2]).await;
    let [one, _] = pair.clusters();
    one.kubectl(&["label", "namespace", SHOP, "tombolo.io/capture=sidecar"]).await.expect("a mode");
    let names = ["get", "mutatingwebhookconfiguration", "tombolo", "-o", "jsonpath={.webhooks[*].name}"];
    let asked = |names: &Result<String, String>| names.as_ref().is_ok_and(|names| names.contains("sidecar"));
    let _ = until("the API server asks the agents", SOON, || one.kubectl(&names), asked).await;
    let load = Load::start(one, URL).await;
    let proxy = ["-n", SHOP, "get", "pod", "load", "-o", "jsonpath={.spec.initContainers[*].name}"];
    let proxy = one.kubectl(&proxy).await.expect("a pod");
    assert!(proxy.contains("tombolo-proxy"), "it has a proxy: {proxy}");
    kill(one, "tombolo-egress").await;
    load.stop().await.assert_no_new_one_failed();
    pair.down().await;
}
