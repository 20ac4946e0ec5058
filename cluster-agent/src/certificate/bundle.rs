//! What the snapshot's bundle says of a cluster.

use std::collections::BTreeSet;
use tombolo_model::{
    ClusterName,
    snapshot::{CaFingerprint, ClusterResource, Resources},
};

/// What the snapshot's bundle says of a cluster.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    /// Its intermediates that peers believe.
    pub(super) listed: BTreeSet<CaFingerprint>,
    /// The root that signs, PEM.
    pub(super) signing: Option<String>,
}

impl Bundle {
    pub(super) fn of(resources: &Resources<ClusterResource>, cluster: &ClusterName) -> Self {
        let bundle = resources.values().find_map(|resource| match resource {
            ClusterResource::Bundle(bundle) => Some(bundle),
            _ => None,
        });
        bundle.map_or_else(Self::default, |bundle| Self {
            listed: bundle.clusters.get(cluster).cloned().unwrap_or_default(),
            signing: bundle.roots.first().cloned(),
        })
    }
}
