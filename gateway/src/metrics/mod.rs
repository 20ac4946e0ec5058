//! What this process counts, as `tombolo_gateway_*`.
//!
//! Label values are words of enums; the exceptions (edges, peers) are bounded by a number and by the snapshot. Counting
//! is a few atomic additions, so the data path does it itself; what can be read when somebody asks (health, tunnels,
//! lost log lines) is not counted but looked up at the scrape, by [`scrape`].

mod edges;
mod labels;
pub mod scrape;

use crate::{
    accesslog::{Direction, Record},
    config::Way,
    reason::Reason,
};
use edges::Edges;
use labels::{
    ByDirection, ByFlow, ByHandshake, ByOutcome, ByReason, ByRefusal, ByWay, Flow, Handshake, Hop, Outcome,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::sync::Arc;
use tombolo_wire::message::EdgeCount;

/// From a local connection to one over half the world and two retries.
const CONNECT_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What this process counts. Cheap to clone: all clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    connections: Family<ByOutcome, Counter>,
    open: Family<ByDirection, Gauge>,
    refusals: Family<ByRefusal, Counter>,
    bytes: Family<ByFlow, Counter>,
    connect: Family<ByDirection, Histogram, fn() -> Histogram>,
    handshakes: Family<ByHandshake, Counter>,
    retries: Counter,
    hedges: Counter,
    captures: Counter,
    capture_problems: Gauge,
    node_capture: Family<ByWay, Gauge>,
    certificates: Family<ByHandshake, Counter>,
    tunnels_refused: Family<ByReason, Counter>,
    edges: Arc<Edges>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            connections: Family::default(),
            open: Family::default(),
            refusals: Family::default(),
            bytes: Family::default(),
            connect: Family::new_with_constructor(|| Histogram::new(CONNECT_SECONDS)),
            handshakes: Family::default(),
            retries: Counter::default(),
            hedges: Counter::default(),
            captures: Counter::default(),
            capture_problems: Gauge::default(),
            node_capture: Family::default(),
            certificates: Family::default(),
            tunnels_refused: Family::default(),
            edges: Arc::new(Edges::new(edges::MOST)),
        }
    }

    /// A connection of an application, or a stream of a tunnel, began.
    pub fn opened(&self, direction: Direction) {
        self.open.get_or_create(&ByDirection { direction }).inc();
    }

    /// It ended, however it did. [`Metrics::observe`] says how.
    pub fn closed(&self, direction: Direction) {
        self.open.get_or_create(&ByDirection { direction }).dec();
    }

    /// The path of a connection is open; its record says from where to where.
    pub fn path_opened(&self, record: &Record) {
        if record.direction != Direction::Inbound {
            self.edges.opened(record);
        }
    }

    /// Counts a connection that ended.
    pub fn observe(&self, record: &Record) {
        let (direction, reason) = (record.direction, Outcome(record.reason));
        self.connections.get_or_create(&ByOutcome { direction, reason }).inc();
        if record.reason.is_some() && record.connect.is_none() {
            let hop = if record.hop.is_some() { Hop::Further } else { Hop::Here };
            self.refusals.get_or_create(&ByRefusal { direction, reason, hop }).inc();
        }
        self.bytes.get_or_create(&ByFlow { direction, flow: Flow::Up }).inc_by(record.bytes_up);
        self.bytes.get_or_create(&ByFlow { direction, flow: Flow::Down }).inc_by(record.bytes_down);
        if let Some(connect) = record.connect {
            self.connect.get_or_create(&ByDirection { direction }).observe(connect.as_secs_f64());
        }
        // a server's sidecar would count the call that its client's counted
        if direction != Direction::Inbound {
            self.edges.ended(record);
        }
    }

    /// Another target was tried after one failed.
    pub fn retry(&self) {
        self.retries.inc();
    }

    /// Another target was tried beside one that was slow to answer.
    pub fn hedge(&self) {
        self.hedges.inc();
    }

    /// A TLS handshake ended, of a tunnel or inside one.
    pub fn handshake(&self, ok: bool) {
        self.handshakes
            .get_or_create(&ByHandshake { result: if ok { Handshake::Ok } else { Handshake::Failed } })
            .inc();
    }

    /// A tunnel was not taken, or ended for what its peer did.
    pub fn tunnel_refused(&self, reason: Reason) {
        self.tunnels_refused.get_or_create(&ByReason { reason: Outcome(Some(reason)) }).inc();
    }

    /// Tunnels that were not taken, or ended for what their peers did, for this reason.
    #[must_use]
    pub fn tunnels_refused(&self, reason: Reason) -> u64 {
        self.tunnels_refused.get_or_create(&ByReason { reason: Outcome(Some(reason)) }).get()
    }

    /// A certificate was asked of the agent.
    pub fn certificate(&self, ok: bool) {
        self.certificates
            .get_or_create(&ByHandshake { result: if ok { Handshake::Ok } else { Handshake::Failed } })
            .inc();
    }

    /// A connection was captured.
    pub fn captured(&self) {
        self.captures.inc();
    }

    /// So many addresses that should be bound can't be.
    pub fn capture_problems(&self, now: usize) {
        self.capture_problems.set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Connections of this node's pods come by this way from now on.
    pub fn node_capture(&self, way: Way) {
        for one in Way::ALL {
            let used = self.node_capture.get(&ByWay { way: one }).is_some();
            if one == way || used {
                self.node_capture.get_or_create(&ByWay { way: one }).set((one == way).into());
            }
        }
    }

    /// Connections by edge since the process began, at most 2,048 edges and one for all others.
    #[must_use]
    pub fn edges(&self) -> Vec<EdgeCount> {
        self.edges.report()
    }

    /// Connections that are open now.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        let open: i64 = Direction::ALL
            .into_iter()
            .filter_map(|direction| self.open.get(&ByDirection { direction }).map(|gauge| gauge.get()))
            .sum();
        u64::try_from(open).unwrap_or(0)
    }

    /// Puts all of it into the process's registry, whose names begin with `tombolo_gateway_`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "connections",
            "Connections that ended, by how they did (ok, or the reason)",
            self.connections.clone(),
        );
        registry.register("connections_open", "Connections that are open", self.open.clone());
        registry.register(
            "refusals",
            "Connections refused before a byte moved, by reason and by whether this hop or one further on refused",
            self.refusals.clone(),
        );
        registry.register_with_unit(
            "carried",
            "Bytes carried, counted when the connection ends",
            Unit::Bytes,
            self.bytes.clone(),
        );
        registry.register_with_unit(
            "connect",
            "From the beginning of a connection until its path was open",
            Unit::Seconds,
            self.connect.clone(),
        );
        registry.register(
            "handshakes",
            "TLS handshakes, of tunnels and inside them",
            self.handshakes.clone(),
        );
        registry.register("retries", "Targets tried after another failed", self.retries.clone());
        registry.register("hedges", "Targets tried beside one slow to answer", self.hedges.clone());
        registry.register("captured", "Connections captured from applications", self.captures.clone());
        registry.register(
            "capture_problems",
            "Addresses that should be captured and can't be bound",
            self.capture_problems.clone(),
        );
        registry.register(
            "node_capture",
            "The way by which connections of this node's pods come: 1, and 0 for one that was used before",
            self.node_capture.clone(),
        );
        registry.register(
            "tunnels_refused",
            "Tunnels not taken, or ended for what their peers did, by reason",
            self.tunnels_refused.clone(),
        );
        registry.register("certificates", "Certificates asked of the agent", self.certificates.clone());
    }
}

#[cfg(test)]
mod tests;
