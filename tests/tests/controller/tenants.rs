//! Organizations are walls, and a revoked cluster is outside.

use crate::support::{SOON, site};
use serde_json::json;
use std::time::{Duration, Instant};
use tombolo_model::{
    SpiffeId,
    snapshot::{ClusterResource, ResourceKey},
};
use tombolo_testkit::{build, build::Service, wait};

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_its_own_organization_only() {
    let (site, _database, _files) = site().await;
    let (acme, evil) = (site.organization("acme").await, site.organization("evil").await);
    // the same names and domains on both sides
    for org in [&acme, &evil] {
        site.gns(org, "shop", "shop.example.com").await;
    }
    let (ours, theirs) = (site.agent(&acme, "cluster-1").await, site.agent(&evil, "cluster-1").await);
    let secret = build::inventory([("default/secret", Service::new(&[1]))]);
    let plain = build::inventory([("default/plain", Service::new(&[1]))]);
    ours.report(&site, "a", secret).await;
    theirs.report(&site, "a", plain).await;
    let (our_feed, their_feed) = (ours.feed(&site), theirs.feed(&site));
    let one = our_feed.until_name("secret.shop.example.com", |_| true).await;
    let two = their_feed.until_name("plain.shop.example.com", |_| true).await;
    // each organization counts for itself
    assert_eq!(one.vip, two.vip);
    let told = format!("{:?}", their_feed.state().resources);
    assert!(!told.contains("secret") && !told.contains(acme.trust_domain.as_str()), "{told}");
    assert_eq!(our_feed.name("plain.shop.example.com"), None);
    // people of either see the services of their own
    let services = async |org: &crate::support::Org| {
        let list = site.must(&org.admin, "GET", &org.path("/services"), None).await;
        let names =
            list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned());
        names.filter(|name| !name.contains("cluster-1")).collect::<Vec<_>>()
    };
    assert_eq!(services(&acme).await, ["secret.shop.example.com"]);
    assert_eq!(services(&evil).await, ["plain.shop.example.com"]);
    let theirs_of_ours = evil.path("/services/secret.shop.example.com");
    assert_eq!(site.call(&evil.admin, "GET", &theirs_of_ours, None).await.0, 404);
    site.must(&acme.admin, "GET", &acme.path("/services/secret.shop.example.com"), None).await;

    // a cluster that signs itself an identity of the other organization is nobody
    let forged = SpiffeId::agent(&acme.trust_domain, &build::name("cluster-1"));
    let csr = tombolo_mtls::PrivateKey::generate().unwrap().csr(&forged).unwrap();
    let validity = tombolo_testkit::ca::valid();
    assert!(theirs.intermediate.sign_leaf(&csr, &forged, validity).is_err());
    // and a token of one does not let into the other
    let token = site.cluster(&evil, "cluster-2").await;
    site.must(&acme.admin, "POST", &acme.path("/clusters"), Some(json!({ "name": "cluster-3" }))).await;
    assert!(site.join(&acme, "cluster-3", &token).await.is_err());
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_cluster_is_out_at_once() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    site.gns(&acme, "acme", "acme.example.com").await;
    let (one, two) = (site.agent(&acme, "cluster-1").await, site.agent(&acme, "cluster-2").await);
    two.report(&site, "a", build::inventory([("default/catalog", Service::new(&[8082]).endpoints(1, 1))]))
        .await;
    let (feed, revoked) = (one.feed(&site), two.feed(&site));
    feed.until_name("catalog.acme.example.com", |_| true).await;
    revoked.until("its first state", |state| state.generation.get() > 0).await;

    let path = acme.path("/clusters/cluster-2");
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let url = format!("https://{}/api/v1{path}", site.bound.api);
    let began = Instant::now();
    let answer = client.delete(url).bearer_auth(&acme.admin).header("if-match", "*").send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    let ended = revoked.until_status("its feed ends", |status| !status.connected).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?} {ended:?}");
    // neither a new handshake nor a request gets through
    assert!(two.say(&site, &[]).await.is_err());
    // peers do not believe it any more, and its services are gone
    let bundle = ResourceKey::new("bundle", "");
    feed.until("the bundle without it", |state| match state.resources.get(&bundle) {
        Some(ClusterResource::Bundle(bundle)) => {
            bundle.clusters.keys().map(|name| name.as_str()).collect::<Vec<_>>() == ["cluster-1"]
        }
        _ => false,
    })
    .await;
    feed.until("its services are gone", |state| {
        !state.resources.keys().any(|key| key.to_string().starts_with("name/catalog."))
    })
    .await;
    let look = || async {
        database.sql(
            "select count(*) from feeds f join clusters c on c.id = f.cluster_id where c.name = 'cluster-2'",
        )
    };
    wait::until("no feed of it is noted", SOON, look, |count| count == "0").await;
    site.bound.drain().await;
}
