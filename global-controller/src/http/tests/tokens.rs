//! API tokens: wrong, expired, revoked; shown once; last used.

use super::Controller;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_token_is_shown_once_and_stored_as_a_hash() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let body = json!({ "name": "ci", "role": "editor" });
    let made = controller.post(&admin, "/organizations/acme/tokens", &body).await.expect(201);
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("tmb_"));
    let shown = controller.get(&admin, "/organizations/acme/tokens").await;
    shown.expect(200);
    assert!(!shown.text.contains(&secret[4..]));
    let stored = controller.database.sql("SELECT * FROM api_tokens")
        + &controller.database.sql("SELECT * FROM audit_events");
    assert!(!stored.contains(&secret[4..]));
    controller.get(secret, "/whoami").await.expect(200);
}

#[tokio::test]
async fn wrong_tokens_open_nothing() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    for token in
        ["", "tmb_", "x", "tmb_AAAA", &admin[..admin.len() - 1], &format!("{admin}A"), &admin.to_uppercase()]
    {
        controller.get(token, "/whoami").await.problem(401, "unauthenticated");
    }
    let call = controller.call("GET", "/whoami").header("authorization", "Basic Zm9vOmJhcg==");
    let problem = call.send().await.problem(401, "unauthenticated");
    assert_eq!(problem.errors[0].field, "Authorization");
    // an onboarding token is none of the API
    controller.cluster(&admin, "acme", "cluster-1").await;
    let path = "/organizations/acme/clusters/cluster-1/onboarding-tokens";
    let made = controller.post(&admin, path, &json!({})).await.expect(201);
    controller.get(made["token"].as_str().unwrap(), "/whoami").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn an_expired_token_opens_nothing() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let body = json!({ "name": "short", "role": "viewer", "expires_in": "10m" });
    let made = controller.post(&admin, "/organizations/acme/tokens", &body).await.expect(201);
    let token = made["token"].as_str().unwrap();
    controller.clock.advance(Duration::from_secs(599));
    controller.get(token, "/organizations/acme/clusters").await.expect(200);
    controller.clock.advance(Duration::from_secs(1));
    controller.get(token, "/organizations/acme/clusters").await.problem(401, "token-expired");
}

#[tokio::test]
async fn a_revoked_token_opens_nothing() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let token = controller.token("acme", "gone", "editor").await;
    controller.get(&token, "/organizations/acme/clusters").await.expect(200);
    let path = "/organizations/acme/tokens/gone";
    controller.call("DELETE", path).token(&admin).send().await.expect(204);
    controller.get(&token, "/organizations/acme/clusters").await.problem(401, "token-revoked");
    controller.call("DELETE", path).token(&admin).send().await.problem(404, "not-found");
    // its name is free again, and does not bring it back
    controller.token("acme", "gone", "viewer").await;
    controller.get(&token, "/organizations/acme/clusters").await.problem(401, "token-revoked");
}

#[tokio::test]
async fn bad_requests_for_tokens_are_refused() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let create = async |body| controller.post(&admin, "/organizations/acme/tokens", &body).await;
    let field = |problem: crate::http::problem::Problem| problem.errors[0].field.clone();
    let problem = create(json!({ "name": "x", "role": "owner" })).await.problem(422, "invalid-field");
    assert_eq!(field(problem), "role");
    let problem = create(json!({ "name": "x", "role": "root" })).await.problem(422, "invalid-field");
    assert_eq!(field(problem), "role");
    let problem = create(json!({ "name": "a b", "role": "viewer" })).await.problem(422, "invalid-field");
    assert_eq!(field(problem), "name");
    let problem = create(json!({ "name": "admin", "role": "viewer" })).await.problem(409, "already-exists");
    assert_eq!(field(problem), "name");
    for life in ["1s", "0s", "100000h", "soon", "-5m", ""] {
        let body = json!({ "name": "x", "role": "viewer", "expires_in": life });
        assert_eq!(field(create(body).await.problem(422, "invalid-field")), "expires_in", "{life}");
    }
}

#[tokio::test]
async fn the_last_use_is_noted_to_the_minute() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let token = controller.token("acme", "ci", "viewer").await;
    let used = async || {
        controller.get(&admin, "/organizations/acme/tokens/ci").await.expect(200)["last_used_at"].clone()
    };
    assert!(used().await.is_null());
    controller.get(&token, "/whoami").await.expect(200);
    let first = used().await;
    assert_eq!(first, "2027-01-15T08:00:00Z");
    controller.clock.advance(Duration::from_secs(59));
    controller.get(&token, "/whoami").await.expect(200);
    assert_eq!(used().await, first);
    controller.clock.advance(Duration::from_secs(1));
    controller.get(&token, "/whoami").await.expect(200);
    assert_eq!(used().await, "2027-01-15T08:01:00Z");
}

#[tokio::test]
async fn the_owners_token_can_be_replaced_but_not_lost() {
    let controller = Controller::start().await;
    let owner = &controller.owner;
    let revoke = async |by: &str, name: &str| {
        controller.call("DELETE", &format!("/owner-tokens/{name}")).token(by).send().await
    };
    revoke(owner, "owner").await.problem(409, "conflict");
    let short = json!({ "name": "short", "expires_in": "1h" });
    controller.post(owner, "/owner-tokens", &short).await.expect(201);
    revoke(owner, "owner").await.problem(409, "conflict");
    let made = controller.post(owner, "/owner-tokens", &json!({ "name": "spare" })).await.expect(201);
    let spare = made["token"].as_str().unwrap();
    controller.post(owner, "/owner-tokens", &json!({ "name": "spare" })).await.problem(409, "already-exists");
    revoke(spare, "owner").await.expect(204);
    controller.get(owner, "/organizations").await.problem(401, "token-revoked");
    controller.get(spare, "/organizations").await.expect(200);
    revoke(spare, "spare").await.problem(409, "conflict");
    let listed = controller.get(spare, "/owner-tokens").await.expect(200);
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect();
    assert_eq!(names, ["short", "spare"]);
    let log = controller.get(spare, "/audit-events").await.expect(200);
    let actions: Vec<_> = log["items"].as_array().unwrap().iter().map(|e| e["action"].clone()).collect();
    assert_eq!(actions, ["owner_token.revoke", "owner_token.create", "owner_token.create"]);
}
