//! What is known of a connection at its end.

use crate::reason::Reason;
use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};
use tombolo_model::{ClusterName, GatewayRole, GlobalName, SpiffeId};

/// Which way a connection passes through this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Captured from an application of this machine or pod.
    Outbound,
    /// From a tunnel into a tunnel, or to an endpoint of this cluster: egress and ingress gateways.
    Transit,
    /// From a tunnel to the application behind this sidecar.
    Inbound,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Outbound, Self::Transit, Self::Inbound];

    /// The word in logs and labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Transit => "transit",
            Self::Inbound => "inbound",
        }
    }
}
impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a TLS session agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The key exchange, as `X25519MLKEM768`.
    pub group: Option<&'static str>,
    /// The cipher suite, as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Option<&'static str>,
}

impl Tls {
    /// Of a session whose handshake is done.
    #[must_use]
    pub fn of(session: &rustls::CommonState) -> Self {
        Self {
            group: session.negotiated_key_exchange_group().and_then(|group| group_name(group.name())),
            cipher: session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()),
        }
    }
}

fn group_name(group: rustls::NamedGroup) -> Option<&'static str> {
    use rustls::NamedGroup as G;
    match group {
        G::X25519MLKEM768 => Some("X25519MLKEM768"),
        G::secp256r1MLKEM768 => Some("secp256r1MLKEM768"),
        G::MLKEM768 => Some("MLKEM768"),
        G::MLKEM1024 => Some("MLKEM1024"),
        G::X25519 => Some("X25519"),
        G::secp256r1 => Some("secp256r1"),
        G::secp384r1 => Some("secp384r1"),
        _ => None,
    }
}

/// A connection at one hop, from its beginning to its end.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it began.
    pub start: SystemTime,
    /// What this process is.
    pub role: GatewayRole,
    /// Its number in this process.
    pub conn: u64,
    /// Which way it passes.
    pub direction: Direction,
    /// The trace id, 32 hex digits, the same at every hop.
    pub trace: String,
    /// The workload that calls.
    pub source: Option<SpiffeId>,
    /// Whether `source` proved itself to this hop (the peer of the inner session, or the caller this proxy attested),
    /// rather than being named by the hop before.
    pub source_verified: bool,
    /// The hop before, as its certificate says.
    pub peer: Option<SpiffeId>,
    /// The address at the other end.
    pub client: Option<SocketAddr>,
    /// The address that the caller dialled.
    pub original: Option<SocketAddr>,
    /// The name called.
    pub name: Option<GlobalName>,
    /// Its port.
    pub port: Option<u16>,
    /// The cluster that served.
    pub cluster: Option<ClusterName>,
    /// The address of the next hop, or of the endpoint.
    pub upstream: Option<String>,
    /// The next hop, as its certificate says.
    pub next_peer: Option<SpiffeId>,
    /// Whether the workloads' own TLS session runs inside.
    pub end_to_end: bool,
    /// How many targets were tried.
    pub attempts: u32,
    /// Why it was refused or cut; none where it was carried to a clean end.
    pub reason: Option<Reason>,
    /// `<role>@<cluster>` that gave the reason, where that was not this hop.
    pub hop: Option<String>,
    /// More about the reason, for people.
    pub detail: Option<String>,
    /// Bytes to the server.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
    /// From the start until the path was open; none where it never was.
    pub connect: Option<Duration>,
    /// From the start to the end.
    pub duration: Duration,
    /// The session with the next hop; at a server's sidecar, the one inside.
    pub tls: Option<Tls>,
}

impl Record {
    /// A connection of which nothing else is known yet.
    #[must_use]
    pub fn new(start: SystemTime, role: GatewayRole, conn: u64, direction: Direction) -> Self {
        Self {
            start,
            role,
            conn,
            direction,
            trace: String::new(),
            source: None,
            source_verified: false,
            peer: None,
            client: None,
            original: None,
            name: None,
            port: None,
            cluster: None,
            upstream: None,
            next_peer: None,
            end_to_end: false,
            attempts: 0,
            reason: None,
            hop: None,
            detail: None,
            bytes_up: 0,
            bytes_down: 0,
            connect: None,
            duration: Duration::ZERO,
            tls: None,
        }
    }

    /// `ok`, or the reason.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        self.reason.map_or("ok", Reason::as_str)
    }
}
