//! Every route is tried by those whom it is not for: with nothing, with tokens of people, and with certificates of another
//! organization or cluster. A route that is not in the table fails the suite.

use super::{Agent, join_limiter, router, routes};
use crate::{
    http::tests::{Controller, clusters::join},
    metrics::Agents,
    reconcile::Liveness,
    tls::Client,
};
use axum::{body::Body, http::Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tombolo_model::{SpiffeId, TrustDomain, snapshot::CaFingerprint};
use tombolo_mtls::Peer;
use tombolo_runtime::metrics::Metrics;
use tombolo_testkit::{build::name, wait};
use tower::ServiceExt as _;
use uuid::Uuid;

/// The routes, and what a stranger is told. The one that joins goes by its token alone, whatever certificate comes with it.
const CASES: [(&str, &str, &str); 6] = [
    ("POST", "/agent/v1/join", "onboarding-token-unknown"),
    ("POST", "/agent/v1/ack", "client-certificate-required"),
    ("POST", "/agent/v1/certificate", "client-certificate-required"),
    ("POST", "/agent/v1/status", "client-certificate-required"),
    ("POST", "/agent/v1/inventory", "client-certificate-required"),
    ("GET", "/agent/v1/feed", "client-certificate-required"),
];

fn nothing() -> Body {
    Body::from(json!({}).to_string())
}

fn agent(controller: &Controller) -> Agent {
    let (metrics, clock) = (Metrics::new("controller"), Arc::clone(&controller.deps.clock));
    let agents = Agents::new(&metrics);
    Agent {
        deps: Arc::clone(&controller.deps),
        liveness: Liveness::new(Uuid::now_v7(), clock, agents.lag_seconds.clone()),
        metrics: agents,
        joins: join_limiter(),
        allow_loopback: true,
        stop: controller.deps.stop.clone(),
    }
}

#[test]
fn every_route_has_a_case() {
    let served: BTreeSet<&str> = routes().iter().map(|(path, ..)| *path).collect();
    let covered: BTreeSet<&str> = CASES.iter().map(|(_, path, _)| *path).collect();
    assert_eq!(served, covered, "add the route to the table of this file");
}

#[tokio::test]
async fn strangers_get_nothing_and_change_nothing() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let walled = controller.organization("walled").await;
    let other = controller.organization("other").await;
    let made = controller.cluster(&walled, "walled", "cluster-1").await;
    join(&controller, made["id"].as_str().unwrap());
    controller.cluster(&other, "other", "cluster-2").await;
    controller.database.sql(
        "UPDATE organizations SET generation = generation + 1;
         SELECT pg_notify('tombolo_changes', id::text) FROM organizations",
    );
    let router = router(agent(&controller));
    let onboarding = format!("tmj_{}", "A".repeat(43));
    let stored = || {
        ["clusters", "cluster_intermediates", "onboarding_tokens", "cluster_status", "audit_events"]
            .map(|table| controller.database.sql(&format!("SELECT * FROM {table} AS t ORDER BY t")))
    };
    let domain = |org: &str| TrustDomain::parse(&format!("{org}.tombolo.internal")).unwrap();
    let peer = |org: &str, cluster: &str, print: u8| {
        let id = SpiffeId::agent(&domain(org), &name(cluster));
        Client(Some(Arc::new(Peer { id, intermediate: CaFingerprint::new([print; 32]) })))
    };
    let ask = {
        async |(method, path): (&str, &str), client: Option<Client>, token: Option<&str>, body: Body| {
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header("tombolo-protocol", "1.0")
                .header("content-type", "application/json");
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let mut request = request.body(body).unwrap();
            if let Some(client) = client {
                request.extensions_mut().insert(client);
            }
            let answer = router.clone().oneshot(request).await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
            assert!(status.is_client_error(), "{path}: {status} {problem}");
            problem["type"].as_str().unwrap_or_default().replace("/problems/", "")
        }
    };
    // the one who may is let in, as soon as this replica knows it: then only the body is wrong
    let good = || ask(("POST", "/agent/v1/ack"), Some(peer("walled", "cluster-1", 0x11)), None, nothing());
    wait::until("the agent is known", Duration::from_secs(30), good, |told| told == "invalid-field").await;
    let before = stored();
    for (method, path, told) in CASES {
        for token in [None, Some(walled.as_str()), Some(other.as_str()), Some(controller.owner.as_str())] {
            assert_eq!(ask((method, path), None, token, nothing()).await, told, "{path}");
        }
        // a cluster of another organization that calls itself like one of ours; one that our organization never signed;
        // and one that there is in another organization only
        for client in [
            peer("other", "cluster-1", 0x11),
            peer("walled", "cluster-1", 0x22),
            peer("walled", "cluster-2", 0x11),
        ] {
            let told = if told == "client-certificate-required" { "cluster-revoked" } else { told };
            assert_eq!(ask((method, path), Some(client), None, nothing()).await, told, "{path}");
        }
    }
    // not even those who may send what has no end
    for (path, _, most) in routes() {
        let Some(most) = most else { continue };
        let large = Body::from(vec![b' '; most + 1]);
        let told =
            ask(("POST", path), Some(peer("walled", "cluster-1", 0x11)), Some(&onboarding), large).await;
        assert_eq!(told, "body-too-large", "{path}");
    }
    assert_eq!(stored(), before);
    driver.stop().await;
}
