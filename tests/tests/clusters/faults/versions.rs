//! The custom resources of the Multi-Cluster Services API are there already, in a version that nobody knows, then in an older one beside it, then
//! in today's. Calls go on; what is not known is said and left alone; what is known is used. Tombolo has no custom resources of its own.

use super::exports::{self, GROUP};
use crate::{
    lab::Cluster,
    load::Load,
    onboard::{SHOP, URL, who},
    pair::Pair,
    world::SOON,
};
use tombolo_testkit::wait::{until, until_ok};

const UNKNOWN: &str = "v9";

/// What is said of the API among the cluster's problems.
async fn said(pair: &Pair, cluster: &Cluster) -> Result<String, String> {
    let shown = pair.world.tombolo(&["cluster", "show", &cluster.name]).await?;
    Ok(shown.lines().filter(|line| line.contains(GROUP)).collect::<Vec<_>>().join("\n"))
}

async fn import(cluster: &Cluster, version: &str, path: &str) -> Result<String, String> {
    let (kind, path) = (format!("serviceimports.{version}.{GROUP}"), format!("jsonpath={{{path}}}"));
    cluster.kubectl(&["-n", SHOP, "get", &kind, "catalog", "-o", &path]).await
}

#[tokio::test]
async fn custom_resources_of_another_version() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    let load = Load::start(one, URL).await;
    for cluster in [one, other] {
        exports::known(cluster, &[UNKNOWN]).await;
    }
    exports::export(other, UNKNOWN, "catalog").await;
    for cluster in [one, other] {
        let problem = || said(&pair, cluster);
        let told = |said: &Result<String, String>| {
            said.as_ref().is_ok_and(|said| said.contains("the cluster has v9"))
        };
        let _ = until("the version is said", SOON, problem, told).await;
    }
    assert!(import(one, UNKNOWN, ".metadata.name").await.is_err(), "nothing is made in an unknown version");

    let mut versions = vec![UNKNOWN];
    for version in ["v1alpha1", "v1beta1"] {
        versions.push(version);
        for cluster in [one, other] {
            exports::known(cluster, &versions).await;
        }
        // Made by nobody else, so it is in this version that the agent wrote it.
        let manager = r#".metadata.managedFields[?(@.manager=="tombolo-agent")].apiVersion"#;
        let of_version = format!("{GROUP}/{version}");
        let kind = format!("serviceimports.{version}.{GROUP}");
        let delete = ["-n", SHOP, "delete", &kind, "catalog", "--wait=false"];
        let written = async || {
            let written = import(one, version, manager).await?;
            // What is as it should be is left as it is, whoever wrote it in which version. What is not there is made.
            if !written.contains(&of_version) {
                one.kubectl(&delete).await?;
            }
            Ok::<_, String>(written)
        };
        let so = |all: &Result<String, String>| all.as_ref().is_ok_and(|all| all.contains(&of_version));
        let _ = until(&format!("an import in {version}"), SOON, written, so).await;
        for cluster in [one, other] {
            let problem = || said(&pair, cluster);
            let _ = until("nothing is wrong with it", SOON, problem, |said| said == &Ok(String::new())).await;
        }
    }
    until_ok("an import", SOON, || import(one, "v1beta1", ".metadata.name")).await;
    let export = ["-n", SHOP, "delete", &format!("serviceexports.v1beta1.{GROUP}"), "catalog"];
    other.kubectl(&export).await.expect("deleted");
    let gone = || import(one, "v1beta1", ".metadata.name");
    let _ = until("the import is gone", SOON, gone, Result::is_err).await;
    load.stop().await.assert_none_failed();
    for cluster in [one, other] {
        exports::forgotten(cluster).await;
    }
    // And that it is gone is no trouble either.
    until_ok("calls are answered", SOON, || who(one)).await;
    pair.park().await;
}
