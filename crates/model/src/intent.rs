//! What people ask for: organizations, clusters, global namespaces.

use crate::{
    TrustDomain,
    id::{ClusterId, GnsId, OrgId},
    install::{InstallOrder, Trial},
    locality::Locality,
    name::{ClusterName, DnsLabel, Domain, NamespaceName, OrgName},
    snapshot::CaFingerprint,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

/// Labels of a cluster or a namespace.
pub type Labels = BTreeMap<String, String>;

/// An organization.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Organization {
    /// Its id.
    pub id: OrgId,
    /// Its name, one in the installation.
    pub name: OrgName,
    /// The authority of its SPIFFE ids, one in the installation.
    pub trust_domain: TrustDomain,
}

/// A cluster as the organization knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Its id.
    pub id: ClusterId,
    /// Its name, one in the organization.
    pub name: ClusterName,
    /// Labels, for cluster selectors.
    pub labels: Labels,
    /// Where it runs.
    pub locality: Locality,
    /// Its intermediates that peers trust (by the SHA-256 of their public key): none before it joined, two while one is renewed.
    pub intermediates: BTreeSet<CaFingerprint>,
    /// `host:port` of its ingress gateways, as its agent reported them.
    pub ingress: BTreeSet<String>,
    /// What its agent is to install there; none where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub install: Option<Box<InstallOrder>>,
    /// What its agent is asked to try; none most of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Box<Trial>>,
}

/// The label of a namespace that chooses its [`CaptureMode`], before anything else does.
pub const CAPTURE_LABEL: &str = "tombolo.io/capture";

/// How the pods of a namespace reach global names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMode {
    /// Through the cluster's Services: nothing is in the pods, and who calls is not known.
    Gateway,
    /// A proxy in each pod.
    Sidecar,
    /// A proxy on each node.
    Node,
    /// Not by our doing. What the cluster's Services take, they take.
    None,
}

impl CaptureMode {
    /// The mode as it stands in labels, options and files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Sidecar => "sidecar",
            Self::Node => "node",
            Self::None => "none",
        }
    }
}
impl fmt::Display for CaptureMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for CaptureMode {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, &'static str> {
        let all = [Self::Gateway, Self::Sidecar, Self::Node, Self::None];
        all.into_iter().find(|mode| mode.as_str() == text).ok_or("is none of gateway, sidecar, node, none")
    }
}

/// Chooses clusters or namespaces: by name, or by labels that must all be there.
/// An empty set of labels chooses everything, as an empty Kubernetes selector does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Selector<N> {
    /// The one with this name.
    Name(N),
    /// All with these labels.
    Labels(Labels),
}

impl<N: PartialEq> Selector<N> {
    /// Whether something of this name and these labels is chosen.
    pub fn matches(&self, name: &N, labels: &Labels) -> bool {
        match self {
            Self::Name(wanted) => wanted == name,
            Self::Labels(wanted) => wanted.iter().all(|(k, v)| labels.get(k) == Some(v)),
        }
    }
}

/// The namespaces of some clusters that belong to a global namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingRule {
    /// Which clusters.
    pub cluster: Selector<ClusterName>,
    /// Which of their namespaces.
    pub namespace: Selector<NamespaceName>,
}

/// A global namespace (GNS): a domain, and whose services it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalNamespace {
    /// Its id (version 7: the older sorts first).
    pub id: GnsId,
    /// Its name, one in the organization.
    pub name: DnsLabel,
    /// Its domain; no two of an organization overlap.
    pub domain: Domain,
    /// Whose services it names.
    pub rules: Vec<MappingRule>,
    /// The capture mode of the namespaces that the rules choose; none where it has no say in that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureMode>,
}
