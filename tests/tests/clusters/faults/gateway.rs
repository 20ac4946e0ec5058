//! A gateway's pod of each kind goes under load: with two of them, no call fails that begins after it.

use super::webhook;
use crate::{
    lab::Cluster,
    load::{Load, now},
    onboard::{SHOP, URL, who},
    pair::Pair,
    world::SOON,
};
use std::time::SystemTime;
use tombolo_testkit::wait::until;

async fn one_of(cluster: &Cluster, name: &str) -> String {
    let label = format!("app.kubernetes.io/name={name}");
    let path = "jsonpath={.items[0].metadata.name}";
    cluster.kubectl(&["-n", "tombolo-system", "get", "pods", "-l", &label, "-o", path]).await.expect("a pod")
}

/// There are so many, and each of them takes calls.
pub(super) async fn all_are_used(cluster: &Cluster, name: &str, count: usize) {
    let ours = ["-n", "tombolo-system"];
    let get = ["get", "pods", "-l", &format!("app.kubernetes.io/name={name}"), "-o", "name"];
    let pods = cluster.kubectl(&[&ours[..], &get].concat()).await.expect("pods");
    assert_eq!(pods.lines().count(), count, "{pods}");
    for pod in pods.lines() {
        let log = async || cluster.kubectl(&[&ours[..], &["logs", pod, "--tail=100"]].concat()).await;
        let calls =
            |log: &Result<String, String>| log.as_ref().is_ok_and(|log| log.contains("\"direction\""));
        let _ = until(&format!("{pod} takes calls"), SOON, log, calls).await;
    }
}

#[tokio::test]
async fn a_gateway_is_deleted_under_load() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    for (cluster, name) in [(one, "tombolo-egress"), (other, "tombolo-ingress")] {
        all_are_used(cluster, name, 2).await;
        let pod = one_of(cluster, name).await;
        cluster.kubectl(&["-n", "tombolo-system", "delete", "pod", &pod]).await.expect("deleted");
        let rollout =
            ["-n", "tombolo-system", "rollout", "status", &format!("deploy/{name}"), "--timeout=180s"];
        cluster.kubectl(&rollout).await.expect("there are two again");
    }
    load.stop().await.assert_none_failed();
    assert_eq!(who(one).await, Ok(other.name.clone()));
    pair.park().await;
}

/// Kills it, and says when it was dead at the latest.
async fn kill(cluster: &Cluster, name: &str) -> SystemTime {
    let pod = one_of(cluster, name).await;
    let path = "jsonpath={.status.containerStatuses[0].containerID}";
    let id = ["-n", "tombolo-system", "get", "pod", &pod, "-o", path];
    let id = cluster.kubectl(&id).await.expect("a container");
    let id = id.trim_start_matches("containerd://");
    let kill = r#"pid=$(ctr -n k8s.io tasks ls | awk -v id="$0" '$1 == id { print $2 }')
        kill -9 "$pid"; while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done"#;
    cluster.node_exec(1, &["bash", "-euc", kill, id]).await.expect("killed");
    let dead = now();
    let path = "jsonpath={.status.containerStatuses[0].restartCount}{.status.containerStatuses[0].ready}";
    let again = ["-n", "tombolo-system", "get", "pod", &pod, "-o", path];
    let again = || cluster.kubectl(&again);
    let _ = until("it is back", SOON, again, |now| now.as_deref() == Ok("1true")).await;
    dead
}

#[tokio::test]
async fn an_ingress_gateway_is_killed_under_load() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    let dead = kill(other, "tombolo-ingress").await;
    load.stop().await.assert_none_failed_after(dead);
    pair.park().await;
}

/// Pods without a proxy are at the cluster's own proxying, which sends some to the dead gateway until it has heard of it. Pods with one try
/// the other gateway at once.
#[tokio::test]
async fn an_egress_gateway_is_killed_under_load() {
    let pair = Pair::up([0, 2]).await;
    let [one, _] = pair.clusters();
    webhook::sidecars(one).await;
    let load = Load::start(one, URL).await;
    let proxy = ["-n", SHOP, "get", "pod", "load", "-o", "jsonpath={.spec.initContainers[*].name}"];
    let proxy = one.kubectl(&proxy).await.expect("a pod");
    assert!(proxy.contains("tombolo-proxy"), "it has a proxy: {proxy}");
    let dead = kill(one, "tombolo-egress").await;
    load.stop().await.assert_none_failed_after(dead);
    webhook::no_sidecars(one).await;
    pair.park().await;
}
