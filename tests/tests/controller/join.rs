//! Joining, and everything that is refused.

use crate::support::{Agent, SOON, problem, site};
use serde_json::json;
use std::time::Duration;
use tombolo_model::{GatewayRole, Generation, SpiffeId};
use tombolo_mtls::{Credentials, Intermediate, PrivateKey};
use tombolo_testkit::{build::name, wait};
use tombolo_wire::message::{Ack, IntermediateRequest, IntermediateResponse};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once_for_one_cluster() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let token = site.cluster(&acme, "cluster-1").await;
    site.cluster(&acme, "cluster-2").await;

    assert_eq!(problem(site.join(&acme, "cluster-1", "tmj_nothing").await), "onboarding-token-unknown");
    assert_eq!(problem(site.join(&acme, "cluster-1", &acme.admin).await), "onboarding-token-unknown");
    assert_eq!(problem(site.join(&acme, "cluster-2", &token).await), "onboarding-token-other-cluster");
    // a request for somebody else's certificate does not use the token up
    let other = SpiffeId::cluster(&acme.trust_domain, &name("cluster-2"));
    assert_eq!(problem(site.join_as(&acme, "cluster-1", &token, &other).await), "invalid-csr");
    site.join(&acme, "cluster-1", &token).await.unwrap();
    assert_eq!(problem(site.join(&acme, "cluster-1", &token).await), "onboarding-token-used");

    // no trace of a token but its hash
    for table in ["onboarding_tokens", "audit_events", "changes", "idempotency_keys"] {
        let rows = database.sql(&format!("select t::text from {table} t"));
        assert!(!rows.contains(token.trim_start_matches("tmj_")), "{table}: {rows}");
    }
    let actions = database.sql("select action from audit_events where actor_kind = 'agent'");
    assert_eq!(actions, "cluster.join");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_end_and_are_revoked() {
    let (site, _database, _files) = site().await;
    let acme = site.organization("acme").await;
    let revoked = site.cluster(&acme, "cluster-1").await;
    let path = acme.path("/clusters/cluster-1/onboarding-tokens");
    let listed = site.must(&acme.admin, "GET", &path, None).await;
    let id = listed["items"][0]["id"].as_str().unwrap();
    site.must(&acme.admin, "DELETE", &format!("{path}/{id}"), None).await;
    assert_eq!(problem(site.join(&acme, "cluster-1", &revoked).await), "onboarding-token-revoked");

    let late = site.onboarding(&acme, "cluster-1").await;
    site.clock.advance(Duration::from_secs(15 * 60 + 1));
    assert_eq!(problem(site.join(&acme, "cluster-1", &late).await), "onboarding-token-expired");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_joins_again_with_a_new_token() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let first = site.agent(&acme, "cluster-1").await;
    let before = database.sql("select id from clusters");
    let token = site.onboarding(&acme, "cluster-1").await;
    let second = site.join(&acme, "cluster-1", &token).await.unwrap();
    assert_ne!(first.intermediate.fingerprint(), second.intermediate.fingerprint());
    assert_eq!(database.sql("select id from clusters"), before);
    // the one before still serves while the newcomer takes over; a third takes its place
    second.say(&site, &[]).await.unwrap();
    first.say(&site, &[]).await.unwrap();
    let token = site.onboarding(&acme, "cluster-1").await;
    let third = site.join(&acme, "cluster-1", &token).await.unwrap();
    third.say(&site, &[]).await.unwrap();
    assert!(first.say(&site, &[]).await.is_err());
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_is_renewed() {
    let (site, _database, _files) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let id = agent.intermediate.id().clone();

    let other = SpiffeId::cluster(&acme.trust_domain, &name("cluster-2"));
    let csr = PrivateKey::generate().unwrap().csr(&other).unwrap();
    let refused = agent.post::<_, ()>(&site, "/agent/v1/certificate", &IntermediateRequest { csr }).await;
    assert_eq!(problem(refused), "invalid-csr");

    let key = PrivateKey::generate().unwrap();
    let request = IntermediateRequest { csr: key.csr(&id).unwrap() };
    let answer: IntermediateResponse = agent.post(&site, "/agent/v1/certificate", &request).await.unwrap();
    let renewed = Agent::new(Intermediate::new(key, &answer.intermediate).unwrap());
    wait::until_ok("the new one is believed", SOON, || renewed.say(&site, &[])).await;
    agent.say(&site, &[]).await.unwrap();
    let bundle = site.must(&acme.admin, "GET", &acme.path("/trust-bundle"), None).await;
    assert_eq!(bundle["clusters"]["cluster-1"].as_array().unwrap().len(), 2, "{bundle}");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_strangers_are_refused() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    for path in ["ack", "inventory", "status", "certificate"] {
        let path = format!("/agent/v1/{path}");
        let answer: Result<(), _> =
            tombolo_feed::post_once(&site.connector(None), &path, Some(&acme.admin), &json!({})).await;
        assert_eq!(problem(answer), "client-certificate-required", "{path}");
        let answer: Result<(), _> = agent.post(&site, &path, &json!({ "no": "sense" })).await;
        assert_eq!(problem(answer), "invalid-field", "{path}");
    }
    assert_eq!(problem(agent.say(&site, &["http://somewhere"]).await), "invalid-field");

    // a gateway of the same cluster is not its agent
    let id = SpiffeId::gateway(&acme.trust_domain, &name("cluster-1"), GatewayRole::Egress);
    let key = PrivateKey::generate().unwrap();
    let csr = key.csr(&id).unwrap();
    let chain = agent.intermediate.sign_leaf(&csr, &id, tombolo_testkit::ca::valid()).unwrap();
    let gateway = Credentials::new(id);
    gateway.set(&chain, key).unwrap();
    let ack = Ack { generation: Generation::new(1), refused: None };
    let answer: Result<(), _> =
        tombolo_feed::post_once(&site.connector(Some(&gateway)), "/agent/v1/ack", None, &ack).await;
    assert_eq!(problem(answer), "client-certificate-required");

    // what an agent refuses is shown, until it applies something
    let refused = Some((Generation::new(9), "has no sense".to_owned()));
    let ack = Ack { generation: Generation::new(1), refused };
    agent.post::<_, ()>(&site, "/agent/v1/ack", &ack).await.unwrap();
    let look = || async { database.sql("select refused from cluster_status") };
    wait::until("the refusal", SOON, look, |found| found == "generation 9: has no sense").await;
    let ack = Ack { generation: Generation::new(2), refused: None };
    agent.post::<_, ()>(&site, "/agent/v1/ack", &ack).await.unwrap();
    wait::until("no refusal", SOON, look, String::is_empty).await;
    site.bound.drain().await;
}
