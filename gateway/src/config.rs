//! What a gateway process is told at its start.

use ipnet::IpNet;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};
use tombolo_model::{AccountName, ClusterName, GatewayRole, NamespaceName, TrustDomain};
use tombolo_runtime::lanes::Lanes;

/// Where the cluster's agent is.
#[derive(Clone, Debug)]
pub enum Agent {
    /// At a unix socket of this machine.
    Socket {
        /// The socket.
        path: PathBuf,
        /// The user id under which the agent runs, besides root and this process's own.
        uid: Option<u32>,
    },
    /// In another pod.
    Remote(RemoteAgent),
}

/// An agent that is reached over TLS, with the token of this pod's service account.
#[derive(Clone, Debug)]
pub struct RemoteAgent {
    /// Its host; an IPv6 address in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where the token is.
    pub token: PathBuf,
    /// The organization's roots, PEM.
    pub roots: Vec<String>,
    /// The cluster that it must be the agent of.
    pub cluster: ClusterName,
    /// The organization's trust domain.
    pub trust_domain: TrustDomain,
}

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
    /// For all pods of a node.
    Node(Bring),
}

/// How connections of a node's pods are brought to its proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bring {
    /// By an nftables redirect before kube-proxy's.
    Redirect,
    /// By a local route and a BPF program, where kube-proxy does not hold the virtual addresses.
    Lookup,
    /// By the lookup where the node allows it, also beside kube-proxy; else by the redirect.
    Auto,
}

/// What brings them in fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Way {
    /// A local route and a BPF program.
    Lookup,
    /// An nftables redirect.
    Redirect,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Lookup, Self::Redirect];

    /// The word in logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Redirect => "redirect",
        }
    }
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this process is.
    pub role: GatewayRole,
    /// A name for this process.
    pub instance: String,
    /// Where the agent is; none only in tests, where snapshots are given by hand.
    pub agent: Option<Agent>,
    /// Where it takes tunnels.
    pub tunnel: SocketAddr,
    /// For an ingress gateway: `host:port` at which other clusters reach it.
    pub advertise: BTreeSet<String>,
    /// How applications' connections come in.
    pub capture: Capture,
    /// Where an egress gateway takes the connections of those without a proxy, beside the address of `tunnel`.
    pub beside: BTreeSet<IpAddr>,
    /// The addresses whose endpoints it stands before.
    pub serve: BTreeSet<IpAddr>,
    /// The one workload of this network namespace.
    pub workload: Option<(NamespaceName, AccountName)>,
    /// Where redirected connections arrive.
    pub outbound_port: u16,
    /// Where redirected incoming connections arrive, where they are redirected.
    pub inbound_port: Option<u16>,
    /// The virtual addresses that a node's proxy captures.
    pub vips: Vec<IpNet>,
    /// Its admin port.
    pub admin: Option<SocketAddr>,
    /// Where the access log goes: a file, or `-` for stdout.
    pub access_log: Option<PathBuf>,
    /// Where the last good snapshot is kept.
    pub cache: Option<PathBuf>,
    /// Written when everything is bound and ready.
    pub ready_file: Option<PathBuf>,
    /// Whether gateways of other clusters are dialled on this machine; so they are where tunnels are taken on loopback.
    pub dial_loopback: bool,
    /// Addresses of this cluster's own, at which no peer's gateway is dialled.
    pub never_dial: Vec<IpNet>,
    /// The threads of the data path.
    pub lanes: Lanes,
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
            agent: None,
            tunnel,
            advertise: BTreeSet::new(),
            capture: Capture::None,
            beside: BTreeSet::new(),
            serve: BTreeSet::new(),
            workload: None,
            outbound_port: 15001,
            inbound_port: None,
            vips: Vec::new(),
            admin: None,
            access_log: None,
            cache: None,
            ready_file: None,
            dial_loopback: false,
            never_dial: Vec::new(),
            lanes: Lanes::default(),
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }

    /// Whether gateways of other clusters are dialled on this machine.
    #[must_use]
    pub fn dials_loopback(&self) -> bool {
        self.dial_loopback || self.tunnel.ip().is_loopback()
    }
}

