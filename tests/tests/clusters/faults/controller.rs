//! The controller is away while pods of both clusters are replaced, ours among them: calls go on.

use crate::{
    load::Load,
    onboard::{SHOP, URL, connected, who},
    pair::Pair,
    world::SOON,
};
use tombolo_testkit::wait::until_ok;

#[tokio::test]
async fn pods_roll_without_a_controller() {
    let mut pair = Pair::up([0, 2]).await;
    let load = Load::start(&pair.lab.clusters[0], URL).await;
    pair.world.away().await;
    for (cluster, namespace, deployment) in [
        (1, SHOP, "catalog"),
        (0, "tombolo-system", "tombolo-egress"),
        (1, "tombolo-system", "tombolo-ingress"),
        (0, "tombolo-system", "tombolo-agent"),
        (1, "tombolo-system", "tombolo-agent"),
    ] {
        let cluster = &pair.lab.clusters[cluster];
        let deployment = format!("deploy/{deployment}");
        cluster.kubectl(&["-n", namespace, "rollout", "restart", &deployment]).await.expect("restarted");
        let status = ["-n", namespace, "rollout", "status", &deployment, "--timeout=240s"];
        let done = cluster.kubectl(&status).await;
        assert!(done.is_ok(), "{}: {deployment}: {done:?}", cluster.name);
    }
    let counts = load.stop().await;
    pair.world.back().await;
    let [one, other] = pair.clusters();
    counts.assert_none_failed();
    for cluster in [one, other] {
        until_ok("it is connected again", SOON, || connected(&pair.world, &cluster.name)).await;
    }
    assert_eq!(who(one).await, Ok(other.name.clone()));
    pair.down().await;
}
