//! Bodies that cannot be taken: each is answered with what to change. The problems are goldens: programs match on them.

use super::Controller;
use crate::http::{auth::Api, extract::BODIES, router};
use serde_json::json;
use std::{pin::pin, sync::Arc};
use tombolo_model::id::OrgId;

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

/// An organization that has as many bodies under way as it may have waits; others do not.
#[tokio::test]
async fn bodies_are_shared_out_by_organization() {
    let mut controller = Controller::start().await;
    let api = Api::new(Arc::clone(&controller.deps));
    controller.router = router::of(api.clone());
    let admin = controller.organization("acme").await;
    let other = controller.organization("other").await;
    let acme = controller.database.sql("SELECT id FROM organizations WHERE name = 'acme'");
    let acme: OrgId = acme.trim().parse().unwrap();
    let held: Vec<_> = std::iter::from_fn(|| api.bodies.try_place(&Some(acme))).collect();
    assert_eq!(held.len(), BODIES.bodies.each);
    let body = json!({ "name": "cluster-1" });
    let mut own = pin!(controller.post(&admin, "/organizations/acme/clusters", &body));
    let mut others = pin!(async {
        for n in 0..5 {
            let body = json!({ "name": format!("cluster-{n}") });
            controller.post(&other, "/organizations/other/clusters", &body).await.expect(201);
        }
    });
    let mut answered = None;
    loop {
        tokio::select! {
            answer = &mut own, if answered.is_none() => answered = Some(answer),
            () = &mut others => break,
        }
    }
    drop(held);
    match answered {
        // it waited for too long, on a machine as slow as that
        Some(late) => drop(late.problem(503, "unavailable")),
        None => drop(own.await.expect(201)),
    }
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
