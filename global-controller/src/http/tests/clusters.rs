//! Clusters: made, changed by version, removed, and made again.

use super::Controller;
use serde_json::{Value, json};

const PATH: &str = "/organizations/acme/clusters/cluster-1";

#[tokio::test]
async fn a_cluster_is_changed_by_who_saw_it() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let read = controller.get(&admin, PATH).await;
    assert!(read.header("etag").starts_with("\"1."), "{read:?}");
    let patch = async |tag: Option<&str>, body: Value| {
        let mut call = controller.call("PATCH", PATH).token(&admin).json(&body);
        if let Some(tag) = tag {
            call = call.header("if-match", tag);
        }
        call.send().await
    };
    let labels = json!({ "labels": { "env": "prod" } });
    let problem = patch(None, labels.clone()).await.problem(428, "precondition-required");
    assert_eq!(problem.errors[0].field, "If-Match");
    patch(Some("\"7\""), labels.clone()).await.problem(412, "precondition-failed");
    patch(Some("\"of-another-kind\""), labels.clone()).await.problem(412, "precondition-failed");
    patch(Some("1"), labels.clone()).await.problem(400, "invalid-header");
    let changed = patch(Some("\"1\""), labels.clone()).await;
    assert_eq!(changed.header("etag"), "\"2\"");
    assert_eq!(changed.expect(200)["labels"], json!({ "env": "prod" }));
    // the second of two who saw the same is told
    patch(Some("\"1\""), json!({ "labels": {} })).await.problem(412, "precondition-failed");
    let place = json!({ "locality": { "region": "eu", "zone": "eu-1" } });
    let changed = patch(Some("\"7\", \"2\""), place).await.expect(200);
    assert_eq!(changed["labels"], json!({ "env": "prod" }), "what was left out stays");
    assert_eq!(changed["locality"], json!({ "region": "eu", "zone": "eu-1" }));
    let changed = patch(Some("*"), json!({ "labels": {} })).await.expect(200);
    assert_eq!((&changed["labels"], &changed["version"]), (&json!({}), &json!(4)));
}

#[tokio::test]
async fn bad_clusters_are_refused() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    controller.cluster(&admin, "acme", "cluster-1").await;
    let create = async |body| controller.post(&admin, "/organizations/acme/clusters", &body).await;
    create(json!({ "name": "cluster-1" })).await.problem(409, "already-exists");
    for (body, field) in [
        (json!({ "name": "two.labels" }), "name"),
        (json!({ "name": "" }), "name"),
        (json!({ "name": "x".repeat(64) }), "name"),
        (json!({ "name": "ok", "labels": { "a b": "c" } }), "labels.a b"),
        (json!({ "name": "ok", "labels": { "a": "not good" } }), "labels.a"),
        (json!({ "name": "ok", "labels": [] }), "labels"),
        (json!({ "name": "ok", "locality": { "zone": "z" } }), "locality.zone"),
        (json!({ "name": "ok", "locality": { "region": "" } }), "locality.region"),
    ] {
        let problem = create(body.clone()).await.problem(422, "invalid-field");
        assert_eq!(problem.errors[0].field, field, "{body}");
        assert!(!problem.errors[0].remedy.is_empty());
    }
    let problem = create(json!({ "name": "ok", "locality": { "planet": "earth" } })).await;
    assert_eq!(problem.problem(422, "unknown-field").errors[0].field, "locality.planet");
}