/// Bounds of everything that others can make grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes a peer may send on one stream before it is read, while there is room for as much.
    pub stream_window: u32,
    /// Bytes a peer may send on one tunnel before they are read: no fewer than on all of its streams, lest those that nobody reads keep
    /// the others waiting.
    pub connection_window: u32,
    /// The largest DATA frame taken, in bytes.
    pub frame_bytes: u32,
    /// Bytes of one stream that wait to be written to its tunnel.
    pub send_buffer: usize,
    /// Bytes of all connections together that may wait here for readers that do not read.
    pub buffers: usize,
    /// Bytes of the headers of one request.
    pub header_bytes: u32,
    /// Streams of one tunnel.
    pub streams: u32,
    /// Streams of one tunnel that its peer may take back within a second before they are open.
    pub cancelled: u32,
    /// Handshakes at a time: nobody is known yet, so they take no place of a tunnel.
    pub handshakes: usize,
    /// Handshakes of one address (of one /64 in IPv6) at a time.
    pub address_handshakes: usize,
    /// Tunnels taken at a time.
    pub tunnels: usize,
    /// Tunnels of one peer taken at a time.
    pub peer_tunnels: usize,
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one peer at a time, over all its tunnels.
    pub peer_connections: usize,
    /// Tunnels to one destination.
    pub pool_tunnels: usize,
    /// Tunnels to one address of another cluster: behind it may be several gateways, and all are to be used.
    pub pool_spread: usize,
    /// Streams of one tunnel, after which another tunnel is opened beside it.
    pub pool_streams: usize,
    /// Targets tried for one connection.
    pub attempts: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            stream_window: 1 << 20,
            connection_window: 2047 << 20,
            frame_bytes: 64 << 10,
            send_buffer: 256 << 10,
            buffers: 256 << 20,
            header_bytes: 16 << 10,
            streams: 2047,
            cancelled: 4096,
            handshakes: 1024,
            address_handshakes: 256,
            tunnels: 16_384,
            peer_tunnels: 4096,
            connections: 100_000,
            peer_connections: 50_000,
            pool_tunnels: 8,
            pool_spread: 4,
            pool_streams: 256,
            attempts: 6,
        }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The handshakes of a tunnel, TLS and HTTP/2 together; or that of a workload's own session.
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
    /// How long a probe's tunnel is believed before the handshake is made again.
    pub proof: Duration,
    /// How long an address that came back takes less than its share.
    pub slow_start: Duration,
    /// From keep-alive to keep-alive of a pooled tunnel; unanswered for two of them it is closed.
    pub keepalive: Duration,
    /// How often one of several tunnels to an address is dialled anew, so that gateways which came since get some.
    pub respread: Duration,
    /// How long a pooled tunnel without streams is kept.
    pub idle: Duration,
    /// The same for one that was taken: longer, so that mostly the side that dialled ends it.
    pub idle_taken: Duration,
    /// How long connections are taken after the end was asked for: until all who send some have heard of it.
    pub last_calls: Duration,
    /// How long connections may go on after that.
    pub drain: Duration,
    /// The last part of that, in which connections that are quiet are ended in order.
    pub goodbye: Duration,
    /// How long nothing came on a connection that is quiet.
    pub quiet: Duration,
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
            proof: Duration::from_secs(60),
            slow_start: Duration::from_secs(10),
            keepalive: Duration::from_secs(10),
            respread: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            idle_taken: Duration::from_secs(600),
            last_calls: Duration::ZERO,
            drain: Duration::from_secs(25),
            goodbye: Duration::from_secs(5),
            quiet: Duration::from_secs(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_nobody_reads_leave_their_tunnel_to_the_others() {
        let limits = Limits::default();
        let all = u64::from(limits.streams) * u64::from(limits.stream_window);
        assert!(
            all <= u64::from(limits.connection_window),
            "{all} bytes may wait in the streams of a tunnel"
        );
        assert!(limits.connection_window < 1 << 31, "the most that HTTP/2 has");
    }
}
