//! From an agent to a gateway of its cluster.

use super::{EndToEnd, PeerSpec, Resource, ResourceKey, SelfSpec, TrustBundleSpec};
use crate::{
    few::Few,
    held::Held,
    identity::SpiffeId,
    inventory::PortSpec,
    locality::Proximity,
    name::{ClusterName, GlobalName},
    place::Place,
    recent,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

/// A destination of a route, in the order of preference that the agent worked out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTarget {
    /// The cluster.
    pub cluster: ClusterName,
    /// How near; the nearest with a healthy target takes all.
    pub proximity: Proximity,
    /// The ports it serves.
    pub ports: Few<u16>,
    /// Ready endpoints: its weight among targets equally near.
    pub ready: u32,
    /// Whether its endpoints take a workload's own TLS session.
    pub end_to_end: EndToEnd,
    /// The identities that may answer.
    pub identities: Few<SpiffeId>,
}

/// How a gateway reaches a global name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// The name; the authority of the tunnel's CONNECT.
    pub name: GlobalName,
    /// The addresses that stand for it here: the VIP, or what the capture mode uses in its place.
    pub addresses: Few<IpAddr>,
    /// Its ports.
    #[serde(deserialize_with = "recent::ports")]
    pub ports: Held<Vec<PortSpec>>,
    /// In capture mode `gateway`: each port, with the number at which egress gateways take its connections. Pairs, for
    /// serde reads no numbers as keys inside a tagged enum.
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    pub captured_at: Few<(u16, u16)>,
    /// Where it is served.
    pub targets: Vec<RouteTarget>,
}

/// An endpoint of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// Where the application listens.
    pub address: Place,
    /// Whether it is ready and passes its health check.
    pub ready: bool,
    /// The tunnel port of the sidecar in front of it, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Place>,
    /// Whether the sidecar is about to end while the application goes on, which is then reached without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Who the application is; the sidecar answers as this. Known wherever `tunnel` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SpiffeId>,
}

/// A port of an export: its number for clients, and the endpoints behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportPort {
    /// The number clients use.
    pub port: u16,
    /// The endpoints, ready or not.
    pub endpoints: Vec<EndpointSpec>,
}

/// A global name that this cluster serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportSpec {
    /// The name.
    pub name: GlobalName,
    /// The clusters that may call it (its own included).
    pub callers: Few<ClusterName>,
    /// Its ports; most services have two names, which are the same endpoints.
    pub ports: Held<Vec<ExportPort>>,
}

/// How a proxy that serves a whole machine knows which workload a process is (as SPIRE's unix attestor does), and a
/// node's which pod a connection is of. A workload is taken where all of its selectors agree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadSelector {
    /// The process runs as this user id.
    Uid(u32),
    /// The process's executable is this path.
    Path(String),
    /// The process is in this cgroup (v2 path, or the systemd unit's name at its end).
    Cgroup(String),
    /// The connection comes from this address: a pod's on the node whose proxy is told so. Of several, any; told to
    /// `node` gateways alone.
    Address(IpAddr),
}

/// A workload of this cluster, for the proxies that may speak for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// Its identity.
    pub identity: SpiffeId,
    /// How a machine's proxy recognises it; empty where each pod has a proxy of its own.
    pub selectors: BTreeSet<WorkloadSelector>,
}

/// From an agent to a gateway of its cluster. Each role is told what it needs, and no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GatewayResource {
    /// The cluster itself: `self/`. All roles.
    Itself(Held<SelfSpec>),
    /// Whom to believe: `bundle/`. All roles.
    Bundle(Held<TrustBundleSpec>),
    /// Another cluster: `peer/<cluster>`. Egress.
    Peer(Held<PeerSpec>),
    /// How to reach a name: `route/<name>`. Sidecar, node and egress.
    Route(Held<RouteSpec>),
    /// What is served here: `export/<name>`. Ingress and egress; sidecars and nodes that stand before one of its endpoints.
    Export(Held<ExportSpec>),
    /// Workloads: `workload/<identity>`. Sidecars; nodes, those of the pods on the node.
    Workload(Held<WorkloadSpec>),
    /// The egress gateways to use: `gateways/`. Sidecars and nodes.
    Gateways {
        /// All of them; the less loaded of two is taken.
        egress: Held<BTreeSet<SocketAddr>>,
    },
}

impl Resource for GatewayResource {
    const TYPES: &'static [&'static str] =
        &["itself", "bundle", "peer", "route", "export", "workload", "gateways"];

    fn key(&self) -> ResourceKey {
        match self {
            Self::Itself(_) => ResourceKey::new("self", ""),
            Self::Bundle(_) => ResourceKey::new("bundle", ""),
            Self::Peer(peer) => ResourceKey::new("peer", peer.cluster.as_str()),
            Self::Route(route) => ResourceKey::of_name("route", &route.name),
            Self::Export(export) => ResourceKey::of_name("export", &export.name),
            Self::Workload(workload) => ResourceKey::new("workload", &workload.identity.to_string()),
            Self::Gateways { .. } => ResourceKey::new("gateways", ""),
        }
    }
}
