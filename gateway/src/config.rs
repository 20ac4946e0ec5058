//! What a gateway process is told at its start.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tombolo_model::{AccountName, GatewayRole, NamespaceName};

/// How applications' connections come to a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// They do not: an egress or ingress gateway.
    #[default]
    None,
    /// The proxy binds the virtual addresses itself; the kernel says who calls.
    Explicit,
    /// An nftables redirect of this network namespace; everybody in it is one workload.
    Sidecar,
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this process is.
    pub role: GatewayRole,
    /// A name for this process.
    pub instance: String,
    /// The agent's unix socket; none only in tests, where snapshots are given by hand.
    pub agent_socket: Option<PathBuf>,
    /// Where it takes tunnels.
    pub tunnel: SocketAddr,
    /// For an ingress gateway: `host:port` at which other clusters reach it.
    pub advertise: BTreeSet<String>,
    /// How applications' connections come in.
    pub capture: Capture,
    /// The addresses whose endpoints it stands before.
    pub serve: BTreeSet<IpAddr>,
    /// The one workload of this network namespace.
    pub workload: Option<(NamespaceName, AccountName)>,
    /// Where redirected connections arrive.
    pub outbound_port: u16,
    /// Its admin port.
    pub admin: Option<SocketAddr>,
    /// Where the access log goes: a file, or `-` for stdout.
    pub access_log: Option<PathBuf>,
    /// Where the last good snapshot is kept.
    pub cache: Option<PathBuf>,
    /// Written when everything is bound and ready.
    pub ready_file: Option<PathBuf>,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timing: Timing,
}

impl Config {
    /// The defaults for a process of this role.
    #[must_use]
    pub fn new(role: GatewayRole, instance: impl Into<String>, tunnel: SocketAddr) -> Self {
        Self {
            role,
            instance: instance.into(),
            agent_socket: None,
            tunnel,
            advertise: BTreeSet::new(),
            capture: Capture::None,
            serve: BTreeSet::new(),
            workload: None,
            outbound_port: 15001,
            admin: None,
            access_log: None,
            cache: None,
            ready_file: None,
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }
}

/// Bounds of everything that others can make grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes a peer may send on one stream before it is read.
    pub stream_window: u32,
    /// Bytes a peer may send on one tunnel before they are read.
    pub connection_window: u32,
    /// The largest DATA frame taken, in bytes.
    pub frame_bytes: u32,
    /// Bytes of one stream that wait to be written to its tunnel.
    pub send_buffer: usize,
    /// Bytes of the headers of one request.
    pub header_bytes: u32,
    /// Streams of one tunnel.
    pub streams: u32,
    /// Tunnels taken at a time, those still in their handshake included.
    pub tunnels: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one peer at a time, over all its tunnels.
    pub peer_connections: usize,
    /// Tunnels to one destination.
    pub pool_tunnels: usize,
    /// Streams of one tunnel, after which another tunnel is opened beside it.
    pub pool_streams: usize,
    /// Targets tried for one connection.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            frame_bytes: 64 << 10,
            send_buffer: 256 << 10,
            header_bytes: 16 << 10,
            streams: 4096,
            tunnels: 8192,
            connections: 100_000,
            peer_connections: 50_000,
            pool_tunnels: 8,
            pool_streams: 256,
            attempts: 6,
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A TLS and HTTP/2 handshake.
    pub handshake: Duration,
    /// Dialling an address, handshakes included.
    pub dial: Duration,
    /// An endpoint's accepting.
    pub endpoint: Duration,
    /// Opening the whole path of a connection.
    pub open: Duration,
    /// Silence of a cluster or an endpoint after which the next is asked too.
    pub hedge: Duration,
    /// The same towards this cluster's own egress gateways, which hedge themselves.
    pub gateway_hedge: Duration,
    /// From probe to probe.
    pub probe: Duration,
    /// Silence after which a probed address is dead.
    pub dead: Duration,
    /// From handshake to handshake of a prober: its tunnel says nothing of whether a new one could be made.
    pub rehandshake: Duration,
    /// How long an address that came back takes less than its share.
    pub slow_start: Duration,
    /// From keep-alive to keep-alive of a pooled tunnel; unanswered for two of them it is closed.
    pub keepalive: Duration,
    /// How long a pooled tunnel without streams is kept.
    pub idle: Duration,
    /// How long connections may go on after the end was asked for.
    pub drain: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            dial: Duration::from_secs(5),
            endpoint: Duration::from_secs(5),
            open: Duration::from_secs(15),
            hedge: Duration::from_millis(250),
            gateway_hedge: Duration::from_secs(1),
            probe: Duration::from_millis(250),
            dead: Duration::from_millis(500),
            rehandshake: Duration::from_secs(120),
            slow_start: Duration::from_secs(10),
            keepalive: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            drain: Duration::from_secs(25),
        }
    }
}
