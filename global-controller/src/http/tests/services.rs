//! Services: what the compiler makes of global namespaces and inventories.

use super::{Controller, clusters::join};
use serde_json::{Value, json};
use std::time::Duration;
use tombolo_testkit::wait;

/// Reports a service as a cluster's agent would.
fn report(controller: &Controller, cluster: &str, service: &str, record: &Value) {
    controller.database.sql(&format!(
        "INSERT INTO inventory_namespaces SELECT org_id, id, 'default', '{{}}' FROM clusters WHERE name = '{cluster}'
         ON CONFLICT DO NOTHING;
         INSERT INTO inventory_services SELECT org_id, id, 'default/{service}', '{record}' FROM clusters
         WHERE name = '{cluster}';
         UPDATE organizations SET generation = generation + 1;
         SELECT pg_notify('tombolo_changes', id::text) FROM organizations"
    ));
}

#[tokio::test]
async fn services_show_their_addresses_and_where_they_are_served() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let admin = controller.organization("acme").await;
    for name in ["cluster-1", "cluster-2"] {
        let made = controller.cluster(&admin, "acme", name).await;
        join(&controller, made["id"].as_str().unwrap());
    }
    let ports = |protocol: &str| json!([{ "port": 8082, "protocol": protocol }]);
    let record = |created: u64, protocol: &str| {
        json!({ "created_s": created, "ports": ports(protocol), "ready": 1, "total": 2, "tunnelled": 1,
                "accounts": ["catalog"] })
    };
    controller.gns(&admin, "acme", "acme", "acme.example.com").await;
    report(&controller, "cluster-2", "catalog", &record(1, "TCP"));
    report(&controller, "cluster-1", "catalog", &record(2, "UDP"));
    report(&controller, "cluster-1", "cart", &record(3, "TCP"));

    let list = async |query: &str| {
        let path = format!("/organizations/acme/services{query}");
        controller.get(&admin, &path).await.expect(200)["items"].as_array().unwrap().clone()
    };
    // addresses are given by the reconciler, a moment after the names came to be
    let all =
        wait::until("all have theirs", Duration::from_secs(15), || list(""), |all| all.len() == 5).await;
    let names: Vec<&str> = all.iter().map(|service| service["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "cart.acme.example.com",
            "cart.cluster-1.acme.example.com",
            "catalog.acme.example.com",
            "catalog.cluster-1.acme.example.com",
            "catalog.cluster-2.acme.example.com",
        ]
    );
    let path = "/organizations/acme/services/catalog.acme.example.com";
    let catalog = controller.get(&admin, path).await.expect(200);
    assert_eq!(catalog, all[2]);
    assert!(catalog["vip"]["v4"].as_str().unwrap().starts_with("240."));
    let targets = catalog["targets"].as_array().unwrap();
    let target = targets.iter().find(|target| target["cluster"] == "cluster-2").unwrap();
    assert_eq!((&target["ready"], &target["total"]), (&json!(1), &json!(2)));
    assert_eq!((&target["services"], &target["end_to_end"]), (&json!(["default/catalog"]), &json!("all")));
    assert_eq!(catalog["conflicts"][0]["reason"], "protocol");
    assert_eq!(catalog["conflicts"][0]["winner"], "cluster-2/default/catalog");
    // and whose port it is that is left out is told of its cluster
    let problems = async |cluster: &str| {
        let path = format!("/organizations/acme/clusters/{cluster}/status");
        controller.get(&admin, &path).await.expect(200)["problems"].clone()
    };
    assert_eq!(problems("cluster-2").await, json!([]));
    let told = problems("cluster-1").await;
    assert_eq!((told.as_array().unwrap().len(), &told[0]["subject"]), (1, &json!("default/catalog")));
    let message = told[0]["message"].as_str().unwrap();
    assert!(message.contains("port 8082 of cluster-1/default/catalog is left out: cluster-2/"), "{message}");
    assert_eq!(list("?cluster=cluster-2").await.len(), 2);
    assert_eq!(list("?gns=other").await.len(), 0);
    assert_eq!(list("?limit=2").await.len(), 2);
    controller
        .get(&admin, "/organizations/acme/services/nothing.acme.example.com")
        .await
        .problem(404, "not-found");
    driver.stop().await;
}
