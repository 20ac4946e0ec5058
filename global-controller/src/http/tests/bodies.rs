//! Bodies that cannot be taken: each is answered with what to change. The problems are goldens: programs match on them.

use super::Controller;
use axum::{
    body::{Body, Bytes},
    http::Request,
};
use futures::{future::join_all, stream};
use serde_json::json;
use std::{convert::Infallible, pin::pin, time::Duration};
use tower::ServiceExt as _;

#[tokio::test]
async fn wrong_bodies_are_refused_by_name() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let path = "/organizations/acme/global-namespaces";
    let send = async |body: &str| controller.call("POST", path).token(&admin).text(body).send().await;

    let malformed = send("{\"name\": \"acme\",\n  \"domain\": acme}").await;
    malformed.problem(400, "malformed-json");
    insta::assert_snapshot!("malformed_json", pretty(&malformed.text));

    let unknown = send(r#"{"name":"acme","domain":"acme.example.com","rules":[],"colour":"red"}"#).await;
    unknown.problem(422, "unknown-field");
    insta::assert_snapshot!("unknown_field", pretty(&unknown.text));

    let nested = r#"{"name":"acme","domain":"acme.example.com",
        "rules":[{"cluster":{"labels":{}},"namespace":{"names":"default"}}]}"#;
    let problem = send(nested).await.problem(422, "invalid-field");
    assert!(problem.errors[0].field.starts_with("rules[0].namespace"), "{problem:?}");
    assert!(problem.errors[0].message.contains("names"), "{problem:?}");

    let several = send(
        r#"{"name":"Acme Corp","domain":"localhost",
            "rules":[{"cluster":{"name":"-"},"namespace":{"labels":{"a b":"c"}}}]}"#,
    )
    .await;
    several.problem(422, "invalid-field");
    insta::assert_snapshot!("invalid_fields", pretty(&several.text));

    let missing = send(r#"{"name":"acme","rules":[]}"#).await.problem(422, "invalid-field");
    assert_eq!(missing.errors[0].field, "domain");
    let wrong =
        send(r#"{"name":5,"domain":"acme.example.com","rules":[]}"#).await.problem(422, "invalid-field");
    assert_eq!(wrong.errors[0].field, "name");
    send("").await.problem(400, "malformed-json");
    send("[]").await.problem(422, "invalid-field");
    send(r#"["acme","acme.example.com",[]]"#).await.problem(422, "invalid-field");
    send(&"[".repeat(10_000)).await.problem(422, "invalid-field");
    send(&"{\"rules\":[".repeat(10_000)).await.problem(422, "unknown-field");
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let body = json!({ "name": "x".repeat(300 * 1024) }).to_string();
    let path = "/organizations/acme/clusters";
    let refused = controller.call("POST", path).token(&admin).text(&body).send().await;
    refused.problem(413, "body-too-large");
    insta::assert_snapshot!("body_too_large", pretty(&refused.text));
    // as large as may be, and no larger, is read
    let body = format!("{{\"name\":\"{}\"}}", "x".repeat(super::super::extract::MOST_BYTES - 11));
    let read = controller.call("POST", path).token(&admin).text(&body).send().await;
    read.problem(422, "invalid-field");
}

/// Bodies that never come to their end keep another organization from nothing.
#[tokio::test]
async fn bodies_are_shared_out_by_organization() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let other = controller.organization("other").await;
    let stuck = (0..100).map(|_| {
        let request = Request::post("/api/v1/organizations/acme/clusters")
            .header("authorization", format!("Bearer {admin}"))
            .header("content-type", "application/json")
            .body(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()))
            .unwrap();
        controller.router.clone().oneshot(request)
    });
    let mut stuck = pin!(join_all(stuck));
    let body = json!({ "name": "cluster-1" });
    let honest = async {
        // as many as may be are under way once one more of theirs has no room
        let theirs = || controller.post(&admin, "/organizations/acme/clusters", &body);
        while tokio::time::timeout(Duration::from_secs(1), theirs()).await.is_ok() {
            controller.clock.advance(Duration::from_secs(1));
        }
        controller.post(&other, "/organizations/other/clusters", &body).await.expect(201);
    };
    let first = tokio::select! {
        all = &mut stuck => Some(all.len()),
        () = honest => None,
    };
    assert_eq!(first, None, "they are answered one day, and nobody waits for that");
}

#[tokio::test]
async fn other_media_types_are_refused() {
    let controller = Controller::start().await;
    let call = controller.call("POST", "/organizations").token(&controller.owner);
    call.send().await.problem(415, "unsupported-media-type");
    let call = controller.call("POST", "/organizations").token(&controller.owner);
    let problem =
        call.header("content-type", "text/yaml").send().await.problem(415, "unsupported-media-type");
    assert_eq!(problem.errors[0].field, "Content-Type");
}

#[tokio::test]
async fn other_paths_and_methods_are_answered() {
    let controller = Controller::start().await;
    controller.get(&controller.owner, "/nothing").await.problem(404, "not-found");
    let answer = controller.call("PUT", "/organizations").token(&controller.owner).send().await;
    answer.problem(405, "method-not-allowed");
    assert!(answer.header("allow").contains("GET"), "{answer:?}");
    let problem =
        controller.get(&controller.owner, "/organizations?colour=red").await.problem(422, "unknown-field");
    assert_eq!(problem.errors[0].field, "colour");
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let controller = Controller::start().await;
    let one = controller.call("GET", "/version").send().await;
    let two = controller.call("GET", "/nothing").send().await;
    assert_eq!((one.header("x-request-id").len(), two.header("x-request-id").len()), (36, 36));
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

fn pretty(text: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    serde_json::to_string_pretty(&value).unwrap()
}
