//! Creations that are repeated: done once, answered the same.

use super::{Answered, Controller};
use serde_json::{Value, json};
use std::time::Duration;

const PATH: &str = "/organizations/acme/tokens";

async fn create(controller: &Controller, token: &str, key: &str, body: &Value) -> Answered {
    controller.call("POST", PATH).token(token).header("idempotency-key", key).json(body).send().await
}

#[tokio::test]
async fn a_repeated_creation_is_answered_the_same() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let body = json!({ "name": "ci", "role": "viewer" });
    let first = create(&controller, &admin, "k1", &body).await;
    let again = create(&controller, &admin, "k1", &body).await;
    assert_eq!(first.expect(201), again.expect(201));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    assert_eq!(first.header("location"), again.header("location"));
    assert_eq!(controller.database.sql("SELECT count(*) FROM api_tokens WHERE name = 'ci'"), "1");
    assert_eq!(controller.database.sql("SELECT count(*) FROM audit_events WHERE subject_name = 'ci'"), "1");
    // the answer holds a secret, and the database does not
    let secret = first.json()["token"].as_str().unwrap().to_owned();
    let kept = controller.database.sql("SELECT encode(answer, 'escape') FROM idempotency_keys");
    assert!(!kept.is_empty() && !kept.contains(&secret[4..]));

    let other = json!({ "name": "ci", "role": "admin" });
    let problem = create(&controller, &admin, "k1", &other).await.problem(422, "idempotency-mismatch");
    assert_eq!(problem.errors[0].field, "Idempotency-Key");
    // another caller's key of the same name is another key
    let second = controller.token("acme", "second", "admin").await;
    create(&controller, &second, "k1", &json!({ "name": "ci2", "role": "viewer" })).await.expect(201);
    // without a key, or after a day, it is a new request
    create(&controller, &admin, "k2", &body).await.problem(409, "already-exists");
    controller.clock.advance(Duration::from_secs(24 * 3600 + 1));
    create(&controller, &admin, "k1", &body).await.problem(409, "already-exists");
}

#[tokio::test]
async fn a_refused_creation_uses_no_key() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let body = json!({ "name": "admin", "role": "viewer" });
    create(&controller, &admin, "k", &body).await.problem(409, "already-exists");
    let body = json!({ "name": "free", "role": "viewer" });
    create(&controller, &admin, "k", &body).await.expect(201);
    for bad in ["", &"k".repeat(256)] {
        let problem = create(&controller, &admin, bad, &body).await.problem(400, "invalid-header");
        assert_eq!(problem.errors[0].field, "Idempotency-Key");
    }
}

#[tokio::test]
async fn creations_at_once_are_done_once() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let body = json!({ "name": "ci", "role": "viewer" });
    let answers = futures::future::join_all((0..8).map(|_| create(&controller, &admin, "same", &body))).await;
    let first = answers[0].expect(201);
    for answer in &answers {
        assert_eq!(answer.expect(201), first);
    }
    assert_eq!(answers.iter().filter(|a| a.header("idempotency-replayed").is_empty()).count(), 1);
    assert_eq!(controller.database.sql("SELECT count(*) FROM api_tokens WHERE name = 'ci'"), "1");
}

#[tokio::test]
async fn organizations_and_clusters_are_made_once_too() {
    let controller = Controller::start().await;
    let (owner, body) = (&controller.owner, json!({ "name": "acme" }));
    for _ in 0..2 {
        let call = controller.call("POST", "/organizations").token(owner).header("idempotency-key", "k");
        call.json(&body).send().await.expect(201);
    }
    let admin = controller.token("acme", "admin", "admin").await;
    for _ in 0..2 {
        let call = controller.call("POST", "/organizations/acme/clusters").token(&admin);
        let answer = call.header("idempotency-key", "k").json(&json!({ "name": "c1" })).send().await;
        assert_eq!(answer.header("etag"), "\"1\"");
        answer.expect(201);
    }
    // the same key on another path is another request
    let call = controller.call("POST", "/organizations/acme/global-namespaces").token(&admin);
    let body = super::world::gns("acme", "acme.example.com");
    call.header("idempotency-key", "k").json(&body).send().await.problem(422, "idempotency-mismatch");
}
