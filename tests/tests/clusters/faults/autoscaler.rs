//! The egress gateways are measured to have much to do: the cluster's own autoscaler makes more of them, the agent lets it, and each takes calls.
//! Where nobody measures any more there are as many as were ordered. No call fails. What is measured is made up, by custom resources in the place of
//! a metrics server; who reads it and scales is Kubernetes itself.

use super::gateway::all_are_used;
use crate::{lab::Cluster, load::Load, onboard::URL, pair::Pair, world::SOON};
use serde_json::{Value, json};
use tombolo_testkit::wait::until;

const OURS: &str = "tombolo-system";
const EGRESS: &str = "tombolo-egress";
const MEASURES: &str = "pods.metrics.k8s.io";

/// The API at which a metrics server tells how much pods have to do.
async fn let_load_be_measured(cluster: &Cluster) {
    let any =
        json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let approved = json!({ "api-approved.kubernetes.io": "unapproved, stands for the metrics server" });
    let names =
        json!({ "kind": "PodMetrics", "plural": "pods", "singular": "pod", "listKind": "PodMetricsList" });
    let resource = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": MEASURES, "annotations": approved },
        "spec": { "group": "metrics.k8s.io", "scope": "Namespaced", "names": names,
            "versions": [{ "name": "v1beta1", "served": true, "storage": true, "schema": any }] } });
    cluster.apply(&resource.to_string()).await.expect("a custom resource");
    let wait = ["wait", "--for=condition=Established", &format!("crd/{MEASURES}"), "--timeout=60s"];
    cluster.kubectl(&wait).await.expect("it is known");
}

/// Each egress gateway that there is now has a whole processor's work: twice what it should have.
async fn have_much_to_do(cluster: &Cluster) {
    let label = format!("app.kubernetes.io/name={EGRESS}");
    let path = "jsonpath={.items[*].metadata.name}";
    let pods = cluster.kubectl(&["-n", OURS, "get", "pods", "-l", &label, "-o", path]).await.expect("pods");
    let measure = |name: &str| {
        json!({ "apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics",
            "metadata": { "name": name, "namespace": OURS, "labels": { "app.kubernetes.io/name": EGRESS } },
            // of a pod that has just become ready, only what was measured after that counts
            "timestamp": "2099-01-01T00:00:00Z", "window": "1s",
            "containers": [{ "name": "gateway", "usage": { "cpu": "1", "memory": "64Mi" } }] })
    };
    let items: Vec<Value> = pods.split_whitespace().map(measure).collect();
    assert_eq!(items.len(), 2, "{pods}");
    let all = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    cluster.apply(&all.to_string()).await.expect("measured");
}

/// How many there should be, and how many are ready.
async fn counts(cluster: &Cluster) -> String {
    let path = "jsonpath={.spec.replicas} {.status.readyReplicas}";
    cluster.kubectl(&["-n", OURS, "get", "deploy", EGRESS, "-o", path]).await.unwrap_or_else(|error| error)
}

async fn autoscalers(cluster: &Cluster) -> Result<String, String> {
    cluster.kubectl(&["-n", OURS, "get", "horizontalpodautoscalers", "-o", "name"]).await
}

#[tokio::test]
async fn the_autoscaler_makes_more_egress_gateways() {
    let pair = Pair::up([0, 1]).await;
    let [one, _] = pair.clusters();
    let load = Load::start(one, URL).await;
    let_load_be_measured(one).await;
    let both = |found: &Result<String, String>| found.as_ref().is_ok_and(|found| found.lines().count() == 2);
    let _ = until("the agent asks for autoscalers", SOON, || autoscalers(one), both).await;
    have_much_to_do(one).await;
    until("twice as many", SOON, || counts(one), |counts| counts == "4 4").await;
    all_are_used(one, EGRESS, 4).await;
    assert_eq!(counts(one).await, "4 4", "the agent lets them be");

    one.kubectl(&["delete", "crd", MEASURES, "--timeout=60s"]).await.expect("nobody measures any more");
    let none = |found: &Result<String, String>| found.as_ref().is_ok_and(|found| found.trim().is_empty());
    let _ = until("the autoscalers go", SOON, || autoscalers(one), none).await;
    until("as many as were ordered", SOON, || counts(one), |counts| counts == "2 2").await;
    load.stop().await.assert_none_failed();
    pair.park().await;
}
