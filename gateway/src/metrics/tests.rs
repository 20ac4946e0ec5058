use super::{scrape::Reading, *};
use crate::reason::Reason;
use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};
use tombolo_model::{ClusterName, GatewayRole, Generation, GlobalName, health::Health};
use tombolo_runtime::metrics::Metrics as Registered;
use tombolo_wire::message::PeerState;

fn record(reason: Option<Reason>) -> Record {
    let mut record = Record::new(SystemTime::UNIX_EPOCH, GatewayRole::Egress, 1, Direction::Transit);
    record.name = GlobalName::parse("catalog.acme.example.com").ok();
    record.reason = reason;
    record.connect = reason.is_none().then_some(Duration::from_millis(3));
    (record.bytes_up, record.bytes_down) = (5, 7);
    record
}

#[test]
fn what_ended_is_counted_by_how() {
    let metrics = Metrics::new();
    let registered = Registered::new("gateway");
    registered.with(|registry| metrics.register(registry));
    metrics.opened(Direction::Transit);
    metrics.opened(Direction::Transit);
    metrics.closed(Direction::Transit);
    metrics.observe(&record(None));
    let mut refused = record(Some(Reason::NotACaller));
    refused.hop = Some("ingress@c2".into());
    metrics.observe(&refused);
    metrics.handshake(true);
    metrics.retry();
    let text = registered.encode();
    for line in [
        "tombolo_gateway_connections_total{direction=\"transit\",reason=\"ok\"} 1",
        "tombolo_gateway_connections_total{direction=\"transit\",reason=\"not_a_caller\"} 1",
        "tombolo_gateway_connections_open{direction=\"transit\"} 1",
        "tombolo_gateway_refusals_total{direction=\"transit\",reason=\"not_a_caller\",hop=\"further\"} 1",
        "tombolo_gateway_carried_bytes_total{direction=\"transit\",flow=\"up\"} 10",
        "tombolo_gateway_carried_bytes_total{direction=\"transit\",flow=\"down\"} 14",
        "tombolo_gateway_connect_seconds_count{direction=\"transit\"} 1",
        "tombolo_gateway_handshakes_total{result=\"ok\"} 1",
        "tombolo_gateway_retries_total 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    assert_eq!(metrics.connections_open(), 1);
}

#[test]
fn what_is_looked_up_is_there() {
    let registered = Registered::new("gateway");
    let peer = PeerState { health: Health::SlowStart, handshake: true, rtt_us: Some(1500), error: None };
    let reading = Reading {
        tunnels: 3,
        waiting: 4096,
        peers: BTreeMap::from([(
            ClusterName::parse("c2").unwrap(),
            BTreeMap::from([("192.0.2.1:15008".to_owned(), peer)]),
        )]),
        edges: vec![EdgeCount {
            source: "default/shopping".into(),
            name: "catalog.acme.example.com".into(),
            cluster: "c2".into(),
            ok: 4,
            open: 3,
            failed: 1,
            bytes_up: 10,
            bytes_down: 20,
        }],
        generation: Generation::new(12),
        feed_connected: true,
        feed_lag: 0,
        log_dropped: 2,
        certificate_left: Some(Duration::from_secs(3600)),
    };
    registered.with(|registry| scrape::register(registry, move || reading.clone()));
    let text = registered.encode();
    let edge = "source=\"default/shopping\",name=\"catalog.acme.example.com\",cluster=\"c2\"";
    for line in [
        "tombolo_gateway_tunnels 3.0".to_owned(),
        "tombolo_gateway_waiting_bytes 4096.0".to_owned(),
        "tombolo_gateway_snapshot_generation 12.0".to_owned(),
        "tombolo_gateway_feed_connected 1.0".to_owned(),
        "tombolo_gateway_certificate_left_seconds 3600.0".to_owned(),
        "tombolo_gateway_accesslog_dropped_total 2".to_owned(),
        "tombolo_gateway_peer_state{cluster=\"c2\",address=\"192.0.2.1:15008\",state=\"slow_start\"} 1"
            .to_owned(),
        "tombolo_gateway_probe_rtt_seconds{cluster=\"c2\",address=\"192.0.2.1:15008\"} 0.0015".to_owned(),
        format!("tombolo_gateway_edge_connections_total{{{edge},result=\"ok\"}} 4"),
        format!("tombolo_gateway_edge_open{{{edge}}} 3"),
        format!("tombolo_gateway_edge_carried_bytes_total{{{edge},flow=\"down\"}} 20"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
