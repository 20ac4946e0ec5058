//! Organizations.

use super::Controller;
use serde_json::json;

#[tokio::test]
async fn an_organization_is_made_with_its_root() {
    let controller = Controller::start().await;
    let made = controller.post(&controller.owner, "/organizations", &json!({ "name": "acme" })).await;
    assert_eq!(made.header("location"), "/api/v1/organizations/acme");
    let made = made.expect(201);
    assert_eq!(made["trust_domain"], "acme.tombolo.internal");
    assert_eq!(controller.get(&controller.owner, "/organizations/acme").await.expect(200), made);
    let admin = controller.token("acme", "admin", "admin").await;
    let bundle = controller.get(&admin, "/organizations/acme/trust-bundle").await.expect(200);
    assert_eq!(bundle["roots"].as_array().unwrap().len(), 1);
    assert_eq!(bundle["roots"][0]["signing"], true);
    assert!(bundle["roots"][0]["certificate"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!(bundle["clusters"], json!({}));
}

#[tokio::test]
async fn names_and_trust_domains_are_one_in_the_installation() {
    let controller = Controller::start().await;
    controller.organization("acme").await;
    let create = async |body| controller.post(&controller.owner, "/organizations", &body).await;
    let problem = create(json!({ "name": "acme" })).await.problem(409, "already-exists");
    assert_eq!(problem.errors[0].field, "name");
    let body = json!({ "name": "other", "trust_domain": "acme.tombolo.internal" });
    let problem = create(body).await.problem(409, "already-exists");
    assert_eq!(problem.errors[0].field, "trust_domain");
    let problem = create(json!({ "name": "under_score" })).await.problem(422, "invalid-field");
    assert_eq!(problem.errors[0].field, "name");
    let problem = create(json!({ "name": "b", "trust_domain": "not a name" })).await;
    assert_eq!(problem.problem(422, "invalid-field").errors[0].field, "trust_domain");
    // a root is not left behind by an organization that was not made
    assert_eq!(controller.database.sql("SELECT count(*) FROM trust_roots"), "1");
}

#[tokio::test]
async fn a_tenant_sees_its_own() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.organization("other").await;
    let seen = controller.get(&admin, "/organizations").await.expect(200);
    assert_eq!(seen["items"].as_array().unwrap().len(), 1);
    assert_eq!(seen["items"][0]["name"], "acme");
    let seen = controller.get(&controller.owner, "/organizations").await.expect(200);
    assert_eq!(seen["items"].as_array().unwrap().len(), 2);
    let me = controller.get(&admin, "/whoami").await.expect(200);
    assert_eq!((me["organization"].as_str(), me["role"].as_str()), (Some("acme"), Some("admin")));
}

#[tokio::test]
async fn an_organization_without_clusters_can_be_deleted() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let admin = controller.organization("acme").await;
    controller.gns(&admin, "acme", "acme", "acme.example.com").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let delete = || controller.call("DELETE", "/organizations/acme").token(&controller.owner).send();
    delete().await.problem(409, "conflict");
    let path = "/organizations/acme/clusters/cluster-1";
    controller.call("DELETE", path).token(&admin).header("if-match", "*").send().await.expect(204);
    delete().await.expect(204);
    delete().await.problem(404, "not-found");
    controller.get(&admin, "/whoami").await.problem(401, "unauthenticated");
    let log = controller.get(&controller.owner, "/audit-events").await.expect(200);
    assert_eq!(log["items"][0]["action"], "organization.delete");
    assert_eq!(log["items"][0]["difference"][0]["before"]["name"], "acme");
    // the name is free, and its next bearer sees nothing of the one before
    let admin = controller.organization("acme").await;
    let seen = controller.get(&admin, "/organizations/acme/global-namespaces").await.expect(200);
    assert_eq!(seen["items"], json!([]));
    driver.stop().await;
}
