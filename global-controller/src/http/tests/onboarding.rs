//! One-time tokens. That they are used once is tested where clusters join.

use super::Controller;
use serde_json::json;
use std::time::Duration;

const PATH: &str = "/organizations/acme/clusters/cluster-1/onboarding-tokens";

#[tokio::test]
async fn a_token_comes_with_the_command_that_uses_it() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let made = controller.post(&admin, PATH, &json!({})).await.expect(201);
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("tmj_") && secret.len() == 47);
    assert_eq!(made["expires_at"], "2027-01-15T08:15:00Z");
    let command = made["join_command"].as_str().unwrap();
    assert_eq!(
        command,
        format!(
            "tombolo-agent join --controller https://controller.example.com:8443 --ca-fingerprint sha256:{} \
             --cluster cluster-1 --data ./cluster-1 --token-file -",
            "ab".repeat(32)
        )
    );
    let stored = controller.database.sql("SELECT * FROM onboarding_tokens")
        + &controller.database.sql("SELECT * FROM audit_events");
    assert!(!stored.contains(&secret[4..]));
    assert!(!controller.get(&admin, PATH).await.text.contains(&secret[4..]));
}

#[tokio::test]
async fn lifetimes_have_bounds() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    for life in ["59s", "25h", "", "15", "forever"] {
        let answer = controller.post(&admin, PATH, &json!({ "expires_in": life })).await;
        assert_eq!(answer.problem(422, "invalid-field").errors[0].field, "expires_in", "{life}");
    }
    let made = controller.post(&admin, PATH, &json!({ "expires_in": "24h" })).await.expect(201);
    assert_eq!(made["expires_at"], "2027-01-16T08:00:00Z");
}

#[tokio::test]
async fn tokens_end_by_time_and_by_hand() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let make = async || {
        let made = controller.post(&admin, PATH, &json!({})).await.expect(201);
        format!("{PATH}/{}", made["id"].as_str().unwrap())
    };
    let (expires, revoked, used) = (make().await, make().await, make().await);
    let revoke = async |path: &str| controller.call("DELETE", path).token(&admin).send().await;
    revoke(&revoked).await.expect(204);
    revoke(&revoked).await.expect(204);
    controller.database.sql(&format!(
        "UPDATE onboarding_tokens SET used_at = now() WHERE id = '{}'",
        used.rsplit('/').next().unwrap()
    ));
    revoke(&used).await.problem(409, "conflict");
    controller.clock.advance(Duration::from_secs(15 * 60));
    let states = controller.get(&admin, PATH).await.expect(200);
    let states: Vec<_> = states["items"].as_array().unwrap().iter().map(|t| t["state"].clone()).collect();
    // the newest first
    assert_eq!(states, ["used", "revoked", "expired"]);
    assert!(!expires.is_empty());
    revoke(&format!("{PATH}/not-an-id")).await.problem(404, "not-found");
}

#[tokio::test]
async fn open_tokens_of_a_cluster_are_bounded() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    for _ in 0..20 {
        controller.post(&admin, PATH, &json!({})).await.expect(201);
    }
    controller.post(&admin, PATH, &json!({})).await.problem(409, "conflict");
    controller.clock.advance(Duration::from_secs(15 * 60));
    controller.post(&admin, PATH, &json!({})).await.expect(201);
}
