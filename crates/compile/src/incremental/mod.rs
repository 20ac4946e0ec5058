//! The same as [`snapshot`](crate::snapshot), kept current change by change: what a change does not touch is not looked at.
//! A property test holds the two equal after every change of any sequence.

mod affected;
mod list;
mod set;
mod tell;

pub use affected::{Affected, ClusterChange};
pub use list::{Listed, Wanted};

use crate::{
    capture::captures,
    conflict::Conflict,
    derive::{Derived, GnsState, Owner, mapped},
    render,
    world::{Change, World, changed},
};
use set::DirtySet;
use std::collections::{BTreeMap, BTreeSet};
use tell::named_peers;
use tombolo_model::{
    ClusterName, DnsLabel, GlobalName, NamespaceName,
    id::{ClusterId, GnsId},
    intent::{Cluster, GlobalNamespace},
    inventory::{Inventory, NamespaceRecord, ServiceKey, ServiceRecord},
    snapshot::{CaptureSpec, ClusterResource, Resources},
};

/// A world, and what follows from it.
#[derive(Clone, Debug)]
pub struct Incremental {
    world: World,
    derived: Derived,
    /// The peers that each cluster was told of, and what they were called.
    peers: BTreeMap<ClusterId, BTreeSet<(ClusterId, ClusterName)>>,
    /// The namespaces whose capture mode each cluster was told.
    captures: BTreeMap<ClusterId, BTreeMap<NamespaceName, CaptureSpec>>,
    /// Whom to believe: one for all, for it grows with the clusters, and each of them is told it.
    bundle: ClusterResource,
}

/// What a change touched.
#[derive(Default)]
struct Dirty {
    /// Services to be worked out anew.
    services: BTreeSet<(GnsId, DnsLabel)>,
    /// Names to be told anew to the members of their GNS.
    names: BTreeMap<GnsId, BTreeSet<GlobalName>>,
    /// Names that may have come, gone, got or lost addresses.
    touched: BTreeSet<GlobalName>,
    /// GNSs whose members are to be told the domain anew.
    domains: BTreeSet<GnsId>,
    /// GNSs whose serving clusters may be others.
    serving: BTreeSet<GnsId>,
    /// Clusters that are to be told anew to those who have them as peers.
    peers: BTreeSet<ClusterId>,
    /// The cluster set's.
    set: DirtySet,
    bundle: bool,
    /// See [`Affected::standing`].
    standing: bool,
    /// Clusters that are to be told anew what to install.
    installs: BTreeSet<ClusterId>,
    /// Clusters of whose namespaces others may have their capture mode from a GNS.
    captures: BTreeSet<ClusterId>,
    /// Receivers that get everything.
    whole: BTreeSet<ClusterId>,
    gone: BTreeSet<ClusterId>,
}

impl Incremental {
    /// Works everything out once.
    #[must_use]
    pub fn new(world: World) -> Self {
        let derived = Derived::new(&world);
        let peers = world.clusters.keys().map(|id| (*id, named_peers(&world, &derived, *id))).collect();
        let active = derived.active();
        let captures = world.clusters.keys().map(|id| (*id, captures(&world, &active, *id))).collect();
        let bundle = render::bundle(&world);
        Self { world, derived, peers, captures, bundle }
    }

    /// The world as it is now.
    #[must_use]
    pub const fn world(&self) -> &World {
        &self.world
    }

    /// Everything for one cluster.
    #[must_use]
    pub fn snapshot(&self, cluster: ClusterId) -> Resources<ClusterResource> {
        render::whole(&self.world, &self.derived, &self.bundle, cluster)
    }

    /// All names that exist.
    pub fn names(&self) -> impl Iterator<Item = &GlobalName> {
        self.derived.owners.keys()
    }

    /// Whether there is such a name.
    #[must_use]
    pub fn has_name(&self, name: &GlobalName) -> bool {
        self.derived.owners.contains_key(name)
    }

