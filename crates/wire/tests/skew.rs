//! Programs of other versions, as recorded sessions in `golden/`. A session of a version that was released is never rewritten: what
//! such a program says must be read for as long as it may lie two minor versions behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests; the lint knows test functions only")]

use serde::de::DeserializeOwned;
use serde_json::Value;
use tombolo_model::snapshot::{ClusterResource, GatewayResource, Resource};
use tombolo_wire::{
    codec::LineDecoder,
    digest::Stated,
    message::*,
    problem::ProblemDetails,
    session::{Applied, Receiver, Refused},
    version::ProtocolVersion,
};

const GATEWAY_1_0: &str = include_str!("golden/gateway-feed-1.0.jsonl");
const AGENT_1_0: &str = include_str!("golden/agent-feed-1.0.jsonl");
/// Of a version that there is not yet, with fields, a type of resource and a line that this build does not know.
const GATEWAY_1_2: &str = include_str!("golden/gateway-feed-1.2.jsonl");
const REQUESTS_1_0: &str = include_str!("golden/requests-1.0.jsonl");
const GATEWAY_1_1: &str = include_str!("golden/gateway-feed-1.1.jsonl");
const REQUESTS_1_1: &str = include_str!("golden/requests-1.1.jsonl");

/// Plays a session to a receiver of today. For each line: the generation in force, and the keys.
fn play<R: Resource>(session: &str) -> Vec<(u64, Vec<String>)> {
    let mut decoder = LineDecoder::new();
    decoder.push(session.as_bytes());
    let mut receiver = Receiver::<R>::new();
    receiver.begin();
    let mut seen = Vec::new();
    while let Some(line) = decoder.next_message::<FeedLine<Stated<R>>>().unwrap() {
        receiver.accept(line).unwrap();
        let keys = receiver.state().keys().map(ToString::to_string).collect();
        seen.push((receiver.generation().get(), keys));
    }
    seen
}

fn steps(seen: &[(u64, Vec<String>)]) -> Vec<(u64, usize)> {
    seen.iter().map(|(generation, keys)| (*generation, keys.len())).collect()
}

#[test]
fn a_gateway_of_today_follows_an_agent_of_1_0() {
    let seen = play::<GatewayResource>(GATEWAY_1_0);
    assert_eq!(steps(&seen), [(0, 0), (0, 0), (7, 7), (7, 7), (9, 6), (10, 6), (10, 6)]);
}

#[test]
fn a_nodes_proxy_of_today_follows_an_agent_of_1_1() {
    let seen = play::<GatewayResource>(GATEWAY_1_1);
    assert_eq!(steps(&seen), [(0, 0), (11, 4), (12, 4)]);
    let hello: Value = serde_json::from_str(REQUESTS_1_1.lines().next().unwrap()).unwrap();
    let hello: GatewayHello = serde_json::from_value(hello["body"].clone()).unwrap();
    assert_eq!((hello.role.as_str(), hello.node.unwrap().as_str()), ("node", "n1"));
}

#[test]
fn requests_of_1_1_are_read() {
    for line in REQUESTS_1_1.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let body = &line["body"];
        let ok = match line["message"].as_str().unwrap() {
            "gateway hello" => reads::<GatewayHello>(body),
            "replica request" => reads::<ReplicaRequest>(body),
            "replica answer" => reads::<ReplicaAnswer>(body),
            _ => false,
        };
        assert!(ok, "{line}");
    }
}

#[test]
fn an_agent_of_today_follows_a_controller_of_1_0() {
    assert_eq!(steps(&play::<ClusterResource>(AGENT_1_0)), [(0, 0), (3, 5), (4, 4), (4, 4)]);
}

/// Every digest agrees, with what is not known counted in the sender's words; the rest is in force.
#[test]
fn what_a_newer_sender_adds_is_passed_over() {
    let seen = play::<GatewayResource>(GATEWAY_1_2);
    assert_eq!(steps(&seen), [(0, 0), (0, 0), (5, 3), (6, 3), (7, 3), (7, 3)]);
    assert_eq!(seen[5].1, ["bundle/", "route/catalog.acme.example.com", "self/"]);
}

#[test]
fn a_known_type_that_is_damaged_is_still_refused() {
    for damaged in [
        GATEWAY_1_2.replace("\"type\":\"route\",\"name\"", "\"type\":\"route\",\"nam\""),
        GATEWAY_1_2.replace("\"type\":\"route\",", ""),
    ] {
        let mut decoder = LineDecoder::new();
        decoder.push(damaged.as_bytes());
        let all: Result<Vec<_>, _> =
            std::iter::from_fn(|| decoder.next_message::<FeedLine<Stated<GatewayResource>>>().transpose())
                .collect();
        assert!(all.is_err());
    }
}

fn reads<T: DeserializeOwned>(body: &Value) -> bool {
    serde_json::from_value::<T>(body.clone()).is_ok()
}

#[test]
fn requests_of_1_0_are_read() {
    let mut count = 0;
    for line in REQUESTS_1_0.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (name, body) = (line["message"].as_str().unwrap(), &line["body"]);
        let ok = match name {
            "gateway hello" => reads::<GatewayHello>(body),
            "gateway welcome" => reads::<GatewayWelcome>(body),
            "ack" => reads::<Ack>(body),
            "gateway status" => reads::<GatewayStatus>(body),
            "leaf request" => reads::<LeafRequest>(body),
            "leaf response" => reads::<LeafResponse>(body),
            "join request" => reads::<JoinRequest>(body),
            "inventory" => reads::<InventoryUpdate>(body),
            "inventory ack" => reads::<InventoryAck>(body),
            "agent status" => reads::<AgentStatus>(body),
            "problem" => reads::<ProblemDetails>(body),
            _ => false,
        };
        assert!(ok, "{line}");
        count += 1;
    }
    assert_eq!(count, 11);
}

fn greeted_by(minor: u16, major: u16) -> Result<Applied, Refused> {
    let first = GATEWAY_1_0.lines().next().unwrap();
    let mut hello: Value = serde_json::from_str(first).unwrap();
    hello["protocol"] = serde_json::json!({"major": major, "minor": minor});
    let mut receiver = Receiver::<GatewayResource>::new();
    receiver.begin();
    receiver.accept(serde_json::from_value(hello).unwrap())
}

#[test]
fn an_unsafe_order_is_refused_with_the_one_to_follow() {
    let ours = ProtocolVersion::CURRENT;
    assert!(greeted_by(ours.minor + ProtocolVersion::SKEW, ours.major).is_ok());
    for (minor, major, first) in [
        (ours.minor + ProtocolVersion::SKEW + 1, ours.major, "upgrade this program first"),
        (0, ours.major + 1, "upgrade this program first"),
        (9, ours.major - 1, "upgrade the sender first"),
    ] {
        let refused = greeted_by(minor, major).unwrap_err().to_string();
        assert!(refused.contains(first) && refused.contains("2 minor versions"), "{refused}");
    }
}
