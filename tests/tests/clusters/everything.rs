//! All that is in a cluster, to compare what was there before with what is there after.

use crate::lab::Cluster;
use serde_json::Value;
use std::time::Duration;
use tombolo_testkit::wait::until;
use tombolo_tests::content::{Contents, Differences, named};

/// What comes and goes by itself: of these, or of what has their names in it, no two looks find the same.
const PASSING: [&str; 6] =
    ["events", "events.events.k8s.io", "pods", "replicasets.apps", "pods.metrics.k8s.io", "ipaddresses"];

/// Until the cluster's own controllers have written what they write about a change.
const SETTLED: Duration = Duration::from_secs(30);

/// Each object that there is of any kind, and what of it somebody chose.
pub(crate) async fn everything(cluster: &Cluster) -> Contents {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await.expect("kinds");
    let kinds: Vec<&str> =
        kinds.lines().filter(|kind| !PASSING.iter().any(|one| kind.starts_with(one))).collect();
    assert!(kinds.len() > 30, "these can't be all kinds: {kinds:?}");
    let all = cluster.kubectl(&["get", &kinds.join(","), "-A", "-o", "json"]).await.expect("objects");
    let all: Value = serde_json::from_str(&all).expect("JSON");
    let items = all["items"].as_array().expect("a list");
    let contents: Contents = items.iter().map(named).collect();
    let corefile = contents.keys().any(|name| name == "ConfigMap kube-system coredns ()");
    assert!(corefile && contents.len() > 100, "these can't be all objects: {:?}", contents.keys());
    contents
}

/// Fails when there is more or less than before, or when something is not as it was.
pub(crate) async fn assert_as_before(cluster: &Cluster, before: &Contents) {
    let name = &cluster.name;
    let Differences { left, gone, changed } = Differences::of(before, &everything(cluster).await);
    assert!(left.is_empty() && gone.is_empty(), "{name}: left: {left:#?}; gone: {gone:#?}; {changed:#?}");
    // whoever takes Tombolo out has CoreDNS as it was when that is done
    let dns: Vec<_> = changed.iter().filter(|line| line.contains(" kube-system coredns ")).collect();
    assert!(dns.is_empty(), "{name}: {dns:#?}");
    let look = async || Differences::of(before, &everything(cluster).await);
    until(&format!("{name} is as it was"), SETTLED, look, Differences::is_empty).await;
}
