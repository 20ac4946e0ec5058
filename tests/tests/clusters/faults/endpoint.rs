//! A service of both clusters loses its last endpoint here, and gets it back: every call is answered, none later than within a second.

use crate::{
    load::Load,
    onboard::{SHOP, URL, who},
    pair::Pair,
    world::SOON,
};
use tombolo_testkit::wait::until;

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
    pair.down().await;
}
