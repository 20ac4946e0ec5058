//! SPIFFE identities (SPIFFE-ID standard, section 2). Everything of a cluster lies under `/cluster/<cluster>`,
//! which is all that the cluster's intermediate may vouch for.

use crate::{
    held::Held,
    name::{AccountName, ClusterName, NameError, NamespaceName},
    recent,
};
use arcstr::ArcStr;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    ops::{Deref, DerefMut},
    str::FromStr,
};
use thiserror::Error;

/// The trust domain of one organization: the authority part of its SPIFFE ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(ArcStr);

impl TrustDomain {
    /// Reads a trust domain: a DNS name of one or more labels.
    ///
    /// # Errors
    /// A [`NameError`] as for any DNS name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        AccountName::parse(text).map(|name| Self(recent::text(name.as_str())))
    }
    /// The trust domain as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl TryFrom<String> for TrustDomain {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}
impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> String {
        domain.0.as_str().to_owned()
    }
}
impl FromStr for TrustDomain {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

/// What a gateway process does. One binary, several roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GatewayRole {
    /// Beside the application: one per pod, or one per machine in capture mode `explicit`.
    Sidecar,
    /// Where a cluster's requests to other clusters leave it.
    Egress,
    /// Where other clusters' requests enter.
    Ingress,
    /// One per node, for the pods on it that have no sidecar.
    Node,
}

impl GatewayRole {
    /// The role as it stands in a SPIFFE id, in options and in labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Node => "node",
        }
    }

    /// Whether it stands before applications: takes their connections, and answers as them.
    #[must_use]
    pub const fn is_beside_applications(self) -> bool {
        matches!(self, Self::Sidecar | Self::Node)
    }
}
impl fmt::Display for GatewayRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
impl FromStr for GatewayRole {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text {
            "sidecar" => Ok(Self::Sidecar),
            "egress" => Ok(Self::Egress),
            "ingress" => Ok(Self::Ingress),
            "node" => Ok(Self::Node),
            _ => Err(IdentityError::Role),
        }
    }
}

/// Why a text is not a SPIFFE id of ours.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum IdentityError {
    /// Not `spiffe://…`.
    #[error("does not begin with spiffe://")]
    Scheme,
    /// The trust domain or a part of the path is not a name.
    #[error("{part} {source}")]
    Name {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        source: NameError,
    },
    /// A path that is none of ours.
    #[error("has a path that is none of /cluster/C, …/agent, …/gateway/ROLE, …/ns/NAMESPACE/sa/ACCOUNT")]
    Path,
    /// A role that gateways do not have.
    #[error("is not a role of a gateway; those are sidecar, egress, ingress")]
    Role,
}

/// Who in a cluster an identity stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpiffePath {
    /// The cluster itself: the subject of its intermediate. Never a peer in a handshake.
    Cluster,
    /// The cluster's agent, towards the controller.
    Agent,
    /// A gateway of the cluster.
    Gateway(GatewayRole),
    /// A workload: a service account of a namespace.
    Workload {
        /// The namespace.
        namespace: NamespaceName,
        /// The service account.
        account: AccountName,
    },
}

/// A SPIFFE id: `spiffe://<trust domain>/cluster/<cluster>[/…]`. It stands beside each endpoint, so a copy is the same one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(Held<SpiffeParts>);

/// What a SPIFFE id is made of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeParts {
    /// The organization's trust domain.
    pub trust_domain: TrustDomain,
    /// The cluster that vouches for it.
    pub cluster: ClusterName,
    /// Who in the cluster.
    pub path: SpiffePath,
}

impl Deref for SpiffeId {
    type Target = SpiffeParts;
    fn deref(&self) -> &SpiffeParts {
        &self.0
    }
}
impl DerefMut for SpiffeId {
    fn deref_mut(&mut self) -> &mut SpiffeParts {
        &mut self.0
    }
}

