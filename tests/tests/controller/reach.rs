//! Which addresses of ingress gateways are published, and what followers are told at once.

use crate::support::{Org, SOON, Site, database, site};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tombolo_model::{GatewayRole, health::Health};
use tombolo_testkit::build::name;
use tombolo_wire::message::{CaptureWay, GatewayReport, GatewayStatus, NodeCapture, PeerState};

const ADDRESS: &str = "192.0.2.7:15443";

fn egress(handshake: bool, health: Health, error: Option<&str>) -> Vec<GatewayReport> {
    let state = PeerState { health, handshake, rtt_us: Some(7), error: error.map(str::to_owned) };
    let peers = BTreeMap::from([(name("cluster-2"), BTreeMap::from([(ADDRESS.to_owned(), state)]))]);
    vec![GatewayReport {
        instance: "egress-1".to_owned(),
        role: GatewayRole::Egress,
        software: "tombolo-gateway/test".to_owned(),
        admin: None,
        status: GatewayStatus { peers, ..GatewayStatus::default() },
    }]
}

/// Follows events, and gives the data of those of one kind.
struct Events {
    answer: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(site: &Site, org: &Org) -> Self {
        let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
        let url = format!("https://{}/api/v1{}", site.bound.api, org.path("/events"));
        let answer = client.get(url).bearer_auth(&org.admin).send().await.unwrap();
        Self { answer, text: String::new() }
    }

    /// Well before a follower looks by itself.
    async fn next(&mut self, kind: &str) -> Value {
        let found = tokio::time::timeout(SOON / 2, self.find(kind)).await;
        found.unwrap_or_else(|_| panic!("no event {kind:?} in time"))
    }

    async fn find(&mut self, kind: &str) -> Value {
        loop {
            while let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if field("event: ") == Some(kind) {
                    return serde_json::from_str(field("data: ").unwrap()).unwrap();
                }
            }
            let chunk = self.answer.chunk().await.unwrap().unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_published_by_the_peer_that_got_through() {
    let (site, _database, _files) = site().await;
    let acme = site.organization("acme").await;
    let (one, two) = (site.agent(&acme, "cluster-1").await, site.agent(&acme, "cluster-2").await);
    let addresses = || async {
        let cluster = site.must(&acme.admin, "GET", &acme.path("/clusters/cluster-2"), None).await;
        cluster["addresses"].clone()
    };
    assert_eq!(addresses().await, json!([]));
    two.say(&site, &[ADDRESS]).await.unwrap();
    let plain = json!([{ "address": ADDRESS, "state": "advertised", "published_by": [], "failing": [] }]);
    assert_eq!(addresses().await, plain);

    one.say_with(&site, &[], egress(false, Health::Dead, Some("connection refused"))).await.unwrap();
    let found = addresses().await;
    assert_eq!(found[0]["state"], "failing");
    assert_eq!(found[0]["failing"], json!([{ "cluster": "cluster-1", "reason": "connection refused" }]));

    one.say_with(&site, &[], egress(true, Health::Healthy, None)).await.unwrap();
    let found = addresses().await;
    assert_eq!((&found[0]["state"], &found[0]["failing"]), (&json!("published"), &json!([])));
    assert_eq!(found[0]["published_by"][0]["cluster"], "cluster-1");
    let since = found[0]["published_by"][0]["since"].clone();
    site.clock.advance(std::time::Duration::from_secs(60));
    one.say_with(&site, &[], egress(true, Health::Healthy, None)).await.unwrap();
    assert_eq!(addresses().await[0]["published_by"][0]["since"], since, "since the first handshake");

    // a removed cluster's word counts no more
    let client = reqwest::Client::builder().tls_danger_accept_invalid_certs(true).build().unwrap();
    let url = format!("https://{}/api/v1{}", site.bound.api, acme.path("/clusters/cluster-1"));
    let gone = client.delete(url).bearer_auth(&acme.admin).header("if-match", "*").send().await.unwrap();
    assert!(gone.status().is_success());
    assert_eq!(addresses().await, plain);
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_node_captures_is_told() {
    let (site, _database, _files) = site().await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    let status = |instance: &str, capture| GatewayReport {
        instance: instance.to_owned(),
        role: GatewayRole::Node,
        software: "tombolo-gateway/test".to_owned(),
        admin: None,
        status: GatewayStatus { capture, ..GatewayStatus::default() },
    };
    let redirect = NodeCapture { way: CaptureWay::Redirect, why: Some("no BPF".to_owned()) };
    agent.say_with(&site, &[], vec![status("a", None), status("b", Some(redirect))]).await.unwrap();
    let said = site.must(&acme.admin, "GET", &acme.path("/clusters/cluster-1/status"), None).await;
    let capture = |at: usize| &said["gateways"][at]["status"]["capture"];
    assert_eq!((capture(0), capture(1)), (&Value::Null, &json!({ "way": "redirect", "why": "no BPF" })));
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_are_told_at_once() {
    let (site, _database, _files) = site().await;
    let acme = site.organization("acme").await;
    let (one, two) = (site.agent(&acme, "cluster-1").await, site.agent(&acme, "cluster-2").await);
    two.say(&site, &[ADDRESS]).await.unwrap();
    let mut events = Events::open(&site, &acme).await;
    // what it is compared with was read once this is told
    site.gns(&acme, "acme", "acme.example.com").await;
    events.next("audit").await;
    // none of these takes a generation
    let feed = one.feed(&site);
    let found = events.next("cluster").await;
    assert_eq!((&found["name"], &found["state"]), (&json!("cluster-1"), &json!("connected")));
    one.say_with(&site, &[], egress(true, Health::Healthy, None)).await.unwrap();
    let found = events.next("cluster").await;
    assert_eq!((&found["name"], &found["addresses"][0]["state"]), (&json!("cluster-2"), &json!("published")));
    drop(feed);
    let found = events.next("cluster").await;
    assert_eq!((&found["name"], &found["state"]), (&json!("cluster-1"), &json!("disconnected")));
    site.bound.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_peers_can_not_dial_costs_no_status() {
    let (database, folder) = (database().await, tempfile::tempdir().unwrap());
    let site =
        Site::start_with(&database, folder.path(), |config| config.allow_loopback_gateways = false).await;
    let acme = site.organization("acme").await;
    let agent = site.agent(&acme, "cluster-1").await;
    agent.say(&site, &["127.0.0.1:15443", "192.0.2.7:15443"]).await.unwrap();
    let cluster = site.must(&acme.admin, "GET", &acme.path("/clusters/cluster-1"), None).await;
    assert_eq!(cluster["ingress"], json!(["192.0.2.7:15443"]));
    let status = site.must(&acme.admin, "GET", &acme.path("/clusters/cluster-1/status"), None).await;
    let said = status["problems"][0]["message"].as_str().unwrap_or_default();
    assert!(said.contains("127.0.0.1:15443") && said.contains("--allow-loopback-gateways"), "{status}");
}
