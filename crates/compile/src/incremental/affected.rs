//! What a change led to.

use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    GlobalName,
    id::ClusterId,
    snapshot::{ClusterResource, ResourceKey, Resources},
};

/// What changes for one receiver.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterChange {
    /// So much that everything is given.
    Whole(Resources<ClusterResource>),
    /// These keys now hold this, and those are gone. Some may hold what they held before.
    Parts {
        /// New and changed resources.
        upserts: Resources<ClusterResource>,
        /// Keys that are gone.
        removes: BTreeSet<ResourceKey>,
    },
    /// The cluster is gone.
    Gone,
}

/// What a change led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affected {
    /// The receivers that must be told something.
    pub clusters: BTreeMap<ClusterId, ClusterChange>,
    /// Names that came to be (or lost their addresses) and want virtual addresses. Allocate, and apply [`Change::Vips`].
    pub needed: BTreeSet<GlobalName>,
    /// Names that have virtual addresses and are no more. Put the addresses in quarantine.
    pub released: BTreeSet<GlobalName>,
    /// Whether who is believed, or which clusters there are, may be otherwise.
    pub standing: bool,
}

impl Affected {
    /// This, and then what `next` did.
    pub(super) fn then(&mut self, next: Self) {
        for (cluster, change) in next.clusters {
            match (self.clusters.remove(&cluster), change) {
                (
                    Some(ClusterChange::Parts { mut upserts, mut removes }),
                    ClusterChange::Parts { upserts: more, removes: gone },
                ) => {
                    upserts.retain(|key, _| !gone.contains(key));
                    removes.retain(|key| !more.contains_key(key));
                    upserts.extend(more);
                    removes.extend(gone);
                    self.clusters.insert(cluster, ClusterChange::Parts { upserts, removes });
                }
                (Some(ClusterChange::Whole(mut all)), ClusterChange::Parts { upserts, removes }) => {
                    all.retain(|key, _| !removes.contains(key));
                    all.extend(upserts);
                    self.clusters.insert(cluster, ClusterChange::Whole(all));
                }
                (_, change) => {
                    self.clusters.insert(cluster, change);
                }
            }
        }
        self.needed.extend(next.needed);
        self.released.extend(next.released);
        self.standing |= next.standing;
    }
}