#[tokio::test]
async fn a_removed_cluster_is_out_of_the_bundle_and_its_tokens_are_void() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let made = controller.cluster(&admin, "acme", "cluster-1").await;
    let tokens = format!("{PATH}/onboarding-tokens");
    controller.post(&admin, &tokens, &json!({})).await.expect(201);
    let id = made["id"].as_str().unwrap();
    join(&controller, id);
    let bundle = async || controller.get(&admin, "/organizations/acme/trust-bundle").await.expect(200);
    assert_eq!(bundle().await["clusters"], json!({ "cluster-1": ["11".repeat(32)] }));
    let delete = |tag| controller.call("DELETE", PATH).token(&admin).header("if-match", tag).send();
    controller.call("DELETE", PATH).token(&admin).send().await.problem(428, "precondition-required");
    delete("\"9\"").await.problem(412, "precondition-failed");
    delete("\"1\"").await.expect(204);
    delete("\"1\"").await.expect(204);

    assert_eq!(bundle().await["clusters"], json!({}));
    let certificates = controller.get(&admin, "/organizations/acme/certificates").await.expect(200);
    assert_eq!(certificates["items"][0]["state"], "revoked");
    let open = controller.get(&admin, &tokens).await.expect(200);
    assert_eq!(open["items"][0]["state"], "revoked");
    controller.post(&admin, &tokens, &json!({})).await.problem(409, "conflict");
    assert_eq!(controller.get(&admin, &format!("{PATH}/status")).await.expect(200)["state"], "revoked");
    let listed = async |query: &str| {
        let path = format!("/organizations/acme/clusters{query}");
        controller.get(&admin, &path).await.expect(200)["items"].as_array().unwrap().len()
    };
    assert_eq!((listed("").await, listed("?revoked=true").await), (0, 1));
    controller
        .get(&admin, "/organizations/acme/clusters?revoked=perhaps")
        .await
        .problem(422, "invalid-field");

    // made again it is the same record, and as good as new: what it had is not trusted
    let again = controller.cluster(&admin, "acme", "cluster-1").await;
    assert_eq!((&again["id"], &again["state"]), (&made["id"], &json!("pending")));
    assert_eq!(bundle().await["clusters"], json!({}));
}

#[tokio::test]
async fn the_status_says_how_a_cluster_is() {
    let controller = Controller::start().await;
    let admin = controller.organization("acme").await;
    let made = controller.cluster(&admin, "acme", "cluster-1").await;
    let status = async || controller.get(&admin, &format!("{PATH}/status")).await.expect(200);
    assert_eq!(status().await["state"], "pending");
    let id = made["id"].as_str().unwrap();
    join(&controller, id);
    assert_eq!(status().await["state"], "disconnected");
    controller.database.sql(&format!(
        "INSERT INTO cluster_status (org_id, cluster_id, software, problems, published_generation, published_at,
                                     applied_generation, reported_at)
         SELECT org_id, id, 'tombolo-agent/0.1.0', '[{{\"subject\":\"a.yaml:3\",\"message\":\"is no YAML\"}}]',
                9, '2027-01-15T07:59:58Z', 8, '2027-01-15T07:59:59Z' FROM clusters WHERE id = '{id}'"
    ));
    let found = status().await;
    assert_eq!((&found["applied_generation"], &found["current_generation"]), (&json!(8), &json!(9)));
    assert_eq!((&found["lag_ms"], &found["last_seen"]), (&json!(2000), &json!("2027-01-15T07:59:59Z")));
    assert_eq!(found["agent"]["software"], "tombolo-agent/0.1.0");
    assert_eq!(found["problems"], json!([{ "subject": "a.yaml:3", "message": "is no YAML" }]));
    controller.database.sql(&format!(
        "INSERT INTO replicas VALUES ('{id}', '2027-01-15T07:00Z', '2027-01-15T07:59:50Z');
         INSERT INTO feeds SELECT org_id, id, id, id, '2027-01-15T07:30Z' FROM clusters WHERE id = '{id}'"
    ));
    assert_eq!(status().await["state"], "connected");
    // a replica that says nothing for 15 s counts no more
    controller.clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(status().await["state"], "disconnected");
}

/// What is stored once an agent joined as this cluster.
pub(crate) fn join(controller: &Controller, id: &str) {
    controller.database.sql(&format!(
        "UPDATE clusters SET joined_at = '2027-01-15T07:00Z' WHERE id = '{id}';
         INSERT INTO cluster_intermediates (org_id, cluster_id, fingerprint, serial, certificate, not_before,
                                            not_after, issued_at)
         SELECT org_id, id, decode(repeat('11', 32), 'hex'), 'a1', 'PEM', '2027-01-15T07:00Z', '2027-04-15T07:00Z',
                '2027-01-15T07:00Z' FROM clusters WHERE id = '{id}'"
    ));
}
