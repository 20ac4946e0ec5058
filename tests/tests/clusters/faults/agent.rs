//! Agents' pods are deleted by force, in both clusters at once: first those that hold the Lease, then all. Calls go on, names resolve all the
//! while, another replica takes over the writing, and the new ones need no token.

use crate::{
    lab::Cluster,
    load::Load,
    onboard::{URL, connected, who},
    pair::Pair,
    world::SOON,
};
use tombolo_testkit::wait::{until, until_ok};

const OURS: [&str; 2] = ["-n", "tombolo-system"];
const AGENTS: [&str; 2] = ["-l", "app.kubernetes.io/name=tombolo-agent"];

async fn ours(cluster: &Cluster, args: &[&str]) -> Result<String, String> {
    cluster.kubectl(&[&OURS[..], args].concat()).await
}

/// The replica that writes.
async fn leader(cluster: &Cluster) -> String {
    let path = "jsonpath={.spec.holderIdentity}";
    let holder = async || ours(cluster, &["get", "lease", "tombolo-agent", "-o", path]).await;
    until("a replica writes", SOON, holder, |holder| holder.as_ref().is_ok_and(|name| !name.is_empty()))
        .await
        .expect("a holder")
}

async fn delete(cluster: &Cluster, which: &[&str]) {
    let force = ["delete", "pods", "--force", "--grace-period=0"];
    ours(cluster, &[&force[..], which].concat()).await.expect("deleted");
}

/// What somebody deletes is there again, so somebody writes.
async fn mended(cluster: &Cluster) {
    let budget = ["get", "pdb", "tombolo-egress", "-o", "jsonpath={.metadata.uid}"];
    let before = ours(cluster, &budget).await.expect("a budget");
    ours(cluster, &["delete", "pdb", "tombolo-egress"]).await.expect("deleted");
    let now = async || ours(cluster, &budget).await;
    let new = |uid: &Result<String, String>| uid.as_ref().is_ok_and(|uid| *uid != before);
    let _ = until("a replica mends", SOON, now, new).await;
}

async fn two_again(pair: &Pair, cluster: &Cluster) {
    ours(cluster, &["rollout", "status", "deploy/tombolo-agent", "--timeout=180s"]).await.expect("two again");
    until_ok("it is connected", SOON, || connected(&pair.world, &cluster.name)).await;
}

async fn without_its_leader(pair: &Pair, cluster: &Cluster) {
    let first = leader(cluster).await;
    delete(cluster, &[&first]).await;
    // The one that is deleted may write to its last moment, and mend what is deleted beside it.
    let holder = async || leader(cluster).await;
    until("another one writes", SOON, holder, |holder| *holder != first).await;
    mended(cluster).await;
    two_again(pair, cluster).await;
}

async fn without_any(pair: &Pair, cluster: &Cluster) {
    delete(cluster, &AGENTS).await;
    mended(cluster).await;
    two_again(pair, cluster).await;
}

#[tokio::test]
async fn agents_are_deleted() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    tokio::join!(without_its_leader(&pair, one), without_its_leader(&pair, other));
    tokio::join!(without_any(&pair, one), without_any(&pair, other));
    let counts = load.stop().await;
    counts.assert_none_failed();
    assert_eq!(counts.of(other), counts.requests, "{counts:?}");
    assert_eq!(who(one).await, Ok(other.name.clone()));
    pair.park().await;
}
