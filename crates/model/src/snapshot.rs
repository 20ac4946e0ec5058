//! What a receiver is told: a map of resources under stable keys, so that a delta is "these keys now hold this,
//! those are gone" for every kind of resource alike.
//!
//! Two kinds of snapshot: [`ClusterResource`] from the controller to an agent, [`GatewayResource`] from an agent
//! to a gateway of its cluster.

use crate::{
    few::Few,
    held::Held,
    identity::{SpiffeId, TrustDomain},
    install::{InstallOrder, Trial},
    intent::CaptureMode,
    inventory::{PortSpec, ServiceKey},
    locality::{Locality, Proximity},
    mcs::ImportSpec,
    name::{AccountName, ClusterName, DnsLabel, Domain, GlobalName, NamespaceName},
    place::Place,
    recent,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

/// The key of a resource in a snapshot: `<kind>/<name>`, stable over the life of what it names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct ResourceKey(Arc<str>);

impl ResourceKey {
    /// The key for a thing of this kind and name.
    #[must_use]
    pub fn new(kind: &str, name: &str) -> Self {
        Self(format!("{kind}/{name}").into())
    }
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl From<String> for ResourceKey {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}
impl From<ResourceKey> for String {
    fn from(key: ResourceKey) -> String {
        key.0.as_ref().to_owned()
    }
}
impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something that stands in a snapshot under a key of its own.
pub trait Resource:
    Clone + PartialEq + Serialize + serde::de::DeserializeOwned + Send + Sync + 'static
{
    /// The types that this build knows, as `type` states them. A resource of another type is of a newer sender, and passed over.
    const TYPES: &'static [&'static str];

    /// The key it stands under; it depends on the name of the thing only.
    fn key(&self) -> ResourceKey;
}

/// A whole state: every resource under its key.
pub type Resources<R> = BTreeMap<ResourceKey, R>;

/// The SHA-256 of the public key (SubjectPublicKeyInfo) of a cluster's intermediate, in lower-case hex.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CaFingerprint([u8; 32]);

impl CaFingerprint {
    /// The fingerprint with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
impl fmt::Display for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl fmt::Debug for CaFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl From<CaFingerprint> for String {
    fn from(print: CaFingerprint) -> String {
        print.to_string()
    }
}
impl FromStr for CaFingerprint {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str = "is not 64 hexadecimal digits";
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        let mut bytes = [0; 32];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| WRONG)?;
        }
        Ok(Self(bytes))
    }
}
impl TryFrom<String> for CaFingerprint {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, &'static str> {
        text.parse()
    }
}

/// Whom to believe: the organization's roots, and which clusters' intermediates stand at this time.
/// A cluster that is not here is revoked, whatever its certificates say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundleSpec {
    /// The authority of every identity it vouches for.
    pub trust_domain: TrustDomain,
    /// Root certificates, PEM; several while a root rotates. The first is the one that signs: whose intermediate is of another one
    /// should ask for a new one.
    pub roots: Vec<String>,
    /// The intermediates of each cluster in good standing.
    pub clusters: BTreeMap<ClusterName, BTreeSet<CaFingerprint>>,
}

/// The receiving cluster itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfSpec {
    /// Its name.
    pub cluster: ClusterName,
    /// Its organization's trust domain.
    pub trust_domain: TrustDomain,
    /// Where it runs.
    pub locality: Locality,
}

/// Another cluster that serves something this one imports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSpec {
    /// Its name.
    pub cluster: ClusterName,
    /// How near it is to the receiver.
    pub proximity: Proximity,
    /// `host:port` of its ingress gateways. A candidate until the receiver completed a handshake through it.
    pub ingress: BTreeSet<String>,
}

/// A domain that the receiver answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSpec {
    /// The domain.
    pub domain: Domain,
    /// The global namespace it belongs to.
    pub gns: DnsLabel,
    /// The clusters in it: those, and no others, may call its services.
    pub members: BTreeSet<ClusterName>,
}

/// The virtual addresses of a global name, the same in every cluster for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Vip {
    /// From `240.0.0.0/4` unless the installation says otherwise.
    pub v4: Ipv4Addr,
    /// From the installation's ULA prefix.
    pub v6: Ipv6Addr,
}

/// What a global name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameKind {
    /// `<service>.<domain>`: the service wherever it runs.
    Service,
    /// `<service>.<cluster>.<domain>`: the service in one cluster.
    ServiceInCluster,
    /// `<pod>.<service>.<domain>`: one pod of a headless service.
    Pod,
}

