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
    assert_eq!(hops.len(), 6);
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
fn in_kubernetes_pods_need_no_proxy() {
    let mut f = facts();
    let status = f.clusters.get_mut("cluster-1").unwrap();
    status["install"] = json!({ "revision": 1, "steps": [] });
    status["gateways"].as_array_mut().unwrap().remove(0);
    let hops = walk(&f, &caller(), &destination(8082));
    assert!(hops.iter().all(|h| h.verdict == Verdict::Yes), "{hops:#?}");
    assert!(hops[2].hop == "proxy" && hops[2].detail.contains("straight to an egress gateway"), "{hops:#?}");
    // a node's proxy stands below all pods of its node
    let node = json!({ "role": "node", "software": "tombolo-gateway/0.1.0", "status": { "generation": 4 } });
    f.clusters.get_mut("cluster-1").unwrap()["gateways"].as_array_mut().unwrap().push(node);
    let hops = walk(&f, &caller(), &destination(8082));
    assert!(hops[2].verdict == Verdict::Yes && hops[2].detail.starts_with("1 of node"), "{hops:#?}");
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
