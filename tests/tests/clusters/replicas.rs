//! Two replicas of the agent, of which one joins the cluster: the other hears of it when kubelet looks at its mounts again, which it
//! does once in a minute or two unless it is made to.

#![expect(clippy::print_stdout, reason = "what is measured is for people to see")]

use crate::{
    everything::{assert_as_before, everything},
    lab::Lab,
    world::World,
};
use std::time::Instant;

#[tokio::test]
async fn the_other_replica_hears_of_the_join_within_seconds() {
    let lab = Lab::up(1).await;
    let [one] = lab.clusters.as_slice() else { panic!("a cluster") };
    let world = World::start().await;
    let before = everything(one).await;
    let kubeconfig = one.kubeconfig.display().to_string();
    world.tombolo(&["cluster", "join", &one.name, "--kubeconfig", &kubeconfig]).await.expect("it joins");
    // one is connected; kubelet left alone would look after 60 to 90 s
    let began = Instant::now();
    let all = ["-n", "tombolo-system", "rollout", "status", "deployment/tombolo-agent", "--timeout=30s"];
    let ready = one.kubectl(&all).await;
    println!("one replica connected -> both ready: {} ms", began.elapsed().as_millis());
    let told = "jsonpath={.items[*].metadata.annotations.tombolo\\.io/state-kept}";
    let told = one.kubectl(&["-n", "tombolo-system", "get", "pods", "-o", told]).await.expect("pods");
    let uninstall = ["cluster", "uninstall", &one.name, "--yes", "--kubeconfig", &kubeconfig];
    world.tombolo(&uninstall).await.expect("it is taken out");
    ready.expect("both are ready");
    assert_eq!(told.split_whitespace().count(), 2, "both pods were told: {told}");
    assert_as_before(one, &before).await;
}
