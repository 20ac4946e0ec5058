use super::*;
use serde_json::json;

fn caller() -> Caller {
    Caller {
        cluster: "cluster-1".parse().unwrap(),
        namespace: "default".parse().unwrap(),
        account: "shopping".parse().unwrap(),
    }
}

fn destination(port: u16) -> Destination {
    Destination { name: "catalog.acme.example.com".parse().unwrap(), port }
}

fn facts() -> Facts {
    let gateways = |health: &str| {
        json!([
            { "role": "sidecar", "software": "tombolo-gateway/0.1.0", "status": { "generation": 4 } },
            { "role": "egress", "software": "tombolo-gateway/0.1.0", "status": { "generation": 4,
              "peers": { "cluster-2": { "127.0.0.1:7000": { "health": health, "handshake": true, "rtt_us": 210, "error": "refused" } } } } },
            { "role": "ingress", "software": "tombolo-gateway/0.1.0", "status": { "generation": 4 } },
        ])
    };
    let state = json!({ "state": "connected", "labels": { "env": "prod", "tier": "gold" }, "applied_generation": 4, "current_generation": 4, "gateways": gateways("healthy") });
    Facts {
        namespaces: vec![json!({ "name": "acme", "domain": "acme.example.com", "rules": [
            { "cluster": { "name": "cluster-2" }, "namespace": { "name": "default" } },
            { "cluster": { "labels": { "env": "prod" } }, "namespace": { "name": "default" } } ] })],
        service: Some(
            json!({ "name": "catalog.acme.example.com", "gns": "acme", "vip": { "v4": "240.0.0.1" },
            "ports": [{ "port": 8082 }],
            "targets": [{ "cluster": "cluster-2", "ready": 1, "total": 1, "end_to_end": "all", "services": ["default/catalog"] }] }),
        ),
        clusters: BTreeMap::from([("cluster-1".into(), state.clone()), ("cluster-2".into(), state)]),
    }
}

/// The hop that says no, and what it says to do.
fn refusal(facts: &Facts, port: u16) -> (&'static str, String) {
    let hops = walk(facts, &caller(), &destination(port));
    assert_eq!(hops.len(), 7);
    let no: Vec<&Hop> = hops.iter().filter(|h| h.verdict == Verdict::No).collect();
    assert_eq!(no.len(), 1, "{hops:#?}");
    (no[0].hop, format!("{} {}", no[0].detail, no[0].remedy.clone().unwrap()))
}

#[test]
fn a_good_request_passes_every_hop() {
    let hops = walk(&facts(), &caller(), &destination(8082));
    assert!(hops.iter().all(|h| h.verdict == Verdict::Yes), "{hops:#?}");
}

#[test]
fn each_hop_can_say_no() {
    let mut f = facts();
    f.service = None;
    assert_eq!(refusal(&f, 8082).0, "name");
    assert_eq!(refusal(&facts(), 1).0, "address");
    // a cluster that the global namespace does not choose
    let mut f = facts();
    f.clusters.get_mut("cluster-1").unwrap()["labels"] = json!({ "env": "dev" });
    let (hop, why) = refusal(&f, 8082);
    assert!(hop == "name" && why.contains("no rule of global namespace acme chooses cluster-1"), "{why}");
    f.namespaces[0]["rules"][1]["cluster"] = json!({ "labels": {} });
    assert!(walk(&f, &caller(), &destination(8082)).iter().all(|h| h.verdict == Verdict::Yes));
    let mut f = facts();
    f.clusters.get_mut("cluster-1").unwrap()["gateways"] = json!([]);
    let (hop, why) = refusal(&f, 8082);
    assert!(hop == "proxy" && why.contains("tombolo-gateway run --role sidecar"), "{why}");
    let mut f = facts();
    f.clusters.get_mut("cluster-1").unwrap()["gateways"][1]["status"]["peers"]["cluster-2"]["127.0.0.1:7000"]
        ["health"] = json!("dead");
    let (hop, why) = refusal(&f, 8082);
    assert_eq!(hop, "egress");
    assert!(why.contains("refused"), "{why}");
    let mut f = facts();
    f.service.as_mut().unwrap()["targets"][0]["ready"] = json!(0);
    let (hop, why) = refusal(&f, 8082);
    assert!(hop == "egress" && why.contains("no cluster has a ready endpoint"), "{why}");
    let mut f = facts();
    f.clusters.get_mut("cluster-2").unwrap()["gateways"] = json!([]);
    assert_eq!(refusal(&f, 8082).0, "peer ingress");
}

