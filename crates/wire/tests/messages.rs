//! The protocol as it is written: one example of every message. A change here is a change of the protocol: programs of
//! two minor versions apart must still read it, so fields may be added, with a default, and nothing else.

use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tombolo_model::snapshot::{ClusterResource, GatewayResource};
use tombolo_wire::{digest::Stated, message::*, problem::ProblemDetails};

/// Reads a text as a message and writes it again, or says that it is none.
type Again = fn(&str) -> Option<Value>;

fn again<T: Serialize + DeserializeOwned>(text: &str) -> Option<Value> {
    serde_json::to_value(serde_json::from_str::<T>(text).ok()?).ok()
}

const PRINT: &str = "0101010101010101010101010101010101010101010101010101010101010101";

fn bundle() -> Value {
    json!({"trust_domain": "acme.internal", "roots": ["PEM"], "clusters": {"cluster-1": [PRINT]}})
}

fn hello() -> Value {
    json!({"protocol": {"major": 1, "minor": 0}, "software": "tombolo-agent/0.1.0", "capabilities": ["x"]})
}

fn service() -> Value {
    json!({
        "created_s": 1_700_000_000, "ports": [{"port": 8082, "protocol": "TCP", "name": "http", "app_protocol": "http"}],
        "headless": true, "ready": 1, "total": 2, "tunnelled": 1, "accounts": ["catalog"],
        "pods": {"db-0": {"ready": true, "tunnelled": false}},
    })
}

fn cluster_resources() -> Value {
    let target = json!({
        "cluster": "cluster-2", "proximity": "region", "services": ["default/catalog"], "ports": [8082], "ready": 1,
        "end_to_end": "all", "accounts": [["default", "catalog"]],
    });
    json!({
        "self/": {"type": "itself", "cluster": "cluster-1", "trust_domain": "acme.internal", "locality": {"region": "eu"}},
        "bundle/": merge(json!({"type": "bundle"}), bundle()),
        "peer/cluster-2": {"type": "peer", "cluster": "cluster-2", "proximity": "elsewhere", "ingress": ["192.0.2.2:15443"]},
        "domain/acme.example.com":
            {"type": "domain", "domain": "acme.example.com", "gns": "acme", "members": ["cluster-1", "cluster-2"]},
        "name/db-0.db.acme.example.com": {
            "type": "name", "name": "db-0.db.acme.example.com", "domain": "acme.example.com", "kind": "pod",
            "headless": false,
            "pod": "db-0", "vip": {"v4": "240.0.0.1", "v6": "fd74::1"}, "ports": [{"port": 53, "protocol": "UDP"}],
            "targets": [target],
        },
        "capture/default": {
            "type": "capture", "namespace": "default", "mode": "sidecar", "gns": "acme", "against": {"beta": "node"},
        },
    })
}

fn gateway_resources() -> Value {
    let id = "spiffe://acme.internal/cluster/cluster-2/ns/default/sa/catalog";
    let target = json!({
        "cluster": "cluster-2", "proximity": "zone", "ports": [8082], "ready": 3, "end_to_end": "some", "identities": [id],
    });
    let endpoint = json!({"address": "10.0.0.1:80", "ready": true, "tunnel": "10.0.0.1:15008", "leaving": true, "identity": id});
    json!({
        "route/catalog.acme.example.com": {
            "type": "route", "name": "catalog.acme.example.com", "addresses": ["240.0.0.1", "fd74::1"],
            "ports": [{"port": 8082, "protocol": "TCP"}], "targets": [target],
        },
        "export/catalog.acme.example.com": {
            "type": "export", "name": "catalog.acme.example.com", "callers": ["cluster-1"],
            "ports": [{"port": 8082, "endpoints": [endpoint, {"address": "[fd00::1]:80", "ready": false}]}],
        },
        format!("workload/{id}"): {
            "type": "workload", "identity": id, "selectors": [{"uid": 1001}, {"path": "/bin/x"}, {"cgroup": "x.service"}],
        },
        "gateways/": {"type": "gateways", "egress": ["127.0.0.1:15001"]},
    })
}

fn merge(mut one: Value, two: Value) -> Value {
    if let (Value::Object(one), Value::Object(two)) = (&mut one, two) {
        one.extend(two);
    }
    one
}

