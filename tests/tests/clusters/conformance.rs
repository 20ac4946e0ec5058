//! The upstream conformance suite of the Multi-Cluster Services API, on two clusters that Tombolo joined; and that nothing of
//! the API is left once it is uninstalled.

use crate::{
    everything::{assert_as_before, everything},
    lab::{Cluster, Lab},
    world::{SOON, World},
};
use serde_json::json;
use tombolo_testkit::wait::until;

/// A namespace with an export, which stays when Tombolo goes.
const STAYS: &str = "stays";

/// Joins and installs, all in one go.
async fn install(world: &World, cluster: &Cluster) {
    let kubeconfig = cluster.kubeconfig.display().to_string();
    world.tombolo(&["cluster", "join", &cluster.name, "--kubeconfig", &kubeconfig]).await.expect("it joins");
    let install = ["cluster", "install", &cluster.name, "--ingress", "node-port"];
    world.tombolo(&install).await.expect("it is installed");
}

/// A Service of the namespace that stays.
async fn service(cluster: &Cluster) {
    let items = json!([
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": STAYS } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "catalog", "namespace": STAYS },
          "spec": { "ports": [{ "port": 80 }] } },
    ]);
    let all = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    cluster.apply(&all.to_string()).await.expect("applied");
}

/// The namespaces of the suite, which it deletes without waiting for their end.
async fn of_the_suite(cluster: &Cluster) -> Vec<String> {
    let all = cluster.kubectl(&["get", "namespaces", "-o", "name"]).await.expect("namespaces");
    all.lines().filter(|name| name.contains("mcs-conformance")).map(str::to_owned).collect()
}

/// What there is of the API in that namespace: imports, slices of theirs, and how many conditions the export has.
async fn of_the_api(cluster: &Cluster) -> Vec<usize> {
    let count = async |args: &[&str]| {
        let said = cluster.kubectl(&[&["-n", STAYS, "get"], args].concat()).await;
        said.map_or(usize::MAX, |said| said.split_whitespace().count())
    };
    vec![
        count(&["serviceimports", "-o", "name"]).await,
        count(&["endpointslices", "-l", "multicluster.kubernetes.io/source-cluster", "-o", "name"]).await,
        count(&["serviceexports", "-o", "jsonpath={.items[*].status.conditions[*].type}"]).await,
    ]
}

#[tokio::test]
async fn the_multi_cluster_services_api() {
    Lab::machines();
    let lab = Lab::up(2).await;
    let [one, other] = lab.clusters.as_slice() else { panic!("two clusters") };
    lab.conformance(&["--prepare"]).await.expect("the suite and the custom resources");
    for cluster in [one, other] {
        service(cluster).await;
    }
    let export = json!({ "apiVersion": "multicluster.x-k8s.io/v1beta1", "kind": "ServiceExport",
                         "metadata": { "name": "catalog", "namespace": STAYS } });
    one.apply(&export.to_string()).await.expect("exported");
    let before = [everything(one).await, everything(other).await];

    let world = World::start().await;
    tokio::join!(install(&world, one), install(&world, other));
    until("it is imported", SOON, || of_the_api(one), |all| *all == [1, 1, 3]).await;
    until("everywhere", SOON, || of_the_api(other), |all| *all == [1, 1, 0]).await;

    let counts = lab.conformance(&[]).await.unwrap_or_else(|error| panic!("{error}"));
    println!("{}", counts.trim());
    for cluster in [one, other] {
        until("the suite is gone", SOON, || of_the_suite(cluster), Vec::is_empty).await;
    }

    for (cluster, before) in [one, other].into_iter().zip(before) {
        let kubeconfig = cluster.kubeconfig.display().to_string();
        let uninstall = ["cluster", "uninstall", &cluster.name, "--yes", "--kubeconfig", &kubeconfig];
        world.tombolo(&uninstall).await.expect("it is taken out");
        assert_eq!(of_the_api(cluster).await, [0, 0, 0], "{}", cluster.name);
        assert_as_before(cluster, &before).await;
        cluster.kubectl(&["delete", "namespace", STAYS, "--timeout=120s"]).await.expect("it goes");
        let resources =
            ["serviceexports", "serviceimports"].map(|kind| format!("{kind}.multicluster.x-k8s.io"));
        let [exports, imports] = &resources;
        cluster.kubectl(&["delete", "crd", exports, imports, "--timeout=60s"]).await.expect("they go");
    }
}
