//! A service of both clusters loses its last endpoint here, and gets it back: every call is answered, none later than within a second. Then the
//! endpoint is killed: whatever is called a second later is answered.

use crate::{
    lab::Cluster,
    load::{Load, now},
    onboard::{SHOP, URL, who},
    pair::Pair,
    world::SOON,
};
use std::time::{Duration, SystemTime};
use tombolo_testkit::wait::until;

/// Within which it fails over.
const OVER: Duration = Duration::from_secs(1);

/// The only server here is killed and its pod deleted in the same moment; says when it was dead at the latest.
async fn killed(cluster: &Cluster) -> SystemTime {
    let pods = ["-n", SHOP, "get", "pods", "-l", "app=catalog", "-o"];
    let path = "jsonpath={.items[0].status.containerStatuses[0].containerID}";
    let id = cluster.kubectl(&[&pods[..], &[path]].concat()).await.expect("a container");
    let scale = ["-n", SHOP, "scale", "deploy/catalog", "--replicas=0"];
    let kill = [
        "ctr",
        "-n",
        "k8s.io",
        "tasks",
        "kill",
        "--signal",
        "SIGKILL",
        id.trim_start_matches("containerd://"),
    ];
    let (scaled, dead) = tokio::join!(cluster.kubectl(&scale), cluster.node_exec(1, &kill));
    scaled.and(dead).expect("it is killed");
    now()
}

#[tokio::test]
async fn the_last_endpoint_here_goes_and_comes() {
    let pair = Pair::up([1, 1]).await;
    let [one, other] = pair.clusters();
    let answers = async |from: &str| {
        let _ = until("it answers", SOON, || who(one), |who| who.as_deref() == Ok(from)).await;
    };
    answers(&one.name).await;
    let scale = async |replicas: &str| {
        let scale = ["-n", SHOP, "scale", "deploy/catalog", replicas];
        one.kubectl(&scale).await.expect("scaled");
    };
    let load = Load::start(one, URL).await;
    scale("--replicas=0").await;
    answers(&other.name).await;
    let counts = load.stop().await;
    counts.assert_none_failed();
    assert!(counts.of(one) > 0 && counts.of(other) > 0, "{counts:?}");
    assert!(counts.max_ms < 1_000.0, "one waited for {} ms: {counts:?}", counts.max_ms);

    let load = Load::start(one, URL).await;
    scale("--replicas=1").await;
    answers(&one.name).await;
    let counts = load.stop().await;
    counts.assert_none_failed();
    assert!(counts.of(one) > 0 && counts.of(other) > 0, "{counts:?}");
    assert!(counts.max_ms < 1_000.0, "one waited for {} ms: {counts:?}", counts.max_ms);

    if pair.lab.is_ours() {
        let load = Load::start(one, URL).await;
        let dead = killed(one).await;
        answers(&other.name).await;
        let counts = load.stop().await;
        assert!(counts.of(one) > 0 && counts.of(other) > 0, "{counts:?}");
        counts.assert_answered_after(dead + OVER);
    }
    pair.park().await;
}
