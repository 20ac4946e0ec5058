//! Join tokens that are no good: used, of another cluster, revoked. The agent says so, and joins with a good one in the same place.

use crate::{
    lab::{Cluster, Lab},
    onboard::connected,
    world::{SOON, World},
};
use tombolo_testkit::wait::{until, until_ok};

/// A token for this name, in a file; the name is made where there is none of it.
async fn token(world: &World, name: &str, file: &str, new: bool) -> String {
    let file = world.path(file).display().to_string();
    let verb = if new { "create" } else { "token" };
    world.tombolo(&["cluster", verb, name, "--join-token-file", &file]).await.expect("a token");
    file
}

async fn give(world: &World, cluster: &Cluster, file: &str) {
    let line = format!(
        "kubectl -n tombolo-system create secret generic tombolo-join --from-file=token={file} --dry-run=client -o yaml | kubectl apply -f -"
    );
    world.paste(cluster, &line, "").await.expect("the Secret");
}

/// That an agent of this cluster complains of its token, in such words.
async fn refused(cluster: &Cluster, words: &str) {
    let logs = [
        "-n",
        "tombolo-system",
        "logs",
        "-l",
        "app.kubernetes.io/name=tombolo-agent",
        "--tail=-1",
        "--prefix",
    ];
    let said = || cluster.kubectl(&logs);
    let heard = |said: &Result<String, String>| said.as_ref().is_ok_and(|said| said.contains(words));
    let _ = until(&format!("it says {words:?}"), SOON, said, heard).await;
}

#[tokio::test]
async fn tokens_that_are_no_good() {
    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    let world = World::start().await;
    // A good one.
    let good = token(&world, "c1", "good", true).await;
    world.paste(one, "tombolo cluster manifest c1 | kubectl apply -f -", "").await.expect("the manifest");
    give(&world, one, &good).await;
    until_ok("it joins", SOON, || connected(&world, "c1")).await;

    // Of another cluster: one that was used, then one that was not.
    let mine = token(&world, "c2", "mine", true).await;
    world.paste(other, "tombolo cluster manifest c2 | kubectl apply -f -", "").await.expect("the manifest");
    give(&world, other, &good).await;
    refused(other, "token").await;
    assert!(connected(&world, "c2").await.is_err());
    let fresh = token(&world, "c1", "fresh", false).await;
    give(&world, other, &fresh).await;
    refused(other, "token").await;
    assert!(connected(&world, "c2").await.is_err());
    connected(&world, "c1").await.expect("the one that it was stolen from stays");

    // A good one in the same place ends it.
    give(&world, other, &mine).await;
    until_ok("it joins after all", SOON, || connected(&world, "c2")).await;
    for cluster in [one, other] {
        let kubeconfig = cluster.kubeconfig.display().to_string();
        let uninstall = ["cluster", "uninstall", &cluster.name, "--yes", "--kubeconfig", &kubeconfig];
        world.tombolo(&uninstall).await.expect("it is taken out");
    }
}