impl SpiffeId {
    fn of(domain: &TrustDomain, cluster: &ClusterName, path: SpiffePath) -> Self {
        let parts = SpiffeParts { trust_domain: domain.clone(), cluster: cluster.clone(), path };
        Self(parts.into())
    }
    /// The identity of a workload.
    #[must_use]
    pub fn workload(
        domain: &TrustDomain,
        cluster: &ClusterName,
        ns: &NamespaceName,
        sa: &AccountName,
    ) -> Self {
        let path = SpiffePath::Workload { namespace: ns.clone(), account: sa.clone() };
        Self::of(domain, cluster, path)
    }
    /// The identity of a gateway.
    #[must_use]
    pub fn gateway(domain: &TrustDomain, cluster: &ClusterName, role: GatewayRole) -> Self {
        Self::of(domain, cluster, SpiffePath::Gateway(role))
    }
    /// The identity of a cluster's agent.
    #[must_use]
    pub fn agent(domain: &TrustDomain, cluster: &ClusterName) -> Self {
        Self::of(domain, cluster, SpiffePath::Agent)
    }
    /// The identity that stands in a cluster's intermediate.
    #[must_use]
    pub fn cluster(domain: &TrustDomain, cluster: &ClusterName) -> Self {
        Self::of(domain, cluster, SpiffePath::Cluster)
    }

    /// Reads an identity. The spelling is exact: no other case, no query, no trailing slash.
    ///
    /// # Errors
    /// An [`IdentityError`] that names the part.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        fn strict<T: AsRef<str>>(
            part: &'static str,
            text: &str,
            parsed: Result<T, NameError>,
        ) -> Result<T, IdentityError> {
            let name = parsed.map_err(|source| IdentityError::Name { part, source })?;
            if name.as_ref() == text { Ok(name) } else { Err(IdentityError::Path) }
        }
        let rest = text.strip_prefix("spiffe://").ok_or(IdentityError::Scheme)?;
        let mut parts = rest.split('/');
        let domain = parts.next().unwrap_or_default();
        let trust_domain = TrustDomain::parse(domain)
            .map_err(|source| IdentityError::Name { part: "trust domain", source })?;
        if trust_domain.as_str() != domain {
            return Err(IdentityError::Path);
        }
        let parts: Vec<&str> = parts.collect();
        let (cluster, path) = match parts.as_slice() {
            ["cluster", c] => (c, SpiffePath::Cluster),
            ["cluster", c, "agent"] => (c, SpiffePath::Agent),
            ["cluster", c, "gateway", role] => (c, SpiffePath::Gateway(role.parse()?)),
            ["cluster", c, "ns", ns, "sa", sa] => (
                c,
                SpiffePath::Workload {
                    namespace: strict("namespace", ns, NamespaceName::parse(ns))?,
                    account: strict("service account", sa, AccountName::parse(sa))?,
                },
            ),
            _ => return Err(IdentityError::Path),
        };
        let cluster = strict("cluster", cluster, ClusterName::parse(cluster))?;
        Ok(Self::of(&trust_domain, &cluster, path))
    }

    /// Whether this is a gateway of the given role.
    #[must_use]
    pub fn is_gateway(&self, role: GatewayRole) -> bool {
        self.path == SpiffePath::Gateway(role)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/cluster/{}", self.trust_domain, self.cluster)?;
        match &self.path {
            SpiffePath::Cluster => Ok(()),
            SpiffePath::Agent => f.write_str("/agent"),
            SpiffePath::Gateway(role) => write!(f, "/gateway/{role}"),
            SpiffePath::Workload { namespace, account } => write!(f, "/ns/{namespace}/sa/{account}"),
        }
    }
}
impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl FromStr for SpiffeId {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        Self::parse(text)
    }
}
impl TryFrom<String> for SpiffeId {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        Self::parse(&text)
    }
}
impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_it_writes() {
        for text in [
            "spiffe://acme.tombolo.internal/cluster/c1",
            "spiffe://acme.tombolo.internal/cluster/c1/agent",
            "spiffe://acme.tombolo.internal/cluster/c1/gateway/egress",
            "spiffe://acme.tombolo.internal/cluster/c1/ns/default/sa/shopping",
        ] {
            assert_eq!(SpiffeId::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_other_spellings() {
        for text in [
            "https://acme/cluster/c1",
            "spiffe://acme/cluster/c1/",
            "spiffe://acme/cluster/C1",
            "spiffe://Acme/cluster/c1",
            "spiffe://acme/cluster/c1/ns/default/sa/",
            "spiffe://acme/cluster/c1/ns/../sa/x",
            "spiffe://acme/cluster/c1/gateway/root",
            "spiffe://acme/ns/default/sa/x",
            "spiffe://acme/cluster/c1/ns/default/sa/x?y",
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(spiffe://)?[a-z./A-Z0-9-]{0,60}") {
            if let Ok(id) = SpiffeId::parse(&text) { prop_assert_eq!(id.to_string(), text); }
        }
    }
}
