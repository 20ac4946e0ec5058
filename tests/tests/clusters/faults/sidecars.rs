//! Everything is upgraded, and goes back, while a pod with a proxy beside it (capture mode `sidecar`) calls another that has one: in the cluster that
//! calls and in the one that serves. The proxies stay as they are meanwhile, and hear of everything from agents that are replaced; pods that are made
//! anew have the proxy of the version in force. No call fails.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]

use super::webhook;
use crate::{
    lab::Cluster,
    load::Load,
    onboard::{SHOP, URL, another_version},
    pair::Pair,
    proxied::{Space, is_from},
    world::SOON,
};
use std::time::Duration;
use tombolo_testkit::wait::{until, until_ok};

const SPACE: Space = Space(SHOP);
/// How long a slow request takes, of four at once: a gateway that ends goes on with it for longer.
const UNDER_WAY: Duration = Duration::from_secs(15);
/// Of a pod: the image of its proxy.
const PROXY: &str = "spec.initContainers[?(@.name=='tombolo-proxy')].image";

/// The servers are made anew, one after the other, and have a proxy of this version.
async fn servers_have(cluster: &Cluster, tag: &str) {
    for args in [&["restart", "deploy/catalog"][..], &["status", "deploy/catalog", "--timeout=240s"]] {
        cluster.kubectl(&[&["-n", SHOP, "rollout"], args].concat()).await.expect("they are made anew");
    }
    let image = async || {
        let path = format!("jsonpath={{.items[*].{PROXY}}}");
        cluster.kubectl(&["-n", SHOP, "get", "pods", "-l", "app=catalog", "-o", &path]).await
    };
    let wanted = format!("localhost/tombolo-gateway:{tag}");
    let _ = until("one server, with its proxy", SOON, image, |image| image.as_ref() == Ok(&wanted)).await;
}

/// What comes to the server that there is now is seen by its proxy, with the caller's own proof.
async fn is_seen(one: &Cluster, other: &Cluster) {
    let workload = format!("/cluster/{}/ns/{SHOP}/sa/default", one.name);
    let seen = async || {
        let taken = SPACE.log(other, "catalog", "inbound").await;
        let known = taken.iter().filter(|line| is_from(line, &workload)).count();
        if known > 0 { Ok(known) } else { Err(format!("{taken:?}")) }
    };
    until_ok("the server's proxy knows who calls", SOON, seen).await;
}

async fn slow_ones_ended_well(slow: Load<'_>, what: &str) {
    let counts = slow.stop().await;
    println!(
        "slow requests of a pod with a proxy during {what}: {}, failed: {}",
        counts.requests, counts.failed
    );
    assert!(counts.requests >= 4 && counts.failed == 0, "{what}: {counts:?}");
}

#[tokio::test]
async fn everything_is_upgraded_beside_sidecars() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    for cluster in [one, other] {
        webhook::sidecars(cluster).await;
        another_version(cluster).await;
    }
    servers_have(other, "dev").await;

    let load = Load::start(one, URL).await;
    let caller = async || {
        let path = format!("jsonpath={{.{PROXY}}}");
        one.kubectl(&["-n", SHOP, "get", "pod", "load", "-o", &path]).await.expect("it calls")
    };
    assert_eq!(caller().await, "localhost/tombolo-gateway:dev", "it has a proxy");
    is_seen(one, other).await;

    let slow = Load::of_slow_requests(one, URL, UNDER_WAY).await;
    for cluster in [other, one] {
        let upgrade = ["cluster", "upgrade", &cluster.name, "--to", "next"];
        let said = pair.world.tombolo(&upgrade).await.expect("it is upgraded");
        assert!(said.contains("from dev to next"), "{said}");
    }
    slow_ones_ended_well(slow, "an upgrade").await;
    servers_have(other, "next").await;
    is_seen(one, other).await;

    let slow = Load::of_slow_requests(one, URL, UNDER_WAY).await;
    for cluster in [one, other] {
        let said = pair.world.tombolo(&["cluster", "rollback", &cluster.name]).await.expect("it goes back");
        assert!(said.contains("back from next to dev"), "{said}");
    }
    slow_ones_ended_well(slow, "a rollback").await;
    servers_have(other, "dev").await;
    is_seen(one, other).await;

    assert_eq!(
        caller().await,
        "localhost/tombolo-gateway:dev",
        "the caller's proxy is the one it began with"
    );
    let counts = load.stop().await;
    println!(
        "requests during upgrade, rollback and new servers: {}, failed: {}",
        counts.requests, counts.failed
    );
    counts.assert_none_failed();
    for cluster in [one, other] {
        webhook::no_sidecars(cluster).await;
    }
    pair.park().await;
}
