//! The messages. Lines of a feed go down; everything else is a small request up, on the same connection.
//!
//! | request | who to whom | body | answer |
//! |---|---|---|---|
//! | `POST /agent/v1/join` (bearer: the one-time token) | agent → controller | [`JoinRequest`] | [`JoinResponse`] |
//! | `GET /agent/v1/feed?generation=G&digest=D` | agent → controller | - | [`FeedLine`]s of `ClusterResource` |
//! | `POST /agent/v1/ack` | agent → controller | [`Ack`] | 204 |
//! | `POST /agent/v1/inventory` | agent → controller | [`InventoryUpdate`] | [`InventoryAck`]; 409: send it whole |
//! | `POST /agent/v1/status` | agent → controller | [`AgentStatus`] | 204 |
//! | `POST /agent/v1/certificate` | agent → controller | [`IntermediateRequest`] | [`IntermediateResponse`] |
//! | `POST /gateway/v1/hello` | gateway → agent | [`GatewayHello`] | [`GatewayWelcome`] |
//! | `GET /gateway/v1/feed?instance=I&generation=G&digest=D` | gateway → agent | - | [`FeedLine`]s of `GatewayResource` |
//! | `POST /gateway/v1/ack?instance=I` | gateway → agent | [`Ack`] | 204 |
//! | `POST /gateway/v1/certificate?instance=I` | gateway → agent | [`LeafRequest`] | [`LeafResponse`] |
//! | `POST /gateway/v1/status?instance=I` | gateway → agent | [`GatewayStatus`] | 204 |
//! | `POST /gateway/v1/replica` | agent → another replica of it | [`ReplicaRequest`] | [`ReplicaAnswer`], once there is news, or after a while |
//!
//! Requests from an agent carry its certificate in the TLS session; requests from a gateway come over the agent's
//! unix socket, whose peer the kernel names, or over TLS with a bearer token of its pod's service account. Each request has the header `tombolo-protocol: <major>.<minor>`.
//! Errors are problem details (RFC 9457).

use crate::version::Hello;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};
use tombolo_model::{
    AccountName, ClusterName, GatewayRole, Generation, Locality, NamespaceName, OrgName, SpiffeId,
    TrustDomain,
    health::Health,
    install::{InstallStatus, TrialStatus},
    inventory::{NamespaceRecord, ServiceKey, ServiceRecord},
    snapshot::{CaFingerprint, ResourceKey, Resources, TrustBundleSpec},
};

/// The sum over all resources of a state, to compare two states without sending them. Not a defence against forgery:
/// the connection is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(transparent)]
pub struct Digest(pub String);

/// A line of a feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
#[serde(bound = "R: serde::Serialize + serde::de::DeserializeOwned")]
pub enum FeedLine<R> {
    /// First of all: who speaks.
    Hello(Hello),
    /// What the receiver has is the state of this generation.
    Current {
        /// The generation it may now call it.
        generation: Generation,
        /// The sum of the state.
        digest: Digest,
    },
    /// Some of the resources of the snapshot that follows: a big state comes on several lines.
    Part {
        /// The generation of the snapshot.
        generation: Generation,
        /// Some resources.
        resources: Resources<R>,
    },
    /// The whole state.
    Snapshot {
        /// Its generation.
        generation: Generation,
        /// The sum of the state.
        digest: Digest,
        /// Every resource that was not in a part before.
        resources: Resources<R>,
    },
    /// What changed since a state that the receiver has.
    Delta {
        /// The generation it changes. A receiver at another one asks again.
        base: Generation,
        /// The generation it leads to.
        generation: Generation,
        /// The sum of the state it leads to.
        digest: Digest,
        /// New and changed resources.
        #[serde(default = "BTreeMap::new", skip_serializing_if = "BTreeMap::is_empty")]
        upserts: Resources<R>,
        /// Keys that are gone.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        removes: BTreeSet<ResourceKey>,
    },
    /// Nothing new; the sender lives. Sent at least every [`crate::session::HEARTBEAT`].
    Heartbeat {
        /// The newest generation of the sender.
        generation: Generation,
    },
    /// The sender ends this feed; come again, elsewhere or later.
    Goodbye {
        /// Why, for people.
        reason: String,
    },
    /// A line of a newer sender that this build does not know. It changes nothing: a line that must not be passed over is not sent to a
    /// receiver of an older minor version.
    #[serde(other)]
    Unknown,
}

impl<R: tombolo_model::snapshot::Resource> FeedLine<R> {
    /// The line as a receiver reads it, without the way over the wire.
    #[must_use]
    pub fn stated(self) -> FeedLine<crate::digest::Stated<R>> {
        use crate::digest::Stated;
        let all = |map: Resources<R>| map.into_iter().map(|(key, value)| (key, Stated::new(value))).collect();
        match self {
            Self::Hello(hello) => FeedLine::Hello(hello),
            Self::Current { generation, digest } => FeedLine::Current { generation, digest },
            Self::Part { generation, resources } => FeedLine::Part { generation, resources: all(resources) },
            Self::Snapshot { generation, digest, resources } => {
                FeedLine::Snapshot { generation, digest, resources: all(resources) }
            }
            Self::Delta { base, generation, digest, upserts, removes } => {
                FeedLine::Delta { base, generation, digest, upserts: all(upserts), removes }
            }
            Self::Heartbeat { generation } => FeedLine::Heartbeat { generation },
            Self::Goodbye { reason } => FeedLine::Goodbye { reason },
            Self::Unknown => FeedLine::Unknown,
        }
    }
}

