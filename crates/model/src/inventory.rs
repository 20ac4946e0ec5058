//! What a cluster reports. Counts and names, never a pod's address: those stay in the cluster.

use crate::{
    few::Few,
    held::Held,
    intent::Labels,
    mcs::ExportRecord,
    name::{AccountName, DnsLabel, NamespaceName},
    recent,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// A namespace of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceRecord {
    /// Its labels, for namespace selectors.
    #[serde(default)]
    pub labels: Labels,
    /// Whether the agent makes ServiceImports in it: it is there, and the cluster has the Multi-Cluster Services API.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub imports: bool,
}

/// What names a service inside a cluster: `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceKey {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: DnsLabel,
}
impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl From<ServiceKey> for String {
    fn from(key: ServiceKey) -> String {
        key.to_string()
    }
}
impl TryFrom<String> for ServiceKey {
    type Error = crate::NameError;
    fn try_from(text: String) -> Result<Self, crate::NameError> {
        let (namespace, name) = text.split_once('/').ok_or(crate::NameError::EmptyLabel)?;
        Ok(Self { namespace: NamespaceName::parse(namespace)?, name: DnsLabel::parse(name)? })
    }
}

/// The transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP: known, not carried yet.
    Udp,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortSpec {
    /// The number clients use, 1 to 65535.
    pub port: u16,
    /// The transport.
    pub protocol: Protocol,
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DnsLabel>,
    /// `appProtocol` of the Service (KEP-1422), where it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// A service of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// When it was made, seconds since 1970; the older wins a conflict.
    pub created_s: i64,
    /// Its ports.
    #[serde(deserialize_with = "recent::ports")]
    pub ports: Held<Vec<PortSpec>>,
    /// Whether it has no cluster address (`clusterIP: None`), so that its pods have names of their own.
    #[serde(default)]
    pub headless: bool,
    /// Endpoints that are ready.
    pub ready: u32,
    /// Endpoints in all.
    pub total: u32,
    /// Of the ready ones (of all, where none is ready), those behind a sidecar: they take a workload's own TLS session.
    #[serde(default)]
    pub tunnelled: u32,
    /// The service accounts that serve it, as far as they are known.
    #[serde(default)]
    pub accounts: Few<AccountName>,
    /// Pods with a hostname, of a headless service, and what is known of each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pods: BTreeMap<DnsLabel, PodRecord>,
    /// Its ServiceExport, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub export: Option<Box<ExportRecord>>,
}

/// A pod that has a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRecord {
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is behind a sidecar.
    #[serde(default)]
    pub tunnelled: bool,
}

/// All that a cluster reports of what runs in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Namespaces by name.
    #[serde(default)]
    pub namespaces: BTreeMap<NamespaceName, NamespaceRecord>,
    /// Services by `namespace/name`.
    #[serde(default)]
    pub services: BTreeMap<ServiceKey, ServiceRecord>,
}
