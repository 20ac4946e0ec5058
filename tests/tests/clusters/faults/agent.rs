//! Agents are deleted by force, of both clusters: one at a time nobody notices; all of a cluster at once, what is resolved goes on, and the new
//! ones need no token.

use crate::{
    lab::Cluster,
    load::Load,
    onboard::{SHOP, URL, connected, who},
    pair::Pair,
    world::SOON,
};
use tombolo_testkit::wait::until_ok;

const OURS: &str = "tombolo-system";
const AGENTS: &str = "app.kubernetes.io/name=tombolo-agent";

async fn kill(pair: &Pair, cluster: &Cluster, which: &[&str]) {
    let force = ["-n", OURS, "delete", "pods", "--force", "--grace-period=0"];
    cluster.kubectl(&[&force[..], which].concat()).await.expect("deleted");
    let rollout = ["-n", OURS, "rollout", "status", "deploy/tombolo-agent", "--timeout=180s"];
    cluster.kubectl(&rollout).await.expect("there are two again");
    until_ok("it is connected", SOON, || connected(&pair.world, &cluster.name)).await;
}

#[tokio::test]
async fn agents_are_deleted() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    for cluster in [one, other] {
        let names = ["-n", OURS, "get", "pods", "-l", AGENTS, "-o", "jsonpath={.items[*].metadata.name}"];
        let names = cluster.kubectl(&names).await.expect("agents");
        assert_eq!(names.split_whitespace().count(), 2, "{names}");
        for name in names.split_whitespace() {
            kill(&pair, cluster, &[name]).await;
        }
    }
    load.stop().await.assert_none_failed();

    let name = ["/tools", "resolve", "catalog.acme.example.com"];
    let address = one.exec(SHOP, "deploy/caller", &name).await.expect("an address");
    let load =
        Load::start(one, &format!("http://{}:8082/", address.lines().next().unwrap_or_default())).await;
    for cluster in [one, other] {
        kill(&pair, cluster, &["-l", AGENTS]).await;
    }
    load.stop().await.assert_none_failed();
    assert_eq!(until_ok("it resolves", SOON, || who(one)).await, other.name);
    pair.down().await;
}
