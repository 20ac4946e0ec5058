//! Being fed: what one cluster reports reaches the others that import it, through restarts and through any replica.

use crate::support::{SOON, Site, database, problem, site};
use serde_json::json;
use std::time::Duration;
use tombolo_model::{
    install::TrialStatus,
    snapshot::{ClusterResource, ResourceKey},
};
use tombolo_testkit::{build, build::Service, wait};

const CATALOG: &str = "catalog.acme.example.com";

fn catalog(ready: u32) -> tombolo_model::inventory::ServiceRecord {
    Service::new(&[8082]).endpoints(ready, 3).account("catalog").build()
}

fn shop() -> tombolo_model::inventory::Inventory {
    build::inventory([("default/catalog", Service::new(&[8082]).endpoints(1, 3).account("catalog"))])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_one_cluster_reaches_the_other() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    site.gns(&acme, "acme", "acme.example.com").await;
    let (one, two) = (site.agent(&acme, "cluster-1").await, site.agent(&acme, "cluster-2").await);
    assert_eq!(site.status(&acme, "cluster-1").await["state"], "disconnected");
    let feed = one.feed(&site);
    feed.until("the first state", |state| state.generation.get() > 0).await;
    site.until_state(&acme, "cluster-1", "connected").await;

    two.report(&site, "a", shop()).await;
    let found = feed.until_name(CATALOG, |_| true).await;
    assert_eq!(found.targets.len(), 1);
    assert_eq!((found.targets[0].cluster.as_str(), found.targets[0].ready), ("cluster-2", 1));
    assert_eq!(found.vip.v4.octets()[0], 240);

    // a flap is a delta of the two names it is about, and no more
    feed.until_status("everything settled", |status| status.lag() == 0).await;
    two.update(&site, ("a", 2), ("default/catalog", catalog(2))).await.unwrap();
    feed.until_name(CATALOG, |name| name.targets[0].ready == 2).await;
    let state = feed.state();
    assert!(state.previous.get() > 0);
    assert!(
        state.changes.upserted.iter().all(|key| key.to_string().starts_with("name/catalog.")),
        "{:?}",
        state.changes
    );
    assert!(state.changes.upserted.len() <= 2 && state.changes.removed.is_empty(), "{:?}", state.changes);

    // both sides show how far it follows
    let look = || site.status(&acme, "cluster-1");
    let status = wait::until("the acknowledgement", SOON, look, |status| {
        status["applied_generation"] == status["current_generation"]
            && status["applied_generation"].as_u64() > Some(0)
    })
    .await;
    assert_eq!(status["lag_ms"], 0, "{status}");

    // an ingress address that the agent reports is told to those who import from it
    two.say(&site, &["192.0.2.7:15443"]).await.unwrap();
    let peer = ResourceKey::new("peer", "cluster-2");
    feed.until("the peer's address", |state| {
        matches!(state.resources.get(&peer), Some(ClusterResource::Peer(p)) if p.ingress.contains("192.0.2.7:15443"))
    })
    .await;
    // and stays while the agent can't say whether it is so still
    two.say_nothing_of_addresses(&site).await.unwrap();
    let stored = "select ingress from clusters where name = 'cluster-2'";
    assert_eq!(database.sql(stored), "{192.0.2.7:15443}");
    two.say(&site, &[]).await.unwrap();
    assert_eq!(database.sql(stored), "{}");
    drop(feed);
    let status = site.until_state(&acme, "cluster-1", "disconnected").await;
    assert!(status["last_seen"].is_string(), "{status}");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn saying_the_same_again_writes_nothing() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let row = || database.sql("select xmin::text || ' ' || xmax::text from cluster_status");
    // without a feed it is a sign of life, which is written
    agent.say(&site, &[]).await.unwrap();
    let first = row();
    agent.say(&site, &[]).await.unwrap();
    assert_ne!(row(), first);
    let feed = agent.feed(&site);
    let look = || site.status(&acme, "cluster-1");
    wait::until("the acknowledgement", SOON, look, |status| {
        status["applied_generation"].as_u64() > Some(0)
            && status["applied_generation"] == status["current_generation"]
    })
    .await;
    let before = row();
    for _ in 0..3 {
        agent.say(&site, &[]).await.unwrap();
    }
    assert_eq!(row(), before, "neither written nor locked");
    agent.say(&site, &["192.0.2.7:15443"]).await.unwrap();
    let gateway = tombolo_wire::message::GatewayReport {
        instance: "egress-1".to_owned(),
        role: tombolo_model::GatewayRole::Egress,
        software: "tombolo-gateway/test".to_owned(),
        admin: None,
        status: Default::default(),
    };
    agent.say_with(&site, &["192.0.2.7:15443"], vec![gateway]).await.unwrap();
    assert_eq!(site.status(&acme, "cluster-1").await["gateways"][0]["instance"], "egress-1");
    drop(feed);
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_is_told_until_it_is_answered() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let feed = agent.feed(&site);
    let path = acme.path("/clusters/cluster-1/install");
    let put = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let put = put.put(format!("https://{}/api/v1{path}", site.bound.api)).bearer_auth(&acme.admin);
    let put = put.header("if-match", "*").json(&json!({ "version": "one" })).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 200);
    let (order, trial) = (ResourceKey::new("install", ""), ResourceKey::new("trial", ""));
    feed.until("the order", |state| state.resources.contains_key(&order)).await;
    let stands = feed.state().resources[&order].clone();

    let ask = async |version: &str| {
        let body = json!({ "version": version });
        let asked = site.must(&acme.admin, "POST", &format!("{path}/trials"), Some(body)).await;
        asked["number"].as_u64().unwrap()
    };
    let told = |number: u64| {
        let trial = trial.clone();
        move |state: &tombolo_feed::State<ClusterResource>| matches!(state.resources.get(&trial), Some(ClusterResource::Trial(told)) if told.number == number)
    };
    let first = ask("two").await;
    feed.until("the trial", told(first)).await;
    assert_eq!(feed.state().resources[&order], stands, "the order stays in force");
    // another takes its place; the answer to the first does not end it
    let second = ask("three").await;
    feed.until("the second trial", told(second)).await;
    let said = |number: u64| TrialStatus {
        number,
        plan: vec!["make it".to_owned()],
        corefile: vec!["+ x".to_owned()],
        problems: Vec::new(),
    };
    agent.say_tried(&site, &[], Vec::new(), Some(said(first))).await.unwrap();
    assert_eq!(database.sql("select trial->>'number' from clusters"), second.to_string());
    agent.say_tried(&site, &[], Vec::new(), Some(said(second))).await.unwrap();
    feed.until("the end of the trial", |state| !state.resources.contains_key(&trial)).await;
    assert_eq!(feed.state().resources[&order], stands);
    // who asked may look later
    agent.say(&site, &["192.0.2.7:15443"]).await.unwrap();
    let status = site.status(&acme, "cluster-1").await;
    let answer = json!({ "number": second, "plan": ["make it"], "corefile": ["+ x"], "problems": [] });
    assert_eq!(status["trial"], answer, "{status}");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_without_its_base_is_asked_for_whole() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let early = agent.update(&site, ("a", 1), ("default/catalog", catalog(1))).await;
    assert_eq!(problem(early), "unknown-base");
    agent.report(&site, "a", shop()).await;
    assert_eq!(problem(agent.update(&site, ("a", 3), ("default/catalog", catalog(1))).await), "unknown-base");
    agent.update(&site, ("a", 2), ("default/catalog", catalog(2))).await.unwrap();
    // the same once more, because the answer was lost: taken, and nothing changes
    let before = database.sql("select generation from organizations");
    agent.update(&site, ("a", 2), ("default/catalog", catalog(3))).await.unwrap();
    assert_eq!(database.sql("select generation from organizations"), before);
    assert_eq!(problem(agent.update(&site, ("b", 3), ("default/catalog", catalog(1))).await), "unknown-base");
    // the same inventory from a new process is no change
    let one = Service::new(&[8082]).endpoints(2, 3).account("catalog");
    agent.report(&site, "b", build::inventory([("default/catalog", one)])).await;
    assert_eq!(database.sql("select generation from organizations"), before);
    // and what is not in a whole inventory is gone
    agent.report(&site, "c", build::inventory([])).await;
    assert_eq!(database.sql("select count(*) from inventory_services"), "0");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_ip_is_for_life() {
    let (site, database, files) = site().await;
    let acme = site.organization("acme").await;
    site.gns(&acme, "acme", "acme.example.com").await;
    let agent = site.agent(&acme, "cluster-1").await;
    agent.report(&site, "a", shop()).await;
    let feed = agent.feed(&site);
    let first = feed.until_name(CATALOG, |_| true).await.vip;

    // a restart, which the agent follows to another port
    drop(feed);
    site.bound.drain().await;
    let site = Site::start(&database, files.path()).await;
    let feed = agent.feed(&site);
    assert_eq!(feed.until_name(CATALOG, |_| true).await.vip, first);

    // gone, and others come: the address stays its own
    let others =
        build::inventory([("default/cart", Service::new(&[1])), ("default/users", Service::new(&[1]))]);
    agent.report(&site, "b", others).await;
    let cart = feed.until_name("cart.acme.example.com", |_| true).await.vip;
    let users = feed.until_name("users.acme.example.com", |_| true).await.vip;
    feed.until("the name is gone", |state| !state.resources.contains_key(&ResourceKey::new("name", CATALOG)))
        .await;
    assert!(cart != first && users != first && cart != users);
    let tombstone = format!("select released_at is not null from virtual_ips where name = '{CATALOG}'");
    let look = || async { database.sql(&tombstone) };
    wait::until("the tombstone", SOON, look, |found| found == "t").await;
    agent.report(&site, "c", shop()).await;
    assert_eq!(feed.until_name(CATALOG, |_| true).await.vip, first);
    assert_eq!(database.sql(&tombstone), "f");
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_equal() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let database = database().await;
    let left = Site::start(&database, first.path()).await;
    for file in ["ca.key", "owner-token"] {
        std::fs::copy(first.path().join(file), second.path().join(file)).unwrap();
    }
    let right = Site::start(&database, second.path()).await;
    assert_eq!(left.bound.ca_fingerprint, right.bound.ca_fingerprint);

    let acme = left.organization("acme").await;
    left.gns(&acme, "acme", "acme.example.com").await;
    let (one, two) = (left.agent(&acme, "cluster-1").await, right.agent(&acme, "cluster-2").await);
    // what is told to one replica is known to the other
    wait::until_ok("the other replica knows the cluster", SOON, || one.say(&right, &[])).await;
    let (on_left, on_right) = (one.feed(&left), two.feed(&right));
    let names = (0..40).map(|i| format!("default/s{i}"));
    for (epoch, key) in names.enumerate() {
        // through both replicas in turn, so that both find names that want addresses
        let (agent, site) = if epoch % 2 == 0 { (&one, &left) } else { (&two, &right) };
        let service = (key.as_str(), Service::new(&[80]).build());
        if epoch < 2 {
            agent.report(site, "a", tombolo_model::inventory::Inventory::default()).await;
        }
        agent.update(site, ("a", epoch as u64 / 2 + 2), service).await.unwrap();
    }
    for i in 0..40 {
        let full = format!("s{i}.acme.example.com");
        let vip = on_left.until_name(&full, |_| true).await.vip;
        assert_eq!(on_right.until_name(&full, |_| true).await.vip, vip, "{full}");
    }
    let doubles = database.sql("select count(*) - count(distinct index) from virtual_ips");
    assert_eq!(doubles, "0");
    // indexes are used up one by one, whoever asks
    assert_eq!(database.sql("select max(index) - count(*) from virtual_ips"), "0");

    // either replica says who is connected where
    left.until_state(&acme, "cluster-2", "connected").await;
    right.until_state(&acme, "cluster-1", "connected").await;
    // and one goes on without the other
    left.bound.drain().await;
    right.until_state(&acme, "cluster-1", "disconnected").await;
    let again = one.feed(&right);
    again.until_name("s0.acme.example.com", |_| true).await;
    right.until_state(&acme, "cluster-1", "connected").await;
    right.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_published_is_no_lag() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let feed = agent.feed(&site);
    feed.until("the first state", |state| state.generation.get() > 0).await;
    let look = || site.status(&acme, "cluster-1");
    let whole = |status: &serde_json::Value| {
        status["lag_ms"] == 0
            && status["applied_generation"] == status["current_generation"]
            && status["applied_generation"].as_u64() > Some(0)
    };
    let before = wait::until("it has all", SOON, look, whole).await["current_generation"].as_u64().unwrap();
    // a number without news; a replica that read it together with what was news publishes it
    site.cluster(&acme, "cluster-2").await;
    let newest = database.sql("select generation from organizations");
    let newest: u64 = newest.parse().unwrap();
    assert!(newest > before, "{newest}");
    database.sql(&format!(
        "update cluster_status set published_generation = {newest}, published_at = now() - interval '1 second'"
    ));
    let told = |status: &serde_json::Value| status["current_generation"] == newest && whole(status);
    wait::until("it is not behind", SOON, look, told).await;
    drop(feed);
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_may_go_and_come() {
    let (site, database, _files) = site().await;
    let acme = site.organization("acme").await;
    site.gns(&acme, "acme", "acme.example.com").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let feed = agent.feed(&site);
    feed.until("the first state", |state| state.generation.get() > 0).await;
    // every connection is cut, the one that listens for changes too
    database.sql("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()");
    let report = async || {
        let key = tombolo_model::inventory::ServiceKey::try_from("default/catalog".to_owned()).unwrap();
        let update = tombolo_wire::message::InventoryUpdate {
            epoch: "a".into(),
            sequence: 1,
            whole: true,
            namespaces: Default::default(),
            services: [(key, catalog(1))].into(),
            removed_namespaces: Default::default(),
            removed_services: Default::default(),
        };
        agent.post::<_, tombolo_wire::message::InventoryAck>(&site, "/agent/v1/inventory", &update).await
    };
    wait::until_ok("the inventory is stored", SOON, report).await;
    feed.until_name(CATALOG, |_| true).await;
    assert!(feed.status().connected);
    // and the connection that listens is back: the next change comes at once, not with the timer
    tokio::time::timeout(Duration::from_secs(20), async {
        for ready in 2..5 {
            agent.update(&site, ("a", u64::from(ready)), ("default/catalog", catalog(ready))).await.unwrap();
            feed.until_name(CATALOG, |name| name.targets[0].ready == ready).await;
        }
    })
    .await
    .expect("changes come at once");
    site.bound.drain().await;
}
