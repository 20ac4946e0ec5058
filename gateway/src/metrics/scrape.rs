//! What is looked up when somebody scrapes, rather than counted as it happens.

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{MetricType, exemplar::Exemplar},
    registry::{Registry, Unit},
};
use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    time::Duration,
};
use tombolo_model::{ClusterName, Generation, health::Health};
use tombolo_wire::message::{EdgeCount, PeerState};

/// The state of this process at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Open tunnels to other hops.
    pub tunnels: usize,
    /// Bytes that wait for readers that do not read.
    pub waiting: usize,
    /// Peers by cluster and address.
    pub peers: BTreeMap<ClusterName, BTreeMap<String, PeerState>>,
    /// Connections by edge.
    pub edges: Vec<EdgeCount>,
    /// The generation of the table in force.
    pub generation: Generation,
    /// Whether the agent is connected.
    pub feed_connected: bool,
    /// How many generations the table is behind the agent's.
    pub feed_lag: u64,
    /// Access log lines lost.
    pub log_dropped: u64,
    /// Until the first of the certificates in use ends.
    pub certificate_left: Option<Duration>,
}

/// Adds what is looked up to the process's registry, whose names begin with `tombolo_gateway_`.
pub fn register(registry: &mut Registry, look: impl Fn() -> Reading + Send + Sync + 'static) {
    registry.register_collector(Box::new(Scrape(Box::new(look))));
}

struct Scrape(Box<dyn Fn() -> Reading + Send + Sync>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scrape(..)")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State(Health);

impl EncodeLabelValue for State {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(word(self.0))
    }
}

/// The word for a state of health in labels and dumps.
pub(crate) const fn word(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::SlowStart => "slow_start",
        Health::Dead => "dead",
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPeer {
    cluster: String,
    address: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    cluster: String,
    address: String,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEdge {
    source: String,
    name: String,
    cluster: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEdgeOnly {
    source: String,
    name: String,
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEdgeFlow {
    source: String,
    name: String,
    cluster: String,
    flow: &'static str,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let now = (self.0)();
        gauge(&mut encoder, "tunnels", "Open tunnels to other hops", now.tunnels as f64)?;
        let help = "Bytes that wait for readers that do not read";
        let mut waiting =
            encoder.encode_descriptor("waiting", help, Some(&Unit::Bytes), MetricType::Gauge)?;
        waiting.encode_gauge(&(now.waiting as f64))?;
        gauge(
            &mut encoder,
            "snapshot_generation",
            "Generation of the table in force",
            now.generation.get() as f64,
        )?;
        gauge(
            &mut encoder,
            "feed_connected",
            "Whether the agent is connected",
            f64::from(u8::from(now.feed_connected)),
        )?;
        gauge(
            &mut encoder,
            "feed_lag",
            "Generations that the table is behind the agent",
            now.feed_lag as f64,
        )?;
        if let Some(left) = now.certificate_left {
            let help = "Until the first of the certificates in use ends";
            let mut all = encoder.encode_descriptor(
                "certificate_left",
                help,
                Some(&Unit::Seconds),
                MetricType::Gauge,
            )?;
            all.encode_gauge(&left.as_secs_f64())?;
        }
        let help = "Access log lines lost to a slow or full disk";
        let mut lost = encoder.encode_descriptor("accesslog_dropped", help, None, MetricType::Counter)?;
        lost.encode_counter(&now.log_dropped, None::<&Exemplar<[(&str, &str); 0], u64>>)?;
        peers(&mut encoder, &now)?;
        edges(&mut encoder, &now)
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn peers(encoder: &mut DescriptorEncoder<'_>, now: &Reading) -> fmt::Result {
    let each =
        || now.peers.iter().flat_map(|(cluster, all)| all.iter().map(move |(a, peer)| (cluster, a, peer)));
    let help = "State of a peer's gateway, as its probes tell: 1 for the state it is in";
    let mut states = encoder.encode_descriptor("peer_state", help, None, MetricType::Gauge)?;
    for (cluster, address, peer) in each() {
        let labels =
            ByState { cluster: cluster.to_string(), address: address.clone(), state: State(peer.health) };
        states.encode_family(&labels)?.encode_gauge(&1_u32)?;
    }
    let help = "Round trip of the last probe that was answered";
    let mut times = encoder.encode_descriptor("probe_rtt", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    for (cluster, address, peer) in each() {
        let Some(us) = peer.rtt_us else { continue };
        let labels = ByPeer { cluster: cluster.to_string(), address: address.clone() };
        times.encode_family(&labels)?.encode_gauge(&Duration::from_micros(us).as_secs_f64())?;
    }
    Ok(())
}

fn edges(encoder: &mut DescriptorEncoder<'_>, now: &Reading) -> fmt::Result {
    type NoExemplar = Exemplar<[(&'static str, &'static str); 0], u64>;
    let by = |edge: &EdgeCount, result| ByEdge {
        source: edge.source.clone(),
        name: edge.name.clone(),
        cluster: edge.cluster.clone(),
        result,
    };
    let flow = |edge: &EdgeCount, flow| ByEdgeFlow {
        source: edge.source.clone(),
        name: edge.name.clone(),
        cluster: edge.cluster.clone(),
        flow,
    };
    let help = "Connections by caller, name and serving cluster";
    let mut all = encoder.encode_descriptor("edge_connections", help, None, MetricType::Counter)?;
    for edge in &now.edges {
        all.encode_family(&by(edge, "ok"))?.encode_counter(&edge.ok, None::<&NoExemplar>)?;
        all.encode_family(&by(edge, "failed"))?.encode_counter(&edge.failed, None::<&NoExemplar>)?;
    }
    let help = "Connections open now by caller, name and serving cluster";
    let mut open = encoder.encode_descriptor("edge_open", help, None, MetricType::Gauge)?;
    for edge in &now.edges {
        let labels = ByEdgeOnly {
            source: edge.source.clone(),
            name: edge.name.clone(),
            cluster: edge.cluster.clone(),
        };
        open.encode_family(&labels)?.encode_gauge(&edge.open)?;
    }
    let help = "Bytes by caller, name and serving cluster; up is to the server";
    let mut bytes =
        encoder.encode_descriptor("edge_carried", help, Some(&Unit::Bytes), MetricType::Counter)?;
    for edge in &now.edges {
        bytes.encode_family(&flow(edge, "up"))?.encode_counter(&edge.bytes_up, None::<&NoExemplar>)?;
        bytes.encode_family(&flow(edge, "down"))?.encode_counter(&edge.bytes_down, None::<&NoExemplar>)?;
    }
    Ok(())
}
