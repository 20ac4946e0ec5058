//! The API server of either cluster is away, and etcd: calls go on, and all is well after it.

use crate::{
    lab::{Act, Component},
    load::Load,
    onboard::{URL, connected, who},
    pair::Pair,
    world::SOON,
};
use std::time::{Duration, Instant};
use tombolo_testkit::wait::{until, until_ok};

/// How long it is away: longer than a Lease is good for, and than watches wait for.
const AWAY: Duration = Duration::from_secs(60);

#[tokio::test]
async fn calls_go_on_without_an_api_server() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    for cluster in [one, other] {
        for (component, away) in [(Component::ApiServer, AWAY), (Component::Etcd, Duration::ZERO)] {
            let ready = || cluster.kubectl(&["get", "--raw", "/readyz", "--request-timeout=3s"]);
            cluster.service(Act::Stop, component).await.expect("stopped");
            let began = Instant::now();
            let _ = until("the API server is away", SOON, ready, Result::is_err).await;
            // Meanwhile the agents keep what they know, and say so to the controller.
            let stands = || async { (began.elapsed() >= away, connected(&pair.world, &cluster.name).await) };
            let _ = until("the time is over, and it is connected", SOON, stands, |(over, on)| {
                *over && on.is_ok()
            })
            .await;
            cluster.service(Act::Start, component).await.expect("started");
            until_ok("the API server is back", SOON, ready).await;
        }
    }
    let counts = load.stop().await;
    counts.assert_none_failed();
    assert_eq!(counts.of(other), counts.requests, "{counts:?}");
    // And what changes afterwards is followed.
    let scale = ["-n", "shop", "scale", "deploy/catalog", "--replicas=0"];
    other.kubectl(&scale).await.expect("scaled");
    let _ = until("nobody answers", SOON, || who(one), Result::is_err).await;
    other.kubectl(&["-n", "shop", "scale", "deploy/catalog", "--replicas=1"]).await.expect("scaled");
    until_ok("somebody answers again", SOON, || who(one)).await;
    pair.down().await;
}
