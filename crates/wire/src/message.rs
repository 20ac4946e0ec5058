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

mod gateway;
mod replica;

pub use gateway::{
    CaptureWay, EdgeCount, GatewayHello, GatewayStatus, GatewayWelcome, LeafRequest, LeafResponse,
    NodeCapture, PeerState,
};
pub use replica::{ReplicaAnswer, ReplicaGateway, ReplicaRequest};

use crate::version::Hello;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tombolo_model::{
    ClusterName, GatewayRole, Generation, Locality, NamespaceName, OrgName, TrustDomain,
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