fn examples() -> Vec<(&'static str, Again, Value)> {
    let digest = "000102030405060708090a0b0c0d0e0f";
    let gateway = json!({
        "generation": 4, "connections": 2,
        "peers": {"cluster-2": {"192.0.2.2:15443": {"health": "slow_start", "handshake": true, "rtt_us": 90, "error": "x"}}},
        "edges": [{"source": "default/a", "name": "b", "cluster": "c", "ok": 1, "open": 1, "failed": 2, "bytes_up": 3, "bytes_down": 4}],
        "problems": [{"subject": "a", "message": "b"}],
        "capture": {"way": "redirect", "why": "c"},
    });
    let line = |fields| merge(fields, json!({"generation": 7, "digest": digest}));
    vec![
        ("hello", again::<FeedLine<ClusterResource>>, merge(json!({"line": "hello"}), hello())),
        ("current", again::<FeedLine<ClusterResource>>, line(json!({"line": "current"}))),
        (
            "part",
            again::<FeedLine<Stated<ClusterResource>>>,
            json!({"line": "part", "generation": 7, "resources": {}}),
        ),
        (
            "snapshot for a cluster",
            again::<FeedLine<Stated<ClusterResource>>>,
            line(json!({"line": "snapshot", "resources": cluster_resources()})),
        ),
        (
            "snapshot for a gateway",
            again::<FeedLine<GatewayResource>>,
            line(json!({"line": "snapshot", "resources": gateway_resources()})),
        ),
        (
            "delta",
            again::<FeedLine<GatewayResource>>,
            line(json!({"line": "delta", "base": 5, "upserts": gateway_resources(), "removes": ["peer/x"]})),
        ),
        ("heartbeat", again::<FeedLine<GatewayResource>>, json!({"line": "heartbeat", "generation": 7})),
        ("goodbye", again::<FeedLine<GatewayResource>>, json!({"line": "goodbye", "reason": "draining"})),
        ("ack", again::<Ack>, json!({"generation": 5, "refused": [6, "why"]})),
        (
            "join request",
            again::<JoinRequest>,
            json!({
                "hello": hello(), "cluster": "cluster-1", "csr": "PEM", "locality": {"region": "eu", "zone": "eu-1"},
                "nodes": {"region": "eu", "zone": "eu-2"},
            }),
        ),
        (
            "join response",
            again::<JoinResponse>,
            json!({
                "hello": hello(), "organization": "acme", "trust_domain": "acme.internal", "cluster": "cluster-1",
                "intermediate": "PEM", "bundle": bundle(),
            }),
        ),
        ("intermediate request", again::<IntermediateRequest>, json!({"csr": "PEM"})),
        ("intermediate response", again::<IntermediateResponse>, json!({"intermediate": "PEM"})),
        (
            "inventory",
            again::<InventoryUpdate>,
            json!({
                "epoch": "e", "sequence": 2, "whole": false, "namespaces": {"default": {"labels": {"a": "b"}}},
                "services": {"default/db": service()}, "removed_namespaces": ["x"], "removed_services": ["x/y"],
            }),
        ),
        ("inventory ack", again::<InventoryAck>, json!({"sequence": 2})),
        (
            "agent status",
            again::<AgentStatus>,
            json!({
                "software": "tombolo-agent/0.1.0", "generation": 4, "problems": [{"subject": "a.yaml:3", "message": "b"}],
                "ingress": ["192.0.2.1:15443"], "ingress_unknown": true,
                "gateways": [{
                    "instance": "i", "role": "egress", "software": "s", "admin": "127.0.0.1:1", "status": gateway.clone(),
                }],
                "intermediate": "ab".repeat(32),
            }),
        ),
        (
            "gateway hello",
            again::<GatewayHello>,
            json!({
                "hello": hello(), "instance": "i", "role": "sidecar", "tunnel": "127.0.0.1:15008", "advertise": ["h:1"],
                "beside": ["::1"], "serves": ["127.0.0.1"], "workloads": [["default", "catalog"]], "explicit": true, "admin": "127.0.0.1:2",
                "leaving": true,
            }),
        ),
        (
            "gateway welcome",
            again::<GatewayWelcome>,
            json!({"hello": hello(), "cluster": "cluster-1", "trust_domain": "acme.internal"}),
        ),
        (
            "leaf request",
            again::<LeafRequest>,
            json!({"identity": "spiffe://acme.internal/cluster/cluster-1/gateway/egress", "csr": "PEM"}),
        ),
        ("leaf response", again::<LeafResponse>, json!({"chain": "PEM", "not_after_s": 1_700_000_000})),
        ("gateway status", again::<GatewayStatus>, gateway),
        (
            "problem",
            again::<ProblemDetails>,
            json!({
                "type": "about:blank", "title": "t", "status": 422, "detail": "d",
                "errors": [{"field": "name", "message": "m", "remedy": "r"}],
            }),
        ),
    ]
}

#[test]
fn every_message_reads_as_it_is_written() {
    for (name, again, example) in examples() {
        assert_eq!(again(&example.to_string()).as_ref(), Some(&example), "{name}");
    }
}

#[test]
fn a_newer_one_with_more_fields_is_read() {
    for (name, again, example) in examples() {
        let newer = merge(example.clone(), json!({"added_later": {"x": [1]}}));
        assert_eq!(again(&newer.to_string()), Some(example), "{name}");
    }
}

#[test]
fn a_way_of_capture_that_came_later_is_read() {
    let text = json!({"generation": 1, "connections": 0, "capture": {"way": "teleport"}}).to_string();
    let status: GatewayStatus = serde_json::from_str(&text).unwrap();
    assert_eq!(status.capture, Some(NodeCapture { way: CaptureWay::Unknown, why: None }));
}

proptest! {
    #[test]
    fn damage_never_panics(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), with in "\\PC{0,3}") {
        let examples = examples();
        let (_, again, example) = &examples[which.index(examples.len())];
        let mut text: Vec<char> = example.to_string().chars().collect();
        let at = at.index(text.len());
        text.splice(at..=at, with.chars());
        // What is still read is written, and read again, the same.
        let text: String = text.into_iter().collect();
        if let Some(value) = again(&text) {
            prop_assert_eq!(again(&value.to_string()), Some(value));
        }
    }
}
