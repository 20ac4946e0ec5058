//! Two global namespaces have a service of the same name: each leads to its own.

use crate::{
    lab::Cluster,
    onboard::{SHOP, who},
    pair::Pair,
    world::SOON,
};
use serde_json::{Value, json};
use tombolo_testkit::wait::until;

const BANK: &str = "bank";

async fn catalog_of_the_bank(cluster: &Cluster) {
    let meta = |name: &str| json!({ "name": name, "namespace": BANK });
    let container = json!({ "name": "tools", "image": "localhost/tools:dev", "imagePullPolicy": "Never", "args": ["serve", "-name", BANK],
        "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 } });
    let template = json!({ "metadata": { "labels": { "app": "catalog" } },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [container] } });
    let all = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": BANK } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("catalog"), "spec": {
            "replicas": 1, "selector": { "matchLabels": { "app": "catalog" } }, "template": template } },
        { "apiVersion": "v1", "kind": "Service", "metadata": meta("catalog"), "spec": {
            "selector": { "app": "catalog" }, "ports": [{ "name": "http", "port": 8082, "targetPort": 8080 }] } },
    ]});
    cluster.apply(&all.to_string()).await.expect("applied");
}

#[tokio::test]
async fn two_names_alike_lead_apart() {
    let pair = Pair::up([0, 1]).await;
    let [one, other] = pair.clusters();
    catalog_of_the_bank(other).await;
    let gns = ["gns", "create", BANK, "--domain", "bank.example.com", "--namespace", BANK];
    pair.world.tombolo(&gns).await.expect("a global namespace");
    let ask = async || {
        let url = "http://catalog.bank.example.com:8082/";
        let said = one.exec(SHOP, "deploy/caller", &["/tools", "get", "-timeout", "3s", url]).await?;
        serde_json::from_str::<Value>(&said).map_err(|error| format!("{error}: {said}"))
    };
    let bank = |said: &Result<Value, String>| said.as_ref().is_ok_and(|said| said["server"] == BANK);
    let _ = until("the bank's answers", SOON, ask, bank).await;
    assert_eq!(who(one).await, Ok(other.name.clone()), "the shop's is the shop's");
    // The one goes, the other stays.
    pair.world.tombolo(&["gns", "remove", "acme", "--yes"]).await.expect("it goes");
    let _ = until("the shop's is gone", SOON, || who(one), Result::is_err).await;
    assert!(bank(&ask().await), "the bank's stays");
    other.kubectl(&["delete", "namespace", BANK, "--timeout=180s"]).await.expect("it goes");
    pair.down().await;
}