/// A receiver applied a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The generation in force now.
    pub generation: Generation,
    /// A generation that was refused, and why; the one above stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<(Generation, String)>,
}

/// An agent asks to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who asks.
    pub hello: Hello,
    /// The cluster it means to be; the token is bound to one, and this must be that.
    pub cluster: ClusterName,
    /// PKCS #10 request for the cluster's intermediate, PEM. Its key never leaves the agent.
    pub csr: String,
    /// Where it runs, where somebody said so.
    #[serde(default)]
    pub locality: Locality,
    /// Where its nodes stand: taken where nobody ever said where it runs.
    #[serde(default)]
    pub nodes: Locality,
}

/// The controller takes a cluster in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResponse {
    /// The controller.
    pub hello: Hello,
    /// Its organization's name.
    pub organization: OrgName,
    /// Its organization's trust domain.
    pub trust_domain: TrustDomain,
    /// Its name.
    pub cluster: ClusterName,
    /// The intermediate, PEM.
    pub intermediate: String,
    /// Whom to believe until the first snapshot.
    pub bundle: TrustBundleSpec,
}

/// A new intermediate, before the old one ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntermediateRequest {
    /// PKCS #10 request, PEM.
    pub csr: String,
}

/// The new intermediate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntermediateResponse {
    /// The intermediate, PEM.
    pub intermediate: String,
}

/// A change of what runs in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryUpdate {
    /// The process of the agent that counts; a new process begins with a whole inventory.
    pub epoch: String,
    /// Rises by one with each update of an epoch, from 1.
    pub sequence: u64,
    /// Whether this is everything (what is not in it is gone), or a change of the sequence before.
    pub whole: bool,
    /// New and changed namespaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<NamespaceName, NamespaceRecord>,
    /// New and changed services.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceKey, ServiceRecord>,
    /// Namespaces that are gone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed_namespaces: BTreeSet<NamespaceName>,
    /// Services that are gone.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub removed_services: BTreeSet<ServiceKey>,
}

/// The controller stored an inventory update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryAck {
    /// The sequence stored.
    pub sequence: u64,
}

/// How a cluster is, as its agent sees it. Sent on change, and at least every 10 s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The agent's version, as `tombolo-agent/0.1.0`.
    pub software: String,
    /// The generation in force.
    pub generation: Generation,
    /// Files, objects or names that were left out, and why.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// `host:port` at which peers may reach this cluster's ingress gateways.
    #[serde(default)]
    pub ingress: BTreeSet<String>,
    /// The agent does not know yet all of where that is: what it said before stands, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ingress_unknown: bool,
    /// Its gateways.
    #[serde(default)]
    pub gateways: Vec<GatewayReport>,
    /// How what it was told to install goes; none where it was told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<InstallStatus>,
    /// The intermediate that signs in the cluster; none from an agent that does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intermediate: Option<CaFingerprint>,
    /// What it would write for the order that it was asked to try, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStatus>,
}

/// Something that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// What: a file with its line, an object, a name.
    pub subject: String,
    /// Why, and what to do.
    pub message: String,
}

/// A gateway, as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReport {
    /// The process.
    pub instance: String,
    /// Its role.
    pub role: GatewayRole,
    /// Its version.
    pub software: String,
    /// Its admin port, for `explain` and `doctor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// What it said last. Its generation is the controller's: that of the snapshot in force in the gateway.
    pub status: GatewayStatus,
}

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

/// A replica of an agent asks another one for its gateways. Answered when there is news, or after some seconds without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRequest {
    /// Who asks.
    pub hello: Hello,
    /// The process that gave `since`; what another one gave means nothing.
    #[serde(default)]
    pub process: String,
    /// Up to where it was told.
    #[serde(default)]
    pub since: u64,
}

/// The gateways that are connected to a replica, or were last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaAnswer {
    /// Who answers.
    pub hello: Hello,
    /// The process that answers.
    pub process: String,
    /// Whether it holds the Lease.
    pub leads: bool,
    /// Up to where this tells.
    pub stamp: u64,
    /// Whether this begins to tell everything: what is not told until `more` is false is gone.
    #[serde(default)]
    pub whole: bool,
    /// Whether more follows at once.
    #[serde(default)]
    pub more: bool,
    /// New and changed gateways.
    #[serde(default)]
    pub gateways: Vec<ReplicaGateway>,
    /// Those that are gone.
    #[serde(default)]
    pub gone: BTreeSet<String>,
}

/// A gateway of another replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaGateway {
    /// What it said of itself.
    pub hello: GatewayHello,
    /// Whether it is connected there.
    pub connected: bool,
    /// How it is, with the controller's generation.
    pub status: GatewayStatus,
}
