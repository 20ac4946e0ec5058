//! What a receiver is told: a map of resources under stable keys, so that a delta is "these keys now hold this,
//! those are gone" for every kind of resource alike.
//!
//! Two kinds of snapshot: [`ClusterResource`] from the controller to an agent, [`GatewayResource`] from an agent
//! to a gateway of its cluster.

mod cluster;
mod fingerprint;
mod gateway;
mod key;

pub use cluster::{CaptureSpec, ClusterResource, DomainSpec, EndToEnd, NameKind, NameSpec, TargetSpec, Vip};
pub use fingerprint::CaFingerprint;
pub use gateway::{
    EndpointSpec, ExportPort, ExportSpec, GatewayResource, RouteSpec, RouteTarget, WorkloadSelector,
    WorkloadSpec,
};
pub use key::ResourceKey;

use crate::{
    identity::TrustDomain,
    locality::{Locality, Proximity},
    name::ClusterName,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
