//! The cluster set of an organization, as the Multi-Cluster Services API (KEP-1645) has it: what a cluster exports, and what
//! all clusters import of it. A namespace is the same namespace in each cluster.

use crate::{
    intent::Labels,
    inventory::ServiceKey,
    name::{ClusterName, DnsLabel, GlobalName},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt};

/// The transport of an exported port. Unlike [`crate::inventory::Protocol`] it has what is only told, and never carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// As Kubernetes writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// A port of an exported or imported service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExportedPort {
    /// Its name; only the port of a service with one may have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DnsLabel>,
    /// The number clients use.
    pub port: u16,
    /// Its transport.
    pub protocol: Transport,
    /// `appProtocol` of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_protocol: Option<String>,
}

/// Whether a client is to stay with an endpoint: `sessionAffinity` and its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionAffinity {
    /// No.
    #[default]
    None,
    /// By its address, for so many seconds.
    ClientIp(u32),
}

/// What of a Service tells clients how to use it; it goes with the service to every cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traits {
    /// Its ports, in its own order.
    pub ports: Vec<ExportedPort>,
    /// Its session affinity.
    #[serde(default)]
    pub affinity: SessionAffinity,
    /// `internalTrafficPolicy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub internal_traffic_policy: Option<String>,
    /// `trafficDistribution`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_distribution: Option<String>,
}

/// A service that its cluster exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRecord {
    /// When its ServiceExport was made, seconds since 1970: the older wins a conflict.
    pub created_s: i64,
    /// What of its Service goes with it.
    pub traits: Traits,
    /// `spec.exportedLabels`.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// `spec.exportedAnnotations`.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
}

/// What kind of service a ServiceImport is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportKind {
    /// Reached at virtual IPs.
    ClusterSetIp,
    /// Its pods are addressed one by one.
    Headless,
}

impl ImportKind {
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterSetIp => "ClusterSetIP",
            Self::Headless => "Headless",
        }
    }
}

/// In what the exports of one service differ: the reasons of the condition `Conflict`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictReason {
    /// Their ports.
    Port,
    /// Whether they are headless.
    Type,
    /// Session affinity.
    SessionAffinity,
    /// How long it lasts.
    SessionAffinityConfig,
    /// The exported labels.
    Labels,
    /// The exported annotations.
    Annotations,
    /// `internalTrafficPolicy`.
    InternalTrafficPolicy,
    /// `trafficDistribution`.
    TrafficDistribution,
}

impl ConflictReason {
    /// As the API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Port => "PortConflict",
            Self::Type => "TypeConflict",
            Self::SessionAffinity => "SessionAffinityConflict",
            Self::SessionAffinityConfig => "SessionAffinityConfigConflict",
            Self::Labels => "LabelsConflict",
            Self::Annotations => "AnnotationsConflict",
            Self::InternalTrafficPolicy => "InternalTrafficPolicyConflict",
            Self::TrafficDistribution => "TrafficDistributionConflict",
        }
    }
}

impl fmt::Display for ConflictReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something in which the exports of a service differ. The oldest export decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExportConflict {
    /// What.
    pub reason: ConflictReason,
    /// In words, with who decides and how many disagree.
    pub message: String,
}

/// A service of the cluster set, as every cluster that has its namespace imports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportSpec {
    /// Its namespace and name, the same in every cluster.
    pub service: ServiceKey,
    /// Its name in DNS; its virtual IPs stand with that.
    pub name: GlobalName,
    /// What kind it is.
    pub kind: ImportKind,
    /// The ports and the rest, merged over the exports.
    pub traits: Traits,
    /// Labels for the ServiceImport.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Annotations for the ServiceImport.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub annotations: Labels,
    /// The clusters that export it.
    pub clusters: BTreeSet<ClusterName>,
    /// In what they differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<ExportConflict>,
}
