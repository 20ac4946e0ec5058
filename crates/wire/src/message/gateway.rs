//! Between a gateway and its agent.

use super::Problem;
use crate::version::Hello;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};
use tombolo_model::{
    AccountName, ClusterName, GatewayRole, Generation, NamespaceName, SpiffeId, TrustDomain, health::Health,
};

/// A gateway introduces itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayHello {
    /// Who speaks.
    pub hello: Hello,
    /// A name for this process, chosen by it; another process with the same one takes its place.
    pub instance: String,
    /// Its role.
    pub role: GatewayRole,
    /// Where it takes tunnels.
    pub tunnel: SocketAddr,
    /// For an ingress gateway: `host:port` at which other clusters reach it.
    #[serde(default)]
    pub advertise: BTreeSet<String>,
    /// For an egress gateway: where it takes the connections of those without a proxy, beside the address of `tunnel`. A pod with two address
    /// families has one in each.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub beside: BTreeSet<IpAddr>,
    /// For a sidecar: the addresses whose endpoints it stands before.
    #[serde(default)]
    pub serves: BTreeSet<IpAddr>,
    /// For a sidecar beside one pod: the workload it speaks for (`--workload`).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub workloads: BTreeSet<(NamespaceName, AccountName)>,
    /// For a node's proxy: the node. The agent writes it, from the token; what the gateway says here is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<AccountName>,
    /// For a sidecar: whether it binds the virtual addresses itself (capture mode `explicit`).
    #[serde(default)]
    pub explicit: bool,
    /// `host:port` of its admin port, for `explain` and `doctor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// Which pod it is in (its uid): another one may have its name and its address one day. The agent writes it, from the token; what the
    /// gateway says here is passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// It is about to end: it carries what it has, and nobody should be sent there any more. Who comes to another replica of the agent on its
    /// way out is none that one may lead callers to, not even until its first report.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
}

impl GatewayHello {
    /// Of a gateway that says no more than who and where it is.
    #[must_use]
    pub const fn new(hello: Hello, instance: String, role: GatewayRole, tunnel: SocketAddr) -> Self {
        Self {
            hello,
            instance,
            role,
            tunnel,
            advertise: BTreeSet::new(),
            beside: BTreeSet::new(),
            serves: BTreeSet::new(),
            workloads: BTreeSet::new(),
            node: None,
            explicit: false,
            admin: None,
            pod: None,
            leaving: false,
        }
    }
}

/// The agent knows the gateway now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayWelcome {
    /// The agent.
    pub hello: Hello,
    /// The cluster.
    pub cluster: ClusterName,
    /// The trust domain.
    pub trust_domain: TrustDomain,
}

/// A gateway asks for a certificate, for itself or for a workload that it stands before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafRequest {
    /// The identity wanted. Of this cluster, and one that the asking gateway may speak for.
    pub identity: SpiffeId,
    /// PKCS #10 request, PEM; only its public key is taken.
    pub csr: String,
}

/// The certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeafResponse {
    /// Leaf and intermediate, PEM, leaf first.
    pub chain: String,
    /// When it ends, seconds since 1970.
    pub not_after_s: i64,
}

/// How a gateway is. Sent on change, and at least every 5 s.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// The generation in force.
    pub generation: Generation,
    /// It is about to end: it takes connections for a few seconds more, and nobody should be sent there any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Open connections of applications or tunnels' streams.
    pub connections: u64,
    /// For an egress gateway: each peer cluster, by address.
    #[serde(default)]
    pub peers: BTreeMap<ClusterName, BTreeMap<String, PeerState>>,
    /// Connections carried since the process began, by edge.
    #[serde(default)]
    pub edges: Vec<EdgeCount>,
    /// What does not work here, as an address that can't be captured, and what to do about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// For a node's proxy: how the connections of the node's pods come to it; none while they do not, and from one that does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<NodeCapture>,
}

/// How the connections of a node's pods come to its proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCapture {
    /// By which way.
    pub way: CaptureWay,
    /// Why not by the better one, where the proxy had the choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A way by which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureWay {
    /// A local route and a BPF program.
    Lookup,
    /// An nftables redirect.
    Redirect,
    /// One that this build does not know.
    #[serde(other)]
    Unknown,
}

/// An ingress gateway of a peer cluster, as an egress gateway sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerState {
    /// Its state.
    pub health: Health,
    /// Whether a handshake through this address was ever completed.
    pub handshake: bool,
    /// Round trip of the last answered probe, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Why it does not answer, where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Connections from one workload to one name, by the cluster that served them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeCount {
    /// Who called: `namespace/account`, or `unknown`.
    pub source: String,
    /// The name called.
    pub name: String,
    /// The cluster that served; empty where none did.
    pub cluster: String,
    /// Connections that were carried, counted when their path is open.
    pub ok: u64,
    /// Those of them that are open now. An older gateway does not say.
    #[serde(default)]
    pub open: u64,
    /// Connections that were refused or failed.
    pub failed: u64,
    /// Bytes to the server.
    pub bytes_up: u64,
    /// Bytes to the client.
    pub bytes_down: u64,
}
