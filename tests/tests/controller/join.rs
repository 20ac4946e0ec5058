//! Joining, and everything that is refused.

use crate::support::{SOON, problem, site};
use serde_json::json;
use std::time::Duration;
use tombolo_model::{
    GatewayRole, Generation, Locality, SpiffeId,
    snapshot::{ClusterResource, ResourceKey},
};
use tombolo_mtls::{Credentials, PrivateKey};
use tombolo_testkit::{build::name, wait};
use tombolo_wire::message::{Ack, IntermediateRequest};

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

/// The controller commits and is killed, or the link breaks: the agent asks again with the key that it kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_given_again() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let (first, other) = (site.agent(&acme, "cluster-1").await, site.agent(&acme, "cluster-2").await);
    let peer = other.feed(&site);
    let token = site.onboarding(&acme, "cluster-1").await;
    let data = tempfile::tempdir().unwrap();
    let config = |controller: &str| tombolo_agent::join::JoinConfig {
        controller: controller.to_owned(),
        ca_fingerprint: site.bound.ca_fingerprint.clone(),
        cluster: name("cluster-1"),
        data: data.path().to_owned(),
        locality: Locality::default(),
        nodes: Locality::default(),
    };
    // what the agent keeps before it asks, and what the controller makes of it
    tombolo_agent::join::join(&config("https://127.0.0.1:1"), &token).await.unwrap_err();
    let kept = std::fs::read_to_string(data.path().join("join.pem")).unwrap();
    let pem = &kept[kept.find("-----BEGIN").unwrap()..];
    let id = SpiffeId::cluster(&acme.trust_domain, &name("cluster-1"));
    let again = async |key: PrivateKey| {
        site.join_by(&acme, ("cluster-1", Locality::default()), &token, (key, &id)).await
    };
    let second = again(PrivateKey::from_pem(pem).unwrap()).await.unwrap();
    let fingerprint = second.intermediate.fingerprint();

    tombolo_agent::join::join(&config(&site.bound.public_url), &token).await.unwrap();
    assert!(!data.path().join("join.pem").exists(), "it is the cluster's key now");
    let revoked = "select count(*) from cluster_intermediates where revoked_at is not null";
    assert_eq!(database.sql(revoked), "1", "that of before, once");
    let actions = "select action from audit_events where actor_kind = 'agent' and subject_name = 'cluster-1' order by generation";
    assert_eq!(database.sql(actions), "cluster.join\ncluster.rejoin\ncluster.join_repeated");
    let bundle = ResourceKey::new("bundle", "");
    peer.until("the bundle with the new one alone", |state| match state.resources.get(&bundle) {
        Some(ClusterResource::Bundle(bundle)) => {
            bundle.clusters["cluster-1"].iter().collect::<Vec<_>>() == [&fingerprint]
        }
        _ => false,
    })
    .await;
    second.say(&site, &[]).await.unwrap();
    assert!(first.say(&site, &[]).await.is_err());

    // another key gets nothing for it; nor does this one once there is a newer one, or the token's time is over
    assert_eq!(problem(again(PrivateKey::generate().unwrap()).await), "onboarding-token-used");
    let renewed = second.renew(&site, &PrivateKey::generate().unwrap()).await.unwrap();
    wait::until_ok("the new one is believed", SOON, || renewed.say(&site, &[])).await;
    assert_eq!(problem(again(PrivateKey::from_pem(pem).unwrap()).await), "onboarding-token-used");
    let token = site.onboarding(&acme, "cluster-2").await;
    let id = SpiffeId::cluster(&acme.trust_domain, &name("cluster-2"));
    let key = PrivateKey::generate().unwrap();
    let again = async || {
        let key = PrivateKey::from_pem(&key.to_pem()).unwrap();
        site.join_by(&acme, ("cluster-2", Locality::default()), &token, (key, &id)).await
    };
    again().await.unwrap();
    again().await.unwrap();
    site.clock.advance(Duration::from_secs(15 * 60 + 1));
    assert_eq!(problem(again().await), "onboarding-token-used");
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
async fn a_cluster_that_joins_again_leaves_a_thief_outside() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let (first, other) = (site.agent(&acme, "cluster-1").await, site.agent(&acme, "cluster-2").await);
    let before = database.sql("select id from clusters where name = 'cluster-1'");
    let (stolen, peer) = (first.feed(&site), other.feed(&site));
    stolen.until("its first state", |state| state.generation.get() > 0).await;
    let token = site.onboarding(&acme, "cluster-1").await;
    let second = site.join(&acme, "cluster-1", &token).await.unwrap();
    assert_ne!(first.intermediate.fingerprint(), second.intermediate.fingerprint());
    assert_eq!(database.sql("select id from clusters where name = 'cluster-1'"), before);
    second.say(&site, &[]).await.unwrap();
    // who has the key of before is out: its feed ends, its requests are refused, and peers are told
    stolen.until_status("its feed ends", |status| !status.connected).await;
    assert!(first.say(&site, &[]).await.is_err());
    let bundle = ResourceKey::new("bundle", "");
    let newest = second.intermediate.fingerprint().clone();
    peer.until("the bundle with the new one alone", |state| match state.resources.get(&bundle) {
        Some(ClusterResource::Bundle(bundle)) => {
            bundle.clusters["cluster-1"].iter().collect::<Vec<_>>() == [&newest]
        }
        _ => false,
    })
    .await;
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_intermediate_is_renewed() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;

    let other = SpiffeId::cluster(&acme.trust_domain, &name("cluster-2"));
    let csr = PrivateKey::generate().unwrap().csr(&other).unwrap();
    let refused = agent.post::<_, ()>(&site, "/agent/v1/certificate", &IntermediateRequest { csr }).await;
    assert_eq!(problem(refused), "invalid-csr");

    let first = PrivateKey::generate().unwrap();
    let renewed = agent.renew(&site, &first).await.unwrap();
    wait::until_ok("the new one is believed", SOON, || renewed.say(&site, &[])).await;
    agent.say(&site, &[]).await.unwrap();
    let bundle = site.must(&acme.admin, "GET", &acme.path("/trust-bundle"), None).await;
    assert_eq!(bundle["clusters"]["cluster-1"].as_array().unwrap().len(), 2, "{bundle}");

    // the older one may still ask, as after an answer that was lost; that stands in the audit log
    let actions =
        || database.sql("select action from audit_events where actor_kind = 'agent' order by generation");
    assert_eq!(actions(), "cluster.join\ncluster.certificate");
    let key = PrivateKey::generate().unwrap();
    let third = agent.renew(&site, &key).await.unwrap();
    assert_eq!(actions(), "cluster.join\ncluster.certificate\ncluster.certificate_by_older");
    let asked = database
        .sql("select after->'asked_with'->>'fingerprint' from audit_events order by generation desc limit 1");
    assert_eq!(asked, agent.intermediate.fingerprint().to_string());
    wait::until_ok("the third is believed", SOON, || third.say(&site, &[])).await;

    // two are believed, not three; and a key that was taken out of trust never comes back
    assert!(agent.renew(&site, &key).await.is_err());
    let fourth = renewed.renew(&site, &PrivateKey::generate().unwrap()).await.unwrap();
    wait::until_ok("the fourth is believed", SOON, || fourth.say(&site, &[])).await;
    assert_eq!(problem(fourth.renew(&site, &first).await), "invalid-csr");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_revoked_is_refused_by_a_replica_that_does_not_know() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let one = site.agent(&acme, "cluster-1").await;
    let two = site.agent(&acme, "cluster-2").await;
    one.say(&site, &[]).await.unwrap();
    // no generation is taken, so no replica hears of these
    let fingerprint = one.intermediate.fingerprint().to_string().replace("sha256:", "");
    let revoked = format!(
        "update cluster_intermediates set revoked_at = now() where fingerprint = '\\x{fingerprint}' returning 1"
    );
    assert_eq!(database.sql(&revoked), "1");
    database.sql("update clusters set revoked_at = now() where name = 'cluster-2'");
    for agent in [&one, &two] {
        assert_eq!(problem(agent.say(&site, &[]).await), "cluster-revoked");
        assert_eq!(problem(agent.say(&site, &["192.0.2.1:1"]).await), "cluster-revoked");
        assert_eq!(problem(agent.renew(&site, &PrivateKey::generate().unwrap()).await), "cluster-revoked");
        let update =
            agent.update(&site, ("a", 1), ("default/x", tombolo_testkit::build::Service::new(&[1]).build()));
        assert_eq!(problem(update.await), "cluster-revoked");
    }
    assert_eq!(database.sql("select count(*) from clusters where ingress <> '{}'"), "0");
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
    // an address that is none is left out, and said (reach.rs)
    agent.say(&site, &["http://somewhere"]).await.unwrap();
    assert_eq!(database.sql("select count(*) from clusters where ingress <> '{}'"), "0");

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

/// Where its nodes stand is where it stands, unless somebody said otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_stands_where_its_nodes_do() {
    let (site, _database, _files) = site().await;
    let acme = site.organization("acme").await;
    let region = async |cluster: &str| {
        let path = acme.path(&format!("/clusters/{cluster}"));
        site.must(&acme.admin, "GET", &path, None).await["locality"]["region"].clone()
    };
    site.cluster(&acme, "cluster-1").await;
    site.join_from(&acme, "cluster-1", "eu").await;
    assert_eq!(region("cluster-1").await, "eu");
    let body = serde_json::json!({ "name": "cluster-2", "locality": { "region": "us" } });
    site.must(&acme.admin, "POST", &acme.path("/clusters"), Some(body)).await;
    site.join_from(&acme, "cluster-2", "eu").await;
    assert_eq!(region("cluster-2").await, "us", "the operator's word counts");
    site.bound.drain().await;
}
