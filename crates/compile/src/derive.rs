//! What follows from a world, the same for every receiver: who is a member of what, and what each name stands for.

use crate::{
    conflict::{Conflict, Reason},
    merge::{self, NameBody, ServiceView},
    set::SetState,
    world::World,
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    DnsLabel, GlobalName, NamespaceName,
    id::{ClusterId, GnsId},
    intent::GlobalNamespace,
    inventory::ServiceKey,
};

/// What follows for one GNS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GnsState {
    pub(crate) members: BTreeSet<ClusterId>,
    /// For each service, the namespaces that have one.
    pub(crate) sources: BTreeMap<DnsLabel, BTreeSet<(ClusterId, NamespaceName)>>,
    /// How many services of each cluster take part.
    pub(crate) serving: BTreeMap<ClusterId, usize>,
    pub(crate) services: BTreeMap<DnsLabel, ServiceView>,
}

impl GnsState {
    pub(crate) fn new(world: &World, gns: &GlobalNamespace) -> Self {
        let members = world.clusters.keys().copied().filter(|id| world.is_member(gns, *id)).collect();
        let mut state = Self { members, ..Self::default() };
        for cluster in state.members.clone() {
            for (label, namespace) in mapped(world, gns, cluster) {
                state.add(cluster, label, namespace);
            }
        }
        let labels: Vec<_> = state.sources.keys().cloned().collect();
        for label in labels {
            let view = state.view(world, gns, &label);
            state.services.insert(label, view);
        }
        state
    }

    /// The service takes part now. Returns whether it did not before.
    pub(crate) fn add(&mut self, cluster: ClusterId, label: DnsLabel, namespace: NamespaceName) -> bool {
        let new = self.sources.entry(label).or_default().insert((cluster, namespace));
        if new {
            *self.serving.entry(cluster).or_default() += 1;
        }
        new
    }

    /// The service takes part no more. Returns whether it did before.
    pub(crate) fn remove(&mut self, cluster: ClusterId, label: &DnsLabel, namespace: &NamespaceName) -> bool {
        let Some(sources) = self.sources.get_mut(label) else { return false };
        if !sources.remove(&(cluster, namespace.clone())) {
            return false;
        }
        if sources.is_empty() {
            self.sources.remove(label);
        }
        if let Some(count) = self.serving.get_mut(&cluster) {
            *count -= 1;
            if *count == 0 {
                self.serving.remove(&cluster);
            }
        }
        true
    }

    pub(crate) fn view(&self, world: &World, gns: &GlobalNamespace, label: &DnsLabel) -> ServiceView {
        let none = BTreeSet::new();
        let sources = self.sources.get(label).unwrap_or(&none);
        merge::service(world, gns, &self.members, label, sources)
    }
}

/// The services of a cluster that a GNS names.
pub(crate) fn mapped(
    world: &World,
    gns: &GlobalNamespace,
    cluster: ClusterId,
) -> BTreeSet<(DnsLabel, NamespaceName)> {
    let Some(inventory) = world.inventories.get(&cluster) else { return BTreeSet::new() };
    // Keys are sorted by namespace: each is looked at once.
    let mut last: Option<(&NamespaceName, bool)> = None;
    let mut found = BTreeSet::new();
    for key in inventory.services.keys() {
        let is = match last {
            Some((namespace, is)) if *namespace == key.namespace => is,
            _ => world.is_mapped(gns, cluster, &key.namespace),
        };
        last = Some((&key.namespace, is));
        if is {
            found.insert((key.name.clone(), key.namespace.clone()));
        }
    }
    found
}

/// Whose a name is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A service of a global namespace.
    Gns(GnsId, DnsLabel),
    /// A service of the cluster set.
    Set(ServiceKey),
}

/// What follows for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Derived {
    /// The GNSs in force.
    pub(crate) gns: BTreeMap<GnsId, GnsState>,
    /// The cluster set.
    pub(crate) set: SetState,
    /// Whose each name is.
    pub(crate) owners: BTreeMap<GlobalName, Owner>,
}

impl Derived {
    pub(crate) fn new(world: &World) -> Self {
        let mut derived = Self { set: SetState::new(world), ..Self::default() };
        for (key, view) in &derived.set.services {
            let owned = view.names.keys().map(|name| (name.clone(), Owner::Set(key.clone())));
            derived.owners.extend(owned);
        }
        for id in world.active() {
            if let Some(gns) = world.gns.get(&id) {
                derived.insert(id, GnsState::new(world, gns));
            }
        }
        derived
    }

    /// The GNSs in force.
    pub(crate) fn active(&self) -> BTreeSet<GnsId> {
        self.gns.keys().copied().collect()
    }

    pub(crate) fn insert(&mut self, id: GnsId, state: GnsState) {
        for (label, view) in &state.services {
            for name in view.names.keys() {
                self.owners.insert(name.clone(), Owner::Gns(id, label.clone()));
            }
        }
        self.gns.insert(id, state);
    }

    pub(crate) fn remove(&mut self, id: GnsId) -> Option<GnsState> {
        let state = self.gns.remove(&id)?;
        for name in state.services.values().flat_map(|view| view.names.keys()) {
            self.owners.remove(name);
        }
        Some(state)
    }

    pub(crate) fn name(&self, name: &GlobalName) -> Option<&NameBody> {
        match self.owners.get(name)? {
            Owner::Gns(id, label) => self.gns.get(id)?.services.get(label)?.names.get(name),
            Owner::Set(key) => self.set.services.get(key)?.names.get(name),
        }
    }

    /// The other clusters that serve something a cluster imports.
    pub(crate) fn peers(&self, cluster: ClusterId) -> BTreeSet<ClusterId> {
        let mine = self.gns.values().filter(|state| state.members.contains(&cluster));
        let set = self.set.members.contains(&cluster).then_some(self.set.exports.keys());
        let serving = mine.flat_map(|state| state.serving.keys()).chain(set.into_iter().flatten());
        serving.copied().filter(|peer| *peer != cluster).collect()
    }

    pub(crate) fn conflicts(&self, world: &World) -> Vec<Conflict> {
        let mut all = Vec::new();
        for (id, gns) in &world.gns {
            match self.gns.get(id) {
                Some(state) => all.extend(state.services.values().flat_map(|view| view.conflicts.clone())),
                None => {
                    let in_force = world.gns.values().filter(|other| self.gns.contains_key(&other.id));
                    let older = in_force.into_iter().find(|other| other.domain.overlaps(&gns.domain));
                    let Some(older) = older else { continue };
                    all.push(Conflict {
                        gns: gns.name.clone(),
                        service: None,
                        port: None,
                        winner: None,
                        loser: None,
                        reason: Reason::Overlap(older.domain.clone()),
                    });
                }
            }
        }
        all.sort();
        all
    }
}
