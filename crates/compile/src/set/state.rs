//! Who takes part in the set, and with what.

use super::view::SetView;
use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{NamespaceName, id::ClusterId, inventory::ServiceKey};

/// What follows for the set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetState {
    pub(crate) members: BTreeSet<ClusterId>,
    /// The clusters that export each service.
    pub(crate) sources: BTreeMap<ServiceKey, BTreeSet<ClusterId>>,
    /// The same, by cluster.
    pub(crate) exports: BTreeMap<ClusterId, BTreeSet<ServiceKey>>,
    pub(crate) services: BTreeMap<ServiceKey, SetView>,
}

impl SetState {
    pub(crate) fn new(world: &World) -> Self {
        let mut state = Self {
            members: world.clusters.keys().copied().filter(|id| world.is_in_set(*id)).collect(),
            ..Self::default()
        };
        for cluster in state.members.clone() {
            for key in exported(world, cluster) {
                state.add(cluster, key);
            }
        }
        for (key, clusters) in &state.sources {
            state.services.insert(key.clone(), SetView::new(world, key, clusters));
        }
        state
    }

    /// The cluster exports this now. Returns whether it did not before.
    pub(crate) fn add(&mut self, cluster: ClusterId, key: ServiceKey) -> bool {
        self.exports.entry(cluster).or_default().insert(key.clone());
        self.sources.entry(key).or_default().insert(cluster)
    }

    /// The cluster exports this no more. Returns whether it did before.
    pub(crate) fn remove(&mut self, cluster: ClusterId, key: &ServiceKey) -> bool {
        take(&mut self.exports, &cluster, key);
        take(&mut self.sources, key, &cluster)
    }

    /// Works out a service again. Nothing is kept of one that nobody exports.
    pub(crate) fn rework(&mut self, world: &World, key: &ServiceKey) -> (SetView, SetView) {
        let old = self.services.remove(key).unwrap_or_default();
        let new = match self.sources.get(key) {
            Some(clusters) => SetView::new(world, key, clusters),
            None => SetView::default(),
        };
        if self.sources.contains_key(key) {
            self.services.insert(key.clone(), new.clone());
        }
        (old, new)
    }

    /// The services of a namespace.
    pub(crate) fn in_namespace<'a>(
        &'a self,
        namespace: &'a NamespaceName,
    ) -> impl Iterator<Item = (&'a ServiceKey, &'a SetView)> {
        self.services
            .range(super::first_of(namespace)..)
            .take_while(move |(key, _)| key.namespace == *namespace)
    }
}

/// Takes a value out of the set under a key, and the key with the last one. Returns whether it was there.
fn take<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) -> bool {
    let Some(values) = map.get_mut(key) else { return false };
    let was = values.remove(value);
    if values.is_empty() {
        map.remove(key);
    }
    was
}

/// What a cluster exports.
pub(crate) fn exported(world: &World, cluster: ClusterId) -> BTreeSet<ServiceKey> {
    let services =
        world.inventories.get(&cluster).into_iter().flat_map(|inventory| inventory.services.keys());
    services.filter(|key| world.exports(cluster, key)).cloned().collect()
}
