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
        door: Arc::default(),
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

fn peer(org: &str, cluster: &str, print: u8) -> Client {
    let domain = TrustDomain::parse(&format!("{org}.tombolo.internal")).unwrap();
    let id = SpiffeId::agent(&domain, &name(cluster));
    Client(Some(Arc::new(Peer { id, intermediate: CaFingerprint::new([print; 32]) })))
}

/// A cluster that may ask, and how it asks.
async fn joined(controller: &Controller, router: axum::Router) -> impl AsyncFn(&str, &Value) -> (u16, Value) {
    let walled = controller.organization("walled").await;
    let made = controller.cluster(&walled, "walled", "cluster-1").await;
    join(controller, made["id"].as_str().unwrap());
    controller.database.sql(
        "UPDATE organizations SET generation = generation + 1;
         SELECT pg_notify('tombolo_changes', id::text) FROM organizations",
    );
    let ask = async move |path: &str, body: &Value| {
        let request = Request::post(path).header("tombolo-protocol", "1.0");
        let mut request = request.body(Body::from(body.to_string())).unwrap();
        request.extensions_mut().insert(peer("walled", "cluster-1", 0x11));
        let answer = router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    };
    let nothing = Value::Null;
    let good = || ask("/agent/v1/ack", &nothing);
    wait::until("the agent is known", Duration::from_secs(30), good, |(status, _)| *status == 422).await;
    ask
}

/// What a cluster tells in many small changes has the bound of what it tells at once.
#[tokio::test]
async fn changes_that_make_too_much_change_nothing() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let ask = joined(&controller, router(agent(&controller))).await;
    let pods = |many: usize| {
        let pods = (0..many).map(|n| (format!("p{n}"), json!({ "ready": true })));
        let pods: serde_json::Map<_, _> = pods.collect();
        json!({ "created_s": 0, "ports": [], "headless": true, "ready": 0, "total": 0, "pods": pods })
    };
    let tell = async |sequence: u64, whole: bool, services: Value| {
        let update = json!({ "epoch": "e", "sequence": sequence, "whole": whole, "services": services });
        ask("/agent/v1/inventory", &update).await
    };
    let stored =
        || controller.database.sql("SELECT key, md5(record::text) FROM inventory_services ORDER BY key");
    let services: serde_json::Map<_, _> = (0..4).map(|n| (format!("shop/s{n}"), pods(5_000))).collect();
    let (status, said) = tell(1, true, services.clone().into()).await;
    assert_eq!(status, 200, "{said}");
    let before = stored();
    for too_much in [json!({ "shop/new": pods(1) }), json!({ "shop/s0": pods(4_999), "shop/new": pods(2) })] {
        let (status, said) = tell(2, false, too_much).await;
        assert_eq!((status, &said["errors"][0]["field"]), (422, &json!("services")), "{said}");
        assert_eq!(said["errors"][0]["message"], "are more than 20000 names of pods", "{said}");
        assert!(said["errors"][0]["remedy"].as_str().unwrap().contains("--exclude-namespace"), "{said}");
        assert_eq!(stored(), before);
    }
    // what stays in bounds goes on
    let (status, said) = tell(2, false, json!({ "shop/s0": pods(4_999), "shop/new": pods(1) })).await;
    assert_eq!(status, 200, "{said}");
    assert_ne!(stored(), before);
    driver.stop().await;
}

#[tokio::test]
async fn a_cluster_that_asks_too_often_is_told_when_to_come_back() {
    let controller = Controller::start().await;
    let driver = controller.reconcile().await;
    let ask = joined(&controller, router(agent(&controller))).await;
    let mut signed = 0;
    let (status, said) = loop {
        let (status, said) = ask("/agent/v1/certificate", &json!({ "csr": "" })).await;
        if status != 422 || signed > 1000 {
            break (status, said);
        }
        signed += 1;
    };
    assert_eq!((status, signed, &said["type"]), (429, 20, &json!("/problems/rate-limited")), "{said}");
    assert_eq!(ask("/agent/v1/ack", &Value::Null).await.0, 422, "others of its requests go on");
    controller.clock.advance(Duration::from_secs(10));
    assert_eq!(ask("/agent/v1/certificate", &json!({ "csr": "" })).await.0, 422);
    driver.stop().await;
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
    for (path, _, brings) in routes() {
        let Some(brings) = brings else { continue };
        let large = Body::from(vec![b' '; brings.most() + 1]);
        let told =
            ask(("POST", path), Some(peer("walled", "cluster-1", 0x11)), Some(&onboarding), large).await;
        assert_eq!(told, "body-too-large", "{path}");
    }
    assert_eq!(stored(), before);
    driver.stop().await;
}
