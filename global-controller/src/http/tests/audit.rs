//! Every change is in the audit log, with the difference made; a change that failed is not.

use super::{Controller, world::gns};
use serde_json::{Value, json};

async fn events(controller: &Controller, token: &str, query: &str) -> Vec<Value> {
    let path = format!("/organizations/acme/audit-events?{query}");
    controller.get(token, &path).await.expect(200)["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_change_is_logged() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let cluster = "/organizations/acme/clusters/cluster-1";
    let tokens = format!("{cluster}/onboarding-tokens");
    let made = controller.post(&admin, &tokens, &json!({})).await.expect(201);
    let token = format!("{tokens}/{}", made["id"].as_str().unwrap());
    controller.call("DELETE", &token).token(&admin).send().await.expect(204);
    let change = |method, path: &str, body: Value| {
        controller.call(method, path).token(&admin).header("if-match", "*").json(&body).send()
    };
    change("PATCH", cluster, json!({ "labels": { "env": "prod" } })).await.expect(200);
    controller.gns(&admin, "acme", "acme", "acme.example.com").await;
    let path = "/organizations/acme/global-namespaces/acme";
    change("PUT", path, json!({ "domain": "acme.example.org", "rules": [] })).await.expect(200);
    change("DELETE", path, json!({})).await.expect(204);
    change("DELETE", cluster, json!({})).await.expect(204);
    controller.token("acme", "ci", "viewer").await;
    change("DELETE", "/organizations/acme/tokens/ci", json!({})).await.expect(204);

    let log = events(&controller, &admin, "").await;
    let actions: Vec<&str> = log.iter().rev().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(
        actions,
        [
            "organization.create",
            "token.create",
            "cluster.create",
            "onboarding_token.create",
            "onboarding_token.revoke",
            "cluster.update",
            "global_namespace.create",
            "global_namespace.update",
            "global_namespace.delete",
            "cluster.revoke",
            "token.create",
            "token.revoke",
        ]
    );
    let generations: Vec<u64> = log.iter().rev().map(|event| event["generation"].as_u64().unwrap()).collect();
    assert_eq!(generations, (2..14).collect::<Vec<u64>>(), "one generation each, in order");
    let org = controller.get(&admin, "/organizations/acme").await.expect(200);
    assert_eq!(org["generation"], 13);

    let update = &events(&controller, &admin, "action=cluster.update").await[0];
    assert_eq!(update["difference"], json!([{ "path": "/labels/env", "after": "prod" }]));
    assert_eq!(update["subject"]["name"], "cluster-1");
    assert_eq!((&update["actor"]["kind"], &update["actor"]["name"]), (&json!("token"), &json!("admin")));
    assert_eq!(update["request_id"].as_str().unwrap().len(), 36);
    let update = &events(&controller, &admin, "action=global_namespace.update").await[0];
    let rules = gns("", "")["rules"].clone();
    assert_eq!(
        update["difference"],
        json!([
            { "path": "/domain", "before": "acme.example.com", "after": "acme.example.org" },
            { "path": "/rules", "before": rules, "after": [] },
        ])
    );
    let revoked = &events(&controller, &admin, "action=cluster.revoke").await[0];
    let paths: Vec<&str> =
        revoked["difference"].as_array().unwrap().iter().map(|d| d["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/revoked_at", "/state"]);
    assert_eq!(events(&controller, &admin, "subject_kind=cluster&subject=cluster-1").await.len(), 3);
    assert_eq!(events(&controller, &admin, "subject=nothing").await.len(), 0);
}

#[tokio::test]
async fn what_failed_is_not_logged_and_takes_no_generation() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.gns(&admin, "acme", "acme", "acme.example.com").await;
    let before = events(&controller, &admin, "").await;
    let org = controller.get(&admin, "/organizations/acme").await.text;
    let path = "/organizations/acme/global-namespaces";
    controller.post(&admin, path, &gns("other", "x.acme.example.com")).await.problem(409, "domain-overlap");
    controller.post(&admin, path, &gns("acme", "y.example.com")).await.problem(409, "already-exists");
    assert_eq!(events(&controller, &admin, "").await, before);
    assert_eq!(controller.get(&admin, "/organizations/acme").await.text, org);
}
