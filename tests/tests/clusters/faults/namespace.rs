//! A namespace with exported services is deleted, and made again: its names go everywhere, nothing hangs, and the name keeps its address.

use crate::{
    lab::Cluster,
    onboard::{SHOP, run, who},
    pair::Pair,
    world::SOON,
};
use tombolo_testkit::wait::{until, until_ok};

async fn address(cluster: &Cluster) -> Result<String, String> {
    let dns = ["/tools", "dns", "catalog.acme.example.com", "A"];
    cluster.exec(SHOP, "deploy/caller", &dns).await
}

#[tokio::test]
async fn a_namespace_with_exports_goes() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let before = address(one).await.expect("an answer");
    assert!(before.contains("240."), "{before}");
    other.kubectl(&["delete", "namespace", SHOP, "--timeout=180s"]).await.expect("it goes");
    let gone = || address(one);
    let _ = until("the name is gone", SOON, gone, |said| {
        said.as_ref().is_ok_and(|said| said.starts_with("NXDOMAIN"))
    })
    .await;
    let services = ["-n", "tombolo-system", "get", "services", "-o", "name"];
    let left = || one.kubectl(&services);
    let none = |said: &Result<String, String>| said.as_ref().is_ok_and(|said| !said.contains("/g-catalog"));
    let _ = until("its Service is gone", SOON, left, none).await;

    run(other, 1).await;
    assert_eq!(until_ok("it answers again", SOON, || who(one)).await, other.name);
    assert_eq!(until_ok("its address", SOON, || address(one)).await, before, "an address is for life");
    pair.down().await;
}
