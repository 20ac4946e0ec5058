//! A node of each cluster is drained under load: gateways of either kind are on it, an agent, and one of the two servers.

use crate::{
    lab::Cluster,
    load::Load,
    onboard::{SHOP, URL, who},
    pair::Pair,
};
use serde_json::json;

/// Makes pods of these anew while only the second node takes any.
async fn moved(cluster: &Cluster, app: &str) {
    let pods = ["-n", SHOP, "get", "pods", "-l", &format!("app={app}"), "-o", "name"];
    let pods = cluster.kubectl(&pods).await.expect("pods");
    let pod = pods.lines().next().expect("a pod");
    cluster.kubectl(&["cordon", &cluster.node(1)]).await.expect("closed");
    cluster.kubectl(&["-n", SHOP, "delete", pod]).await.expect("deleted");
    let status = ["-n", SHOP, "rollout", "status", &format!("deploy/{app}"), "--timeout=180s"];
    cluster.kubectl(&status).await.expect("another one");
    cluster.kubectl(&["uncordon", &cluster.node(1)]).await.expect("open");
}

/// A second node with a part of everything.
async fn spread(cluster: &Cluster, servers: bool) {
    cluster.add_node(2).await.expect("a second node");
    // Made anew, each kind is spread over both nodes.
    let all = ["tombolo-agent", "tombolo-egress", "tombolo-ingress"];
    for name in all.map(|name| format!("deploy/{name}")) {
        cluster.kubectl(&["-n", "tombolo-system", "rollout", "restart", &name]).await.expect("restarted");
    }
    for name in all.map(|name| format!("deploy/{name}")) {
        let status = ["-n", "tombolo-system", "rollout", "status", &name, "--timeout=240s"];
        cluster.kubectl(&status).await.expect("it has rolled");
    }
    if servers {
        moved(cluster, "catalog").await;
    }
    let second = format!("spec.nodeName={}", cluster.node(2));
    let there = cluster.kubectl(&["get", "pods", "-A", "--field-selector", &second, "-o", "name"]).await;
    let there = there.expect("pods");
    for name in all.into_iter().chain(servers.then_some("catalog")) {
        assert!(there.contains(name), "{}: no {name}: {there}", cluster.name);
    }
}

async fn drain(cluster: &Cluster) {
    let drain = ["drain", &cluster.node(2), "--ignore-daemonsets", "--delete-emptydir-data"];
    cluster.kubectl(&[&drain[..], &["--timeout=240s"]].concat()).await.expect("drained");
}

#[tokio::test]
async fn nodes_are_drained() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    // What who runs servers has, too: one of them stays.
    let budget = json!({ "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": { "name": "catalog", "namespace": SHOP },
        "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "catalog" } } } });
    other.apply(&budget.to_string()).await.expect("a budget");
    spread(one, false).await;
    spread(other, true).await;
    let load = Load::start(one, URL).await;
    drain(one).await;
    drain(other).await;
    let counts = load.stop().await;
    counts.assert_none_failed();
    assert_eq!(who(one).await, Ok(other.name.clone()));
    for cluster in [one, other] {
        cluster.remove_node(2).await.expect("removed");
    }
    other.kubectl(&["-n", SHOP, "delete", "pdb", "catalog"]).await.expect("deleted");
    pair.park().await;
}
