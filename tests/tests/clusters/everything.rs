//! All that is in a cluster, to compare what was there before with what is there after.

use crate::lab::Cluster;
use std::collections::BTreeSet;

/// What comes and goes by itself: of these, or of what has their names in it, no two looks find the same.
const PASSING: [&str; 6] =
    ["events", "events.events.k8s.io", "pods", "replicasets.apps", "pods.metrics.k8s.io", "ipaddresses"];

/// A line for each object that there is of any kind, and what CoreDNS is told.
pub(crate) async fn everything(cluster: &Cluster) -> BTreeSet<String> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await.expect("kinds");
    let kinds: Vec<&str> =
        kinds.lines().filter(|kind| !PASSING.iter().any(|one| kind.starts_with(one))).collect();
    assert!(kinds.len() > 30, "these can't be all kinds: {kinds:?}");
    let columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,F:.metadata.finalizers";
    let all = ["get", &kinds.join(","), "-A", "--no-headers", "-o", columns];
    let all = cluster.kubectl(&all).await.expect("objects");
    let mut lines: BTreeSet<String> =
        all.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for what in [
        ["-n", "kube-system", "get", "configmap", "coredns", "-o", "jsonpath={.data}"],
        ["-n", "kube-system", "get", "deployment", "coredns", "-o", "jsonpath={.spec}"],
    ] {
        lines.insert(cluster.kubectl(&what).await.expect("CoreDNS"));
    }
    lines
}

/// Fails when there is more or less than before.
pub(crate) async fn assert_as_before(cluster: &Cluster, before: &BTreeSet<String>) {
    let after = everything(cluster).await;
    let more: Vec<_> = after.difference(before).collect();
    let less: Vec<_> = before.difference(&after).collect();
    assert!(more.is_empty() && less.is_empty(), "{}: left: {more:#?}; gone: {less:#?}", cluster.name);
}
