//! The objects of a cluster, validated: what the agent reads out of Kubernetes' types.

use super::uid::Uid;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
};
use tombolo_model::{
    AccountName, DnsLabel, Few, Held, Locality, NamespaceName,
    intent::Labels,
    inventory::{PortSpec, Protocol, ServiceKey},
    mcs::Traits,
    snapshot::WorkloadSelector,
};

/// The kinds that the agent reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKind {
    /// `v1 Namespace`.
    Namespace,
    /// `v1 Service`.
    Service,
    /// `discovery.k8s.io/v1 EndpointSlice`.
    EndpointSlice,
    /// `v1 ServiceAccount`.
    ServiceAccount,
    /// `v1 Pod`; from an API server only.
    Pod,
    /// `v1 Node`; from an API server only.
    Node,
    /// `multicluster.x-k8s.io ServiceExport`; from an API server only.
    ServiceExport,
}

impl ObjectKind {
    /// The kind as manifests write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
            Self::Node => "Node",
            Self::ServiceExport => "ServiceExport",
        }
    }
}

/// What names an object in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its namespace; for a namespace, itself; for a node, which lies in none, `default`.
    pub namespace: NamespaceName,
    /// Its name; for a namespace, the same again.
    pub name: AccountName,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ObjectKind::Namespace => write!(f, "Namespace {}", self.namespace),
            ObjectKind::Node => write!(f, "Node {}", self.name),
            kind => write!(f, "{} {}/{}", kind.as_str(), self.namespace, self.name),
        }
    }
}

/// An object of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A namespace.
    Namespace(NamespaceObject),
    /// A service.
    Service(ServiceObject),
    /// Endpoints of a service.
    Slice(SliceObject),
    /// A service account.
    Account(AccountObject),
    /// A pod.
    Pod(PodObject),
    /// A node.
    Node(NodeObject),
    /// That a service is exported to the cluster set.
    Export(ExportObject),
}

impl Object {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        let key = |kind, namespace: &NamespaceName, name: &str| {
            // A label is a subdomain of one label, so this never falls back; no panic if that should change.
            let name = AccountName::parse(name).unwrap_or_else(|_| default_account());
            ObjectKey { kind, namespace: namespace.clone(), name }
        };
        match self {
            Self::Namespace(o) => key(ObjectKind::Namespace, &o.name, o.name.as_str()),
            Self::Service(o) => key(ObjectKind::Service, &o.key.namespace, o.key.name.as_str()),
            Self::Slice(o) => key(ObjectKind::EndpointSlice, &o.namespace, o.name.as_str()),
            Self::Account(o) => key(ObjectKind::ServiceAccount, &o.namespace, o.name.as_str()),
            Self::Pod(o) => o.key(),
            Self::Node(o) => o.key(),
            Self::Export(o) => key(ObjectKind::ServiceExport, &o.key.namespace, o.key.name.as_str()),
        }
    }
}

/// The service account of those who name none.
#[must_use]
pub(crate) fn default_account() -> AccountName {
    AccountName::parse("default").expect("a constant name")
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceObject {
    /// Its name.
    pub name: NamespaceName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted: nothing can be made in it any more.
    pub ending: bool,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceObject {
    /// Its namespace and name.
    pub key: ServiceKey,
    /// `metadata.creationTimestamp`, seconds since 1970, where the manifest has one.
    pub created_s: Option<i64>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// Who serves it: the annotation `tombolo.io/service-account`; in a manifest `default` without one. None where
    /// the pods say it, each for itself.
    pub account: Option<AccountName>,
    /// How its endpoints are checked: the annotation `tombolo.io/health-check`, else TCP.
    pub check: Check,
    /// What of it goes to other clusters where it is exported.
    pub traits: Held<Traits>,
    /// Whether it is but another name for something outside (`ExternalName`), and so nothing to serve.
    pub external: bool,
}

/// A port of a service, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// What clients see.
    pub spec: PortSpec,
    /// `targetPort`.
    pub target: TargetPort,
}

/// Which port of an endpoint a service's port means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// This number.
    Number(u16),
    /// The port of the EndpointSlice with this name.
    Name(String),
}

/// How an endpoint is checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// Not at all: what the EndpointSlice says is taken.
    None,
    /// It takes a TCP connection.
    Tcp,
    /// `GET` of this path is answered with a status from 200 to 399.
    Http(String),
}

