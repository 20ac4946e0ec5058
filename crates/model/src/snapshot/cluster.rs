//! From the controller to an agent.

use super::{PeerSpec, Resource, ResourceKey, SelfSpec, TrustBundleSpec};
use crate::{
    few::Few,
    held::Held,
    install::{InstallOrder, Trial},
    intent::CaptureMode,
    inventory::{PortSpec, ServiceKey},
    locality::Proximity,
    mcs::ImportSpec,
    name::{AccountName, ClusterName, DnsLabel, Domain, GlobalName, NamespaceName},
    recent,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, Ipv6Addr},
};

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
            Self::Name(name) => ResourceKey::of_name("name", &name.name),
            Self::Capture(capture) => ResourceKey::new("capture", capture.namespace.as_str()),
            Self::Install(_) => ResourceKey::new("install", ""),
            Self::Trial(_) => ResourceKey::new("trial", ""),
            Self::Import(import) => ResourceKey::new("import", &import.service.to_string()),
        }
    }
}