/// How many of a destination's ready endpoints (of all, where none is ready) take a workload's own TLS session, end to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndToEnd {
    /// All: a caller with a sidecar refuses to go on without.
    All,
    /// Some: decided by the endpoint that the owning cluster picks.
    Some,
    /// None.
    None,
}

/// The services of one cluster that stand behind a global name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetSpec {
    /// The cluster.
    pub cluster: ClusterName,
    /// How near it is to the receiver.
    pub proximity: Proximity,
    /// Its services; two where two of its namespaces have a service of this name.
    pub services: Few<ServiceKey>,
    /// The ports it serves.
    pub ports: Few<u16>,
    /// Ready endpoints: its weight among targets equally near. Zero takes no requests.
    pub ready: u32,
    /// Whether its endpoints take a workload's own TLS session.
    pub end_to_end: EndToEnd,
    /// Who may answer: the server's identity must be one of these.
    pub accounts: Few<(NamespaceName, AccountName)>,
}

/// A namespace of the receiving cluster whose capture mode a global namespace chooses. A label of the namespace goes before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureSpec {
    /// The namespace; it need not be there yet.
    pub namespace: NamespaceName,
    /// Its mode.
    pub mode: CaptureMode,
    /// The global namespace that chooses: of several the first by name.
    pub gns: DnsLabel,
    /// Others that choose something else for it, and have no say.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub against: BTreeMap<DnsLabel, CaptureMode>,
}

/// A global name: its addresses, ports, and where it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSpec {
    /// The full name.
    pub name: GlobalName,
    /// The domain it lies in.
    pub domain: Domain,
    /// What it stands for.
    pub kind: NameKind,
    /// For [`NameKind::Pod`]: the pod's hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<DnsLabel>,
    /// Its addresses.
    pub vip: Vip,
    /// Whether the service is headless: its A answer lists its pods' VIPs.
    #[serde(default)]
    pub headless: bool,
    /// Its ports, merged over the clusters.
    #[serde(deserialize_with = "recent::ports")]
    pub ports: Held<Vec<PortSpec>>,
    /// Where it is served, the receiver's own cluster included; by cluster.
    pub targets: Vec<TargetSpec>,
}

/// From the controller to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClusterResource {
    /// The receiving cluster itself: `self/`.
    Itself(Held<SelfSpec>),
    /// Whom to believe: `bundle/`.
    Bundle(Held<TrustBundleSpec>),
    /// Another cluster: `peer/<cluster>`.
    Peer(Held<PeerSpec>),
    /// A domain to answer: `domain/<domain>`.
    Domain(Held<DomainSpec>),
    /// A global name: `name/<name>`.
    Name(Held<NameSpec>),
    /// A service of the cluster set: `import/<namespace>/<name>`.
    Import(Held<ImportSpec>),
    /// The capture mode of a namespace: `capture/<namespace>`.
    Capture(Held<CaptureSpec>),
    /// What to install in the cluster: `install/`.
    Install(Held<InstallOrder>),
    /// What it would write for another order: `trial/`.
    Trial(Held<Trial>),
}

impl Resource for ClusterResource {
    const TYPES: &'static [&'static str] =
        &["itself", "bundle", "peer", "domain", "name", "import", "capture", "install", "trial"];

    fn key(&self) -> ResourceKey {
        match self {
            Self::Itself(_) => ResourceKey::new("self", ""),
            Self::Bundle(_) => ResourceKey::new("bundle", ""),
            Self::Peer(peer) => ResourceKey::new("peer", peer.cluster.as_str()),
            Self::Domain(domain) => ResourceKey::new("domain", domain.domain.as_str()),
            Self::Name(name) => ResourceKey::new("name", name.name.as_str()),
            Self::Capture(capture) => ResourceKey::new("capture", capture.namespace.as_str()),
            Self::Install(_) => ResourceKey::new("install", ""),
            Self::Trial(_) => ResourceKey::new("trial", ""),
            Self::Import(import) => ResourceKey::new("import", &import.service.to_string()),
        }
    }
}

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
            Self::Route(route) => ResourceKey::new("route", route.name.as_str()),
            Self::Export(export) => ResourceKey::new("export", export.name.as_str()),
            Self::Workload(workload) => ResourceKey::new("workload", &workload.identity.to_string()),
            Self::Gateways { .. } => ResourceKey::new("gateways", ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_small_and_so_are_endpoints() {
        // A cluster has tens of thousands of them.
        assert_eq!((size_of::<ClusterResource>(), size_of::<GatewayResource>()), (16, 16));
        assert!(size_of::<EndpointSpec>() <= 48);
    }
}
