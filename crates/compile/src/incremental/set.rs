//! The cluster set, kept current change by change.

use super::{Dirty, Incremental, tell::Parts};
use crate::{derive::Owner, render, set::exported, world::changed};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    Domain, GlobalName, NamespaceName, id::ClusterId, intent::Cluster, inventory::ServiceKey,
    snapshot::Resource,
};

/// What a change touched of the set.
#[derive(Default)]
pub(super) struct DirtySet {
    /// Services to be worked out anew.
    pub(super) services: BTreeSet<ServiceKey>,
    /// Names to be told anew to those who import them.
    pub(super) names: BTreeMap<ServiceKey, BTreeSet<GlobalName>>,
    /// Services whose import is to be told anew.
    imports: BTreeSet<ServiceKey>,
    /// Namespaces that a cluster imports since now, or no more.
    spaces: BTreeSet<(ClusterId, NamespaceName)>,
    /// Whether the members are others.
    domain: bool,
    /// Whether the exporting clusters may be others.
    pub(super) serving: bool,
}

impl Incremental {
    /// Looks anew at what a cluster has to do with the set.
    pub(super) fn rescan_set(&mut self, cluster: ClusterId, dirty: &mut Dirty) {
        let (world, set) = (&self.world, &mut self.derived.set);
        let is = world.is_in_set(cluster);
        let differs = if is { set.members.insert(cluster) } else { set.members.remove(&cluster) };
        if differs {
            dirty.set.domain = true;
            dirty.whole.insert(cluster);
        }
        let before = set.exports.get(&cluster).cloned().unwrap_or_default();
        let after = exported(world, cluster);
        for key in before.symmetric_difference(&after) {
            if after.contains(key) {
                set.add(cluster, key.clone());
            } else {
                set.remove(cluster, key);
            }
            dirty.set.services.insert(key.clone());
        }
        dirty.set.serving |= before.is_empty() != after.is_empty();
    }

    /// A cluster is somewhere else now: who imports its services is to know.
    pub(super) fn moved_in_set(&self, cluster: ClusterId, dirty: &mut Dirty) {
        let set = &self.derived.set;
        for key in set.exports.get(&cluster).into_iter().flatten() {
            let names = set.services.get(key).into_iter().flat_map(|view| view.names.keys().cloned());
            dirty.set.names.entry(key.clone()).or_default().extend(names);
        }
    }

    /// The inventory of a cluster is another one. `flipped` are the namespaces that it imports since now, or no more.
    pub(super) fn inventory_in_set(
        &mut self,
        cluster: ClusterId,
        flipped: BTreeSet<NamespaceName>,
        services: &BTreeSet<ServiceKey>,
        dirty: &mut Dirty,
    ) {
        if !flipped.is_empty() {
            self.rescan_set(cluster, dirty);
            dirty.set.spaces.extend(flipped.into_iter().map(|namespace| (cluster, namespace)));
        }
        let (world, set) = (&self.world, &mut self.derived.set);
        let had = set.exports.contains_key(&cluster);
        for key in services {
            let touched = if world.exports(cluster, key) {
                set.add(cluster, key.clone());
                true
            } else {
                set.remove(cluster, key)
            };
            if touched {
                dirty.set.services.insert(key.clone());
            }
        }
        dirty.set.serving |= had != set.exports.contains_key(&cluster);
    }

    /// Works out one service of the set anew.
    pub(super) fn rework_set(&mut self, key: &ServiceKey, dirty: &mut Dirty) {
        let (old, new) = self.derived.set.rework(&self.world, key);
        let owner = Owner::Set(key.clone());
        for (name, now) in changed(&old.names, &new.names) {
            match now {
                Some(_) => drop(self.derived.owners.insert(name.clone(), owner.clone())),
                None => drop(self.derived.owners.remove(&name)),
            }
            dirty.set.names.entry(key.clone()).or_default().insert(name.clone());
            dirty.touched.insert(name);
        }
        if old.import != new.import {
            dirty.set.imports.insert(key.clone());
        }
    }

    /// What each member is told of the set.
    pub(super) fn tell_set(&self, dirty: &Dirty, parts: &mut Parts) {
        let (world, set) = (&self.world, &self.derived.set);
        let new = &dirty.set;
        let untouched =
            !new.domain && new.names.is_empty() && new.imports.is_empty() && new.spaces.is_empty();
        if untouched {
            return;
        }
        let members = set.members.difference(&dirty.whole).filter_map(|id| world.clusters.get(id));
        for receiver in members {
            if dirty.set.domain {
                let domain = render::set_domain(world, &self.derived);
                parts.entry(receiver.id).or_default().0.insert(domain.key(), domain);
            }
            let here = |key: &ServiceKey| {
                let space = (receiver.id, key.namespace.clone());
                world.imports(receiver.id, &key.namespace) && !dirty.set.spaces.contains(&space)
            };
            for (_, names) in dirty.set.names.iter().filter(|(key, _)| here(key)) {
                names.iter().for_each(|name| self.tell_set_name(receiver, name, true, parts));
            }
            for key in dirty.set.imports.iter().filter(|key| here(key)) {
                self.tell_import(receiver, key, true, parts);
            }
        }
        for (id, namespace) in &dirty.set.spaces {
            let Some(receiver) = world.clusters.get(id) else { continue };
            if dirty.whole.contains(id) || !set.members.contains(id) {
                continue;
            }
            let there = world.imports(*id, namespace);
            for (key, view) in set.in_namespace(namespace) {
                self.tell_import(receiver, key, there, parts);
                view.names.keys().for_each(|name| self.tell_set_name(receiver, name, there, parts));
            }
            // It may have been told of what is no more, too.
            let gone = dirty.set.names.iter().filter(|(key, _)| key.namespace == *namespace);
            for name in gone.flat_map(|(_, names)| names) {
                self.tell_set_name(receiver, name, there, parts);
            }
            for key in dirty.set.imports.iter().filter(|key| key.namespace == *namespace) {
                self.tell_import(receiver, key, there, parts);
            }
        }
    }

    fn tell_set_name(&self, receiver: &Cluster, name: &GlobalName, there: bool, parts: &mut Parts) {
        let (upserts, removes) = parts.entry(receiver.id).or_default();
        let body = self.derived.name(name).filter(|_| there);
        let domain = Domain::cluster_set();
        match body.and_then(|body| render::name(&self.world, &domain, receiver, name, body)) {
            Some(resource) => drop(upserts.insert(resource.key(), resource)),
            None => drop(removes.insert(render::name_key(name))),
        }
    }

    fn tell_import(&self, receiver: &Cluster, key: &ServiceKey, there: bool, parts: &mut Parts) {
        let (upserts, removes) = parts.entry(receiver.id).or_default();
        match render::import(&self.derived, key).filter(|_| there) {
            Some(resource) => drop(upserts.insert(resource.key(), resource)),
            None => drop(removes.insert(render::import_key(key))),
        }
    }
}