    /// What could not be given as it was asked for.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.derived.conflicts(&self.world)
    }

    /// Takes the differences between the world held and `next`.
    pub fn replace(&mut self, next: &World) -> Affected {
        let mut affected = Affected::default();
        for change in self.world.changes_to(next) {
            affected.then(self.apply(change));
        }
        // A name that came and got its addresses in the same step needs none.
        affected
            .needed
            .retain(|name| self.derived.owners.contains_key(name) && !self.world.vips.contains_key(name));
        affected
            .released
            .retain(|name| !self.derived.owners.contains_key(name) && self.world.vips.contains_key(name));
        affected
    }

    /// Takes one change.
    pub fn apply(&mut self, change: Change) -> Affected {
        let mut dirty = Dirty::default();
        match change {
            Change::Organization(organization) => {
                if self.world.organization != organization {
                    self.world.organization = organization;
                    self.bundle = render::bundle(&self.world);
                    dirty.standing = true;
                    dirty.whole.extend(self.world.clusters.keys());
                }
            }
            Change::Roots(roots) => {
                dirty.bundle = self.world.roots != roots;
                self.world.roots = roots;
            }
            Change::Cluster(cluster) => self.set_cluster(cluster.id, Some(cluster), &mut dirty),
            Change::ClusterGone(id) => self.set_cluster(id, None, &mut dirty),
            Change::Gns(gns) => self.set_gns(gns.id, Some(gns), &mut dirty),
            Change::GnsGone(id) => self.set_gns(id, None, &mut dirty),
            Change::Inventory(cluster, inventory) => {
                let none = Inventory::default();
                let old = self.world.inventories.get(&cluster).unwrap_or(&none);
                let namespaces = changed(&old.namespaces, &inventory.namespaces);
                let services = changed(&old.services, &inventory.services);
                self.set_inventory(cluster, namespaces, services, &mut dirty);
            }
            Change::Inventoried { cluster, namespaces, services } => {
                self.set_inventory(cluster, namespaces, services, &mut dirty);
            }
            Change::Vips(vips) => {
                for (name, vip) in vips {
                    let old = match vip {
                        Some(vip) => self.world.vips.insert(name.clone(), vip),
                        None => self.world.vips.remove(&name),
                    };
                    if old == vip {
                        continue;
                    }
                    let names = match self.derived.owners.get(&name) {
                        Some(Owner::Gns(gns, _)) => Some(dirty.names.entry(*gns).or_default()),
                        Some(Owner::Set(key)) => Some(dirty.set.names.entry(key.clone()).or_default()),
                        None => None,
                    };
                    if let Some(names) = names {
                        names.insert(name.clone());
                    }
                    dirty.touched.insert(name);
                }
            }
        }
        self.finish(dirty)
    }

    fn set_cluster(&mut self, id: ClusterId, new: Option<Cluster>, dirty: &mut Dirty) {
        let old = self.world.clusters.get(&id).cloned();
        if old == new {
            return;
        }
        dirty.standing = true;
        if let (Some(was), Some(now)) = (&old, &new)
            && was.name != now.name
        {
            // Its name is part of other names; it is as good as another cluster.
            self.set_cluster(id, None, dirty);
            self.set_cluster(id, new, dirty);
            dirty.gone.remove(&id);
            return;
        }
        match &new {
            Some(cluster) => drop(self.world.clusters.insert(id, cluster.clone())),
            None => drop(self.world.clusters.remove(&id)),
        }
        fn part<T: Clone>(cluster: Option<&Cluster>, of: impl Fn(&Cluster) -> T) -> Option<T> {
            cluster.map(of)
        }
        let (was, now) = (old.as_ref(), new.as_ref());
        dirty.bundle |= part(was, |c| c.intermediates.clone()).unwrap_or_default()
            != part(now, |c| c.intermediates.clone()).unwrap_or_default();
        if part(was, |c| c.ingress.clone()) != part(now, |c| c.ingress.clone()) {
            dirty.peers.insert(id);
        }
        let moved = part(was, |c| c.locality.clone()) != part(now, |c| c.locality.clone());
        if moved {
            dirty.whole.insert(id);
            dirty.peers.insert(id);
        }
        let orders = |c: &Cluster| (c.install.clone(), c.trial.clone());
        if part(was, orders).unwrap_or_default() != part(now, orders).unwrap_or_default() {
            dirty.installs.insert(id);
        }
        dirty.captures.insert(id);
        let called = was.or(now).and_then(|cluster| DnsLabel::parse(cluster.name.as_str()).ok());
        for (gns_id, state) in &mut self.derived.gns {
            let Some(gns) = self.world.gns.get(gns_id) else { continue };
            let (member_was, member_is) = (state.members.contains(&id), self.world.is_member(gns, id));
            if member_was != member_is {
                if member_is {
                    state.members.insert(id);
                } else {
                    state.members.remove(&id);
                }
                dirty.domains.insert(*gns_id);
                dirty.whole.insert(id);
                // A service called like a cluster gains or loses its pods' names.
                dirty.services.extend(called.clone().map(|label| (*gns_id, label)));
            }
            if member_was || member_is {
                rescan(&self.world, gns, state, id, dirty);
            }
            if moved && member_is {
                let mine = state.sources.iter().filter(|(_, all)| all.iter().any(|(c, _)| *c == id));
                let names =
                    mine.filter_map(|(label, _)| state.services.get(label)).flat_map(|v| v.names.keys());
                dirty.names.entry(*gns_id).or_default().extend(names.cloned());
            }
        }
        self.rescan_set(id, dirty);
        if moved {
            self.moved_in_set(id, dirty);
        }
        if new.is_none() {
            dirty.gone.insert(id);
            dirty.whole.remove(&id);
        }
    }

    fn set_gns(&mut self, id: GnsId, new: Option<GlobalNamespace>, dirty: &mut Dirty) {
        let old = match new.clone() {
            Some(gns) => self.world.gns.insert(id, gns),
            None => self.world.gns.remove(&id),
        };
        if old == new {
            return;
        }
        let active = self.world.active();
        let was: BTreeSet<_> = self.derived.gns.keys().copied().collect();
        // Another GNS comes in force where this one's domain no longer stands in its way, and the other way round.
        let others: Vec<_> = was.symmetric_difference(&active).copied().chain([id]).collect();
        for id in &others {
            if let Some(state) = self.derived.remove(*id) {
                dirty.touched.extend(state.services.values().flat_map(|view| view.names.keys().cloned()));
                dirty.whole.extend(state.members);
            }
        }
        for id in others.into_iter().filter(|id| active.contains(id)) {
            let Some(gns) = self.world.gns.get(&id) else { continue };
            let state = GnsState::new(&self.world, gns);
            dirty.touched.extend(state.services.values().flat_map(|view| view.names.keys().cloned()));
            dirty.whole.extend(&state.members);
            self.derived.insert(id, state);
        }
    }

    fn set_inventory(
        &mut self,
        cluster: ClusterId,
        namespaces: BTreeMap<NamespaceName, Option<NamespaceRecord>>,
        services: BTreeMap<ServiceKey, Option<ServiceRecord>>,
        dirty: &mut Dirty,
    ) {
        let inventory = self.world.inventories.entry(cluster).or_default();
        let imports = |record: Option<&NamespaceRecord>| record.is_some_and(|record| record.imports);
        let flips = |(name, record): &(&NamespaceName, &Option<NamespaceRecord>)| {
            imports(inventory.namespaces.get(*name)) != imports(record.as_ref())
        };
        let flipped = namespaces.iter().filter(flips).map(|(name, _)| name.clone()).collect();
        let relabelled = put(&mut inventory.namespaces, namespaces);
        if !relabelled.is_empty() {
            dirty.captures.insert(cluster);
        }
        let differ = put(&mut inventory.services, services);
        self.inventory_in_set(cluster, flipped, &differ, dirty);
        for (gns_id, state) in
            self.derived.gns.iter_mut().filter(|(_, state)| state.members.contains(&cluster))
        {
            let Some(gns) = self.world.gns.get(gns_id) else { continue };
            if !relabelled.is_empty() {
                rescan(&self.world, gns, state, cluster, dirty);
            }
            for key in &differ {
                let there = self.world.service(cluster, key).is_some()
                    && self.world.is_mapped(gns, cluster, &key.namespace);
                let had = state.serving.contains_key(&cluster);
                let differs = if there {
                    state.add(cluster, key.name.clone(), key.namespace.clone());
                    true
                } else {
                    state.remove(cluster, &key.name, &key.namespace)
                };
                if differs {
                    dirty.services.insert((*gns_id, key.name.clone()));
                }
                if had != state.serving.contains_key(&cluster) {
                    dirty.serving.insert(*gns_id);
                }
            }
        }
    }
}