#[test]
fn the_clusters_dns_has_a_say() {
    let said = |install: serde_json::Value, problems: serde_json::Value| {
        let mut f = facts();
        let status = f.clusters.get_mut("cluster-1").unwrap();
        (status["install"], status["problems"]) = (install, problems);
        let hops = walk(&f, &caller(), &destination(8082));
        let hop = hops.iter().find(|hop| hop.hop == "dns").unwrap().clone();
        // what nobody knows keeps nobody from looking at the rest
        let rest = if hop.verdict == Verdict::No { Verdict::NotReached } else { Verdict::Yes };
        assert!(hops[2..].iter().all(|hop| hop.verdict == rest), "{hops:#?}");
        (hop.verdict, hop.detail)
    };
    let step = |state: &str, message: &str| json!({ "revision": 1, "steps": [{ "step": "dns", "state": state, "message": message }] });
    let forwards = "CoreDNS forwards acme.example.com, clusterset.local";
    for (install, problems, verdict, part) in [
        (step("done", forwards), json!([]), Verdict::Yes, "CoreDNS forwards"),
        (json!(null), json!([]), Verdict::Yes, "nothing was installed"),
        (
            step("done", "CoreDNS forwards clusterset.local"),
            json!([]),
            Verdict::No,
            "not the domain of catalog",
        ),
        (
            step("done", forwards),
            json!([{ "subject": "domain acme.example.com", "message": "overlaps example.com" }]),
            Verdict::No,
            "overlaps example.com",
        ),
        (
            step("done", &format!("{forwards}; NodeLocal DNSCache has to be told by hand")),
            json!([]),
            Verdict::Unknown,
            "NodeLocal",
        ),
        (step("failed", "forward acme.example.com yourself"), json!([]), Verdict::Unknown, "yourself"),
        (step("working", "the Corefile changes"), json!([]), Verdict::Unknown, "the Corefile changes"),
        (step("done", "CoreDNS is as it was"), json!([]), Verdict::Unknown, "as it was"),
        (json!({ "revision": 1, "steps": [] }), json!([]), Verdict::Unknown, "does not say"),
    ] {
        let found = said(install, problems);
        assert!(found.0 == verdict && found.1.contains(part), "{found:?}");
    }
}

#[test]
fn in_kubernetes_pods_need_no_proxy() {
    let mut f = facts();
    let status = f.clusters.get_mut("cluster-1").unwrap();
    let dns = json!({ "step": "dns", "state": "done", "message": "CoreDNS forwards acme.example.com" });
    status["install"] = json!({ "revision": 1, "steps": [dns] });
    // that of another namespace is not the caller's
    status["gateways"][0]["instance"] = json!("shop.cart-0");
    let hops = walk(&f, &caller(), &destination(8082));
    assert!(hops.iter().all(|h| h.verdict == Verdict::Yes), "{hops:#?}");
    assert!(hops[3].hop == "proxy" && hops[3].detail.contains("straight to an egress gateway"), "{hops:#?}");
    f.clusters.get_mut("cluster-1").unwrap()["gateways"][0]["instance"] = json!("default.shopping-0");
    let hops = walk(&f, &caller(), &destination(8082));
    assert!(hops[3].detail.contains("1 of sidecar in namespace default"), "{hops:#?}");
    f.clusters.get_mut("cluster-1").unwrap()["gateways"].as_array_mut().unwrap().remove(0);
    // a node's proxy stands below all pods of its node
    let node = json!({ "role": "node", "software": "tombolo-gateway/0.1.0", "status": { "generation": 4 } });
    f.clusters.get_mut("cluster-1").unwrap()["gateways"].as_array_mut().unwrap().push(node);
    let hops = walk(&f, &caller(), &destination(8082));
    assert!(hops[3].verdict == Verdict::Yes && hops[3].detail.starts_with("1 of node"), "{hops:#?}");
    // what is missing is installed there, not started by hand
    for cluster in ["cluster-2", "cluster-1"] {
        let status = f.clusters.get_mut(cluster).unwrap();
        status["gateways"] = json!([]);
        status["install"] = json!({ "revision": 1, "steps": [] });
        let (hop, why) = refusal(&f, 8082);
        assert_eq!(hop, if cluster == "cluster-1" { "egress" } else { "peer ingress" });
        assert!(why.contains(&format!("tombolo cluster install {cluster}")), "{why}");
        assert!(!why.contains("tombolo-gateway"), "{why}");
    }
}
