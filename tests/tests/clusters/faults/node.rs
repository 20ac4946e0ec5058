//! A node with gateways of either kind is drained under load.

use crate::{
    load::Load,
    onboard::{URL, who},
    pair::Pair,
};

#[tokio::test]
async fn a_node_is_drained() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    for cluster in [one, other] {
        cluster.add_node(2).await.expect("a second node");
        // Made anew, each kind is spread over both nodes.
        for name in ["deploy/tombolo-egress", "deploy/tombolo-ingress"] {
            cluster.kubectl(&["-n", "tombolo-system", "rollout", "restart", name]).await.expect("restarted");
            let status = ["-n", "tombolo-system", "rollout", "status", name, "--timeout=240s"];
            cluster.kubectl(&status).await.expect("it has rolled");
        }
        let second = format!("spec.nodeName={}", cluster.node(2));
        let there = ["-n", "tombolo-system", "get", "pods", "--field-selector", &second, "-o", "name"];
        let pods = cluster.kubectl(&there).await.expect("pods");
        assert!(
            pods.contains("tombolo-egress") && pods.contains("tombolo-ingress"),
            "{}: {pods}",
            cluster.name
        );
    }
    let load = Load::start(one, URL).await;
    for cluster in [one, other] {
        let node = cluster.node(2);
        let drain = ["drain", &node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s"];
        cluster.kubectl(&drain).await.expect("drained");
    }
    load.stop().await.assert_none_failed();
    assert_eq!(who(one).await, Ok(other.name.clone()));
    for cluster in [one, other] {
        cluster.remove_node(2).await.expect("removed");
    }
    pair.down().await;
}