/// Looks anew at which services of a cluster take part in a GNS.
fn rescan(world: &World, gns: &GlobalNamespace, state: &mut GnsState, cluster: ClusterId, dirty: &mut Dirty) {
    let now = mapped(world, gns, cluster);
    let was: BTreeSet<(DnsLabel, NamespaceName)> = state
        .sources
        .iter()
        .flat_map(|(label, all)| {
            all.iter()
                .filter(|(id, _)| *id == cluster)
                .map(|(_, namespace)| (label.clone(), namespace.clone()))
        })
        .collect();
    let served = state.serving.contains_key(&cluster);
    for (label, namespace) in was.difference(&now) {
        state.remove(cluster, label, namespace);
        dirty.services.insert((gns.id, label.clone()));
    }
    for (label, namespace) in now.difference(&was) {
        state.add(cluster, label.clone(), namespace.clone());
        dirty.services.insert((gns.id, label.clone()));
    }
    if served != state.serving.contains_key(&cluster) {
        dirty.serving.insert(gns.id);
    }
}

/// Puts what differs into a map. Returns the keys that did.
fn put<K: Ord + Clone, V: PartialEq>(
    map: &mut BTreeMap<K, V>,
    changes: BTreeMap<K, Option<V>>,
) -> BTreeSet<K> {
    let mut differ = BTreeSet::new();
    for (key, value) in changes {
        if map.get(&key) == value.as_ref() {
            continue;
        }
        differ.insert(key.clone());
        match value {
            Some(value) => drop(map.insert(key, value)),
            None => drop(map.remove(&key)),
        }
    }
    differ
}