impl FromStr for Check {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "tcp" => Ok(Self::Tcp),
            _ => match text.strip_prefix("http:") {
                Some(path) if path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok() => {
                    Ok(Self::Http(path.to_owned()))
                }
                _ => Err(format!("{text:?} is not a health check; write tcp, http:/path or none")),
            },
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tcp => f.write_str("tcp"),
            Self::Http(path) => write!(f, "http:{path}"),
        }
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceObject {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: AccountName,
    /// The service it belongs to: the label `kubernetes.io/service-name`.
    pub service: DnsLabel,
    /// Its ports; `None` means that every port of an endpoint is one.
    pub ports: Option<Vec<SlicePort>>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Its name; empty where the only port has none.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// Its transport.
    pub protocol: Protocol,
}

/// An endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its first address; Kubernetes gives no meaning to more.
    pub address: IpAddr,
    /// `conditions.ready`; unknown counts as ready, as Kubernetes says.
    pub ready: bool,
    /// On its way out and still answering: taken while no other is ready.
    pub draining: bool,
    /// The name of a pod that has one.
    pub hostname: Option<Box<DnsLabel>>,
    /// The pod it is, where the slice says so.
    pub pod: Option<AccountName>,
}

/// A service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountObject {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: AccountName,
    /// How a machine's proxy knows its processes: the annotation `tombolo.io/selector`.
    pub selectors: BTreeSet<WorkloadSelector>,
}

/// That a service is exported to the cluster set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportObject {
    /// The service, by its own namespace and name.
    pub key: ServiceKey,
    /// `metadata.creationTimestamp`, seconds since 1970.
    pub created_s: i64,
    /// `spec.exportedLabels`, those that are labels.
    pub labels: Labels,
    /// `spec.exportedAnnotations`, those that are annotations.
    pub annotations: Labels,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodObject {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: AccountName,
    /// `metadata.uid`: another pod of the same name has another.
    pub uid: Uid,
    /// The node it runs on; none before it is placed.
    pub node: Option<AccountName>,
    /// Its addresses, one of each family at most; none before it has them.
    pub addresses: Few<IpAddr>,
    /// Whether its addresses are its node's, and so those of others too.
    pub host_network: bool,
    /// Who it runs as.
    pub account: AccountName,
}

impl PodObject {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: ObjectKind::Pod, namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// A node, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeObject {
    /// Its name.
    pub name: AccountName,
    /// Its labels `topology.kubernetes.io/region` and `/zone`.
    pub locality: Locality,
}

impl NodeObject {
    /// What names it.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        node_key(&self.name)
    }
}

/// What names a node.
pub(crate) fn node_key(name: &AccountName) -> ObjectKey {
    let namespace = NamespaceName::parse("default").expect("a constant name");
    ObjectKey { kind: ObjectKind::Node, namespace, name: name.clone() }
}

/// Reads `path=/x/bin/shop,uid=1001`; each part may stand once. A path alone is refused: a program's name says nothing
/// about who runs it, so whoever may run it would be taken for the workload.
pub(crate) fn selectors(text: &str) -> Result<BTreeSet<WorkloadSelector>, String> {
    let mut all = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    for part in text.split(',').map(str::trim) {
        let (kind, value) = part
            .split_once('=')
            .ok_or_else(|| format!("{part:?} is not a selector; write path=/…, uid=N or cgroup=NAME"))?;
        let selector = match kind {
            "uid" => WorkloadSelector::Uid(
                value.parse().map_err(|_| format!("uid={value:?} is not a user's number"))?,
            ),
            "path" if value.starts_with('/') => WorkloadSelector::Path(value.to_owned()),
            "path" => return Err(format!("path={value:?} is not an absolute path")),
            "cgroup" if !value.is_empty() => WorkloadSelector::Cgroup(value.to_owned()),
            _ => return Err(format!("{part:?} is not a selector; write path=/…, uid=N or cgroup=NAME")),
        };
        if !kinds.insert(kind) {
            return Err(format!("{kind} stands twice; all selectors must agree, so one would never match"));
        }
        all.insert(selector);
    }
    if kinds.iter().all(|kind| *kind == "path") {
        return Err(
            "path= alone would take whoever runs this program for the workload; write uid=N or cgroup=NAME \
                    with it"
                .to_owned(),
        );
    }
    Ok(all)
}
