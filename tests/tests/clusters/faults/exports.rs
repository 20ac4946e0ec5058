//! The custom resources of the Multi-Cluster Services API, in the versions that a test wants.

use crate::{lab::Cluster, onboard::SHOP};
use serde_json::{Value, json};

pub(crate) const GROUP: &str = "multicluster.x-k8s.io";
/// By its whole name, for kubectl remembers for minutes which versions there were.
pub(crate) const IMPORTS: &str = "serviceimports.v1beta1.multicluster.x-k8s.io";
const RESOURCES: [(&str, &str); 2] =
    [("ServiceExport", "serviceexports"), ("ServiceImport", "serviceimports")];

fn names() -> [String; 2] {
    RESOURCES.map(|(_, plural)| format!("crd/{plural}.{GROUP}"))
}

/// The cluster knows these versions, and keeps objects in the last one.
pub(crate) async fn known(cluster: &Cluster, versions: &[&str]) {
    // All that the true ones have, without their checks: `tests/tests/clusters/conformance.rs` has those.
    let any =
        json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let resource = |(kind, plural): (&str, &str)| {
        let version = |name: &&str| {
            json!({ "name": name, "served": true, "storage": Some(name) == versions.last(),
                "schema": any, "subresources": { "status": {} } })
        };
        let versions: Vec<Value> = versions.iter().map(version).collect();
        json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.{GROUP}") },
            "spec": { "group": GROUP, "scope": "Namespaced", "versions": versions,
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() } } })
    };
    let all = json!({ "apiVersion": "v1", "kind": "List", "items": RESOURCES.map(resource) });
    cluster.apply(&all.to_string()).await.expect("custom resources");
    let [exports, imports] = names();
    let wait = ["wait", "--for=condition=Established", &exports, &imports, "--timeout=60s"];
    cluster.kubectl(&wait).await.expect("they are known");
}

/// A Service of the shop is exported.
pub(crate) async fn export(cluster: &Cluster, version: &str, name: &str) {
    let export = json!({ "apiVersion": format!("{GROUP}/{version}"), "kind": "ServiceExport",
        "metadata": { "name": name, "namespace": SHOP } });
    cluster.apply(&export.to_string()).await.expect("exported");
}

/// The cluster has neither the resources nor objects of them.
pub(crate) async fn forgotten(cluster: &Cluster) {
    let [exports, imports] = names();
    cluster.kubectl(&["delete", &exports, &imports, "--timeout=60s"]).await.expect("they go");
}
