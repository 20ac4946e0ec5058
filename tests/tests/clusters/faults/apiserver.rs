//! The API servers of both clusters are away for minutes, one dead and the other silent, and for a time one alone; then etcd under them is.
//! Calls go on, the clusters stay connected, and all is well after it.

use crate::{
    lab::{Act, Cluster, Component},
    load::Load,
    onboard::{SHOP, URL, connected, who},
    pair::Pair,
    world::SOON,
};
use std::time::{Duration, Instant};
use tombolo_testkit::wait::{until, until_ok};

/// How long it is away: longer than a Lease is good for, and than watches wait for.
const AWAY: Duration = Duration::from_secs(120);
/// How much later the second one's begins and ends.
const LATER: Duration = Duration::from_secs(15);

async fn ready(cluster: &Cluster) -> Result<String, String> {
    cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=3s"]).await
}

/// It is away for so long, and what the cluster's agents say is heard nevertheless.
async fn away(pair: &Pair, cluster: &Cluster, component: Component, [go, come]: [Act; 2], long: Duration) {
    cluster.service(go, component).await.expect("away");
    let began = Instant::now();
    let _ = until("the API server is away", SOON, || ready(cluster), Result::is_err).await;
    // Meanwhile the agents keep what they know, and say so to the controller.
    let over = || async {
        connected(&pair.world, &cluster.name).await.expect("it is connected all the while");
        began.elapsed() >= long
    };
    let _ = until("the time is over", SOON, over, |over| *over).await;
    cluster.service(come, component).await.expect("started");
    until_ok("the API server is back", SOON, || ready(cluster)).await;
}

#[tokio::test]
async fn calls_go_on_without_an_api_server() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    let later = async {
        // for this long only one is away: that is the fault
        tokio::time::sleep(LATER).await;
        away(&pair, other, Component::ApiServer, [Act::Stop, Act::Start], AWAY).await;
    };
    let silent = [Act::Freeze, Act::Thaw];
    tokio::join!(away(&pair, one, Component::ApiServer, silent, AWAY), later);
    for cluster in [one, other] {
        away(&pair, cluster, Component::Etcd, [Act::Stop, Act::Start], Duration::ZERO).await;
    }
    let counts = load.stop().await;
    counts.assert_none_failed();
    assert_eq!(counts.of(other), counts.requests, "{counts:?}");
    // And what changes afterwards is followed.
    let scale = async |replicas: &str| {
        other.kubectl(&["-n", SHOP, "scale", "deploy/catalog", replicas]).await.expect("scaled");
    };
    scale("--replicas=0").await;
    let _ = until("nobody answers", SOON, || who(one), Result::is_err).await;
    scale("--replicas=1").await;
    until_ok("somebody answers again", SOON, || who(one)).await;
    pair.park().await;
}
