//! Which namespaces of a cluster have their capture mode from a global namespace.

use crate::world::World;
use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};
use tombolo_model::{
    NamespaceName,
    id::{ClusterId, GnsId},
    intent::{CaptureMode, GlobalNamespace, Selector},
    snapshot::CaptureSpec,
};

/// The namespaces of a cluster, each with the mode that the global namespaces in force choose for it: of several the first by name.
/// One that a rule names is there before the cluster reported it, so that the first pods in it find the mode in force.
pub(crate) fn captures(
    world: &World,
    active: &BTreeSet<GnsId>,
    id: ClusterId,
) -> BTreeMap<NamespaceName, CaptureSpec> {
    let mut all: BTreeMap<NamespaceName, CaptureSpec> = BTreeMap::new();
    let mut choosing: Vec<(&GlobalNamespace, CaptureMode)> = active
        .iter()
        .filter_map(|gns| world.gns.get(gns))
        .filter_map(|gns| Some((gns, gns.capture?)))
        .filter(|(gns, _)| world.is_member(gns, id))
        .collect();
    choosing.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    for (gns, mode) in choosing {
        for namespace in chosen(world, gns, id) {
            match all.entry(namespace) {
                Entry::Vacant(place) => {
                    let (namespace, gns) = (place.key().clone(), gns.name.clone());
                    place.insert(CaptureSpec { namespace, mode, gns, against: BTreeMap::new() });
                }
                Entry::Occupied(mut place) if place.get().mode != mode => {
                    place.get_mut().against.insert(gns.name.clone(), mode);
                }
                Entry::Occupied(_) => {}
            }
        }
    }
    all
}

/// The namespaces of a cluster that a GNS chooses.
fn chosen(world: &World, gns: &GlobalNamespace, id: ClusterId) -> BTreeSet<NamespaceName> {
    let Some(cluster) = world.clusters.get(&id) else { return BTreeSet::new() };
    let reported = world.inventories.get(&id).map(|inventory| &inventory.namespaces);
    let rules = gns.rules.iter().filter(|rule| rule.cluster.matches(&cluster.name, &cluster.labels));
    let mut all = BTreeSet::new();
    for rule in rules {
        match &rule.namespace {
            Selector::Name(name) => drop(all.insert(name.clone())),
            by_labels @ Selector::Labels(_) => {
                let found = reported.into_iter().flatten();
                let found = found.filter(|(name, record)| by_labels.matches(name, &record.labels));
                all.extend(found.map(|(name, _)| name.clone()));
            }
        }
    }
    all
}
