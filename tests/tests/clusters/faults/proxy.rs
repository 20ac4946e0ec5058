//! The proxies of nodes (capture mode `node`) are replaced under load, in the cluster that calls and in the one that serves: by a rollout of their
//! DaemonSet alone, then by an upgrade of everything and the way back. There is one of them on a node, so for some seconds there is none.

use crate::{
    lab::Cluster,
    load::Load,
    onboard::{SHOP, URL, another_version, who},
    pair::Pair,
    world::SOON,
};
use serde_json::Value;
use std::time::Duration;
use tombolo_testkit::wait::until_ok;

const PROXIES: &str = "daemonset/tombolo-node";
/// How long a slow request takes: a proxy that ends goes on with it for longer.
const UNDER_WAY: Duration = Duration::from_secs(15);

async fn ours(cluster: &Cluster, args: &[&str]) -> Result<String, String> {
    cluster.kubectl(&[&["-n", "tombolo-system"], args].concat()).await
}

/// The shop's pods are in the mode.
async fn captured(pair: &Pair, cluster: &Cluster) {
    let install = ["cluster", "install", &cluster.name, "--node"];
    pair.world.tombolo(&install).await.expect("proxies on nodes");
    cluster.kubectl(&["label", "namespace", SHOP, "tombolo.io/capture=node"]).await.expect("a mode");
}

/// As it was.
async fn captured_no_more(pair: &Pair, cluster: &Cluster) {
    cluster.kubectl(&["label", "namespace", SHOP, "tombolo.io/capture-"]).await.expect("no mode");
    let install = ["cluster", "install", &cluster.name, "--no-node"];
    pair.world.tombolo(&install).await.expect("no proxies on nodes");
}

/// What a node's proxy said of calls of the shop's pods in the calling cluster. One that was replaced says nothing of those before.
async fn said(cluster: &Cluster, one: &Cluster, direction: &str) -> Result<(), String> {
    let caller = format!("/cluster/{}/ns/{SHOP}/sa/default", one.name);
    let log = ours(cluster, &["logs", PROXIES, "-c", "gateway", "--tail=200"]).await?;
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = lines.any(|line| {
        let is_callers = line["source"].as_str().is_some_and(|source| source.ends_with(&caller));
        is_callers && line["direction"] == direction && line["source_verified"] == true
    });
    if found { Ok(()) } else { Err(format!("{}: no {direction} of {caller}: {log}", cluster.name)) }
}

/// Calls pass the proxies that there are now: that of the caller's node, and that of the server's, with the caller's own proof.
async fn pass_both(one: &Cluster, other: &Cluster) {
    let both = async || {
        who(one).await?;
        said(one, one, "outbound").await?;
        said(other, one, "inbound").await
    };
    until_ok("calls pass the proxies of both nodes", SOON, both).await;
}

/// The pods of the DaemonSet are replaced, and nothing else.
async fn rolled(cluster: &Cluster) {
    ours(cluster, &["rollout", "restart", PROXIES]).await.expect("told to roll");
    ours(cluster, &["rollout", "status", PROXIES, "--timeout=240s"]).await.expect("it has rolled");
}

async fn image(cluster: &Cluster) -> String {
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    ours(cluster, &["get", PROXIES, "-o", image]).await.expect("the proxies' image")
}

#[tokio::test]
async fn nodes_proxies_are_replaced_under_load() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    tokio::join!(captured(&pair, one), captured(&pair, other));
    pass_both(one, other).await;
    for cluster in [one, other] {
        another_version(cluster).await;
    }

    let load = Load::start(one, URL).await;
    let slow = Load::of_slow_requests(one, URL, UNDER_WAY).await;
    for cluster in [one, other] {
        rolled(cluster).await;
        pass_both(one, other).await;
    }
    for cluster in [other, one] {
        let upgrade = ["cluster", "upgrade", &cluster.name, "--to", "next"];
        pair.world.tombolo(&upgrade).await.expect("it is upgraded");
        assert!(image(cluster).await.ends_with("tombolo-gateway:next"), "the proxies are upgraded, too");
        pass_both(one, other).await;
    }
    for cluster in [one, other] {
        pair.world.tombolo(&["cluster", "rollback", &cluster.name]).await.expect("it goes back");
        assert!(image(cluster).await.ends_with("tombolo-gateway:dev"), "the proxies go back, too");
        pass_both(one, other).await;
    }
    let slow = slow.stop().await;
    println!("slow requests while nodes' proxies were replaced: {}, failed: {}", slow.requests, slow.failed);
    let counts = load.stop().await;
    println!("requests while nodes' proxies were replaced: {}, failed: {}", counts.requests, counts.failed);
    counts.assert_none_failed();
    assert!(slow.requests > 8 && slow.failed == 0, "{slow:?}");

    for cluster in [one, other] {
        captured_no_more(&pair, cluster).await;
    }
    pair.park().await;
}
