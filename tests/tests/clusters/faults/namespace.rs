//! A namespace with exported services is deleted, and made again: its names go everywhere, nothing hangs, and the name keeps its address.

use super::exports;
use crate::{
    lab::Cluster,
    onboard::{SHOP, run, who},
    pair::Pair,
    world::SOON,
};
use tombolo_testkit::wait::{until, until_ok};

/// What DNS says of the name, but for how much longer that may be kept.
async fn address(cluster: &Cluster) -> Result<String, String> {
    let dns = ["/tools", "dns", "catalog.acme.example.com", "A"];
    let said = cluster.exec(SHOP, "deploy/caller", &dns).await?;
    let words = |line: &str| {
        line.split(' ').filter(|word| word.parse::<u32>().is_err()).collect::<Vec<_>>().join(" ")
    };
    Ok(said.lines().map(words).collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn a_namespace_with_exports_goes() {
    let pair = Pair::up([0, 2]).await;
    let [one, other] = pair.clusters();
    let before = address(one).await.expect("an answer");
    assert!(before.contains("240."), "{before}");
    for cluster in [one, other] {
        exports::known(cluster, &["v1beta1"]).await;
    }
    exports::export(other, "v1beta1", "catalog").await;
    let imported = || one.kubectl(&["-n", SHOP, "get", exports::IMPORTS, "catalog"]);
    until_ok("it is imported", SOON, imported).await;
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

    let _ = until("its import is gone", SOON, imported, Result::is_err).await;

    run(other, 1).await;
    exports::export(other, "v1beta1", "catalog").await;
    until_ok("it is imported again", SOON, imported).await;
    // The namespace of the import goes, too, and comes back.
    one.kubectl(&["delete", "namespace", SHOP, "--timeout=180s"]).await.expect("it goes");
    run(one, 0).await;
    until_ok("it is imported once more", SOON, imported).await;
    assert_eq!(until_ok("it answers again", SOON, || who(one)).await, other.name);
    assert_eq!(until_ok("its address", SOON, || address(one)).await, before, "an address is for life");
    for cluster in [one, other] {
        exports::forgotten(cluster).await;
    }
    pair.park().await;
}
