//! What is read: intent, inventory and addresses of one organization.

use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    GlobalName, NamespaceName,
    id::{ClusterId, GnsId},
    intent::{Cluster, GlobalNamespace, Labels, Organization},
    inventory::{Inventory, NamespaceRecord, ServiceKey, ServiceRecord},
    snapshot::Vip,
};

/// An organization, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// The organization.
    pub organization: Organization,
    /// Its root certificates, PEM; several while a root rotates.
    pub roots: Vec<String>,
    /// Its clusters; no two have one name.
    pub clusters: BTreeMap<ClusterId, Cluster>,
    /// What they reported last. The loss of an agent takes nothing out of it.
    pub inventories: BTreeMap<ClusterId, Inventory>,
    /// Its global namespaces.
    pub gns: BTreeMap<GnsId, GlobalNamespace>,
    /// The virtual addresses allocated so far.
    pub vips: BTreeMap<GlobalName, Vip>,
}

/// A change of a [`World`]. Every one says what is now there, so that saying it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The organization itself.
    Organization(Organization),
    /// Its root certificates.
    Roots(Vec<String>),
    /// A cluster is there, or is different.
    Cluster(Cluster),
    /// A cluster is gone.
    ClusterGone(ClusterId),
    /// A global namespace is there, or is different.
    Gns(GlobalNamespace),
    /// A global namespace is gone.
    GnsGone(GnsId),
    /// The whole inventory of a cluster.
    Inventory(ClusterId, Inventory),
    /// Some of the inventory of a cluster: what is now there, and (nothing) what is gone.
    Inventoried {
        /// The cluster.
        cluster: ClusterId,
        /// Namespaces.
        namespaces: BTreeMap<NamespaceName, Option<NamespaceRecord>>,
        /// Services.
        services: BTreeMap<ServiceKey, Option<ServiceRecord>>,
    },
    /// Virtual addresses: those that are now there, and (nothing) those that are gone.
    Vips(BTreeMap<GlobalName, Option<Vip>>),
}

impl World {
    /// An organization with nothing in it.
    #[must_use]
    pub fn new(organization: Organization) -> Self {
        Self {
            organization,
            roots: Vec::new(),
            clusters: BTreeMap::new(),
            inventories: BTreeMap::new(),
            gns: BTreeMap::new(),
            vips: BTreeMap::new(),
        }
    }

    /// The changes that lead from this world to `next`.
    #[must_use]
    pub fn changes_to(&self, next: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.organization != next.organization {
            changes.push(Change::Organization(next.organization.clone()));
        }
        if self.roots != next.roots {
            changes.push(Change::Roots(next.roots.clone()));
        }
        for id in keys(&self.clusters, &next.clusters) {
            match next.clusters.get(&id) {
                None => changes.push(Change::ClusterGone(id)),
                Some(cluster) if self.clusters.get(&id) != Some(cluster) => {
                    changes.push(Change::Cluster(cluster.clone()));
                }
                Some(_) => {}
            }
        }
        for id in keys(&self.gns, &next.gns) {
            match next.gns.get(&id) {
                None => changes.push(Change::GnsGone(id)),
                Some(gns) if self.gns.get(&id) != Some(gns) => changes.push(Change::Gns(gns.clone())),
                Some(_) => {}
            }
        }
        let empty = Inventory::default();
        for cluster in keys(&self.inventories, &next.inventories) {
            let old = self.inventories.get(&cluster).unwrap_or(&empty);
            let new = next.inventories.get(&cluster).unwrap_or(&empty);
            let namespaces = changed(&old.namespaces, &new.namespaces);
            let services = changed(&old.services, &new.services);
            if !namespaces.is_empty() || !services.is_empty() {
                changes.push(Change::Inventoried { cluster, namespaces, services });
            }
        }
        let vips = changed(&self.vips, &next.vips);
        if !vips.is_empty() {
            changes.push(Change::Vips(vips));
        }
        changes
    }

    /// The labels of a namespace; none where the cluster did not report it.
    pub(crate) fn namespace_labels(&self, cluster: ClusterId, namespace: &NamespaceName) -> &Labels {
        static NONE: Labels = Labels::new();
        let record = self.inventories.get(&cluster).and_then(|i| i.namespaces.get(namespace));
        record.map_or(&NONE, |record| &record.labels)
    }

    /// Whether some rule of the GNS chooses this cluster, and it has joined.
    pub(crate) fn is_member(&self, gns: &GlobalNamespace, cluster: ClusterId) -> bool {
        self.clusters.get(&cluster).is_some_and(|cluster| {
            !cluster.intermediates.is_empty()
                && gns.rules.iter().any(|rule| rule.cluster.matches(&cluster.name, &cluster.labels))
        })
    }

    /// Whether the GNS names the services of this namespace of this cluster.
    pub(crate) fn is_mapped(&self, gns: &GlobalNamespace, id: ClusterId, namespace: &NamespaceName) -> bool {
        let Some(cluster) = self.clusters.get(&id).filter(|cluster| !cluster.intermediates.is_empty()) else {
            return false;
        };
        let labels = self.namespace_labels(id, namespace);
        gns.rules.iter().any(|rule| {
            rule.cluster.matches(&cluster.name, &cluster.labels) && rule.namespace.matches(namespace, labels)
        })
    }

    /// The GNSs that are in force: one whose domain overlaps an older one's is not.
    pub(crate) fn active(&self) -> BTreeSet<GnsId> {
        let mut active: Vec<&GlobalNamespace> = Vec::new();
        for gns in self.gns.values() {
            if !active.iter().any(|older| older.domain.overlaps(&gns.domain)) {
                active.push(gns);
            }
        }
        active.into_iter().map(|gns| gns.id).collect()
    }

    /// Whether a cluster imports the services of this namespace from the set: it has joined, and its agent makes
    /// ServiceImports there.
    pub(crate) fn imports(&self, id: ClusterId, namespace: &NamespaceName) -> bool {
        let record = self.inventories.get(&id).and_then(|inventory| inventory.namespaces.get(namespace));
        self.has_joined(id) && record.is_some_and(|record| record.imports)
    }

    /// Whether a cluster is a member of the set.
    pub(crate) fn is_in_set(&self, id: ClusterId) -> bool {
        let any = |inventory: &Inventory| inventory.namespaces.values().any(|record| record.imports);
        self.has_joined(id) && self.inventories.get(&id).is_some_and(any)
    }

    /// Whether a cluster exports this service to the set.
    pub(crate) fn exports(&self, id: ClusterId, key: &ServiceKey) -> bool {
        self.imports(id, &key.namespace)
            && self.service(id, key).is_some_and(|service| service.export.is_some())
    }

    fn has_joined(&self, id: ClusterId) -> bool {
        self.clusters.get(&id).is_some_and(|cluster| !cluster.intermediates.is_empty())
    }

    pub(crate) fn service(&self, cluster: ClusterId, key: &ServiceKey) -> Option<&ServiceRecord> {
        self.inventories.get(&cluster)?.services.get(key)
    }
}

fn keys<K: Ord + Copy, V>(old: &BTreeMap<K, V>, new: &BTreeMap<K, V>) -> BTreeSet<K> {
    old.keys().chain(new.keys()).copied().collect()
}

/// What is now there under each key that differs.
pub(crate) fn changed<K: Ord + Clone, V: PartialEq + Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), None));
    let there = new.iter().filter(|(key, value)| old.get(*key) != Some(*value));
    gone.chain(there.map(|(key, value)| (key.clone(), Some(value.clone())))).collect()
}
