//! From what is dirty to what each receiver is told.

use super::{Affected, ClusterChange, Dirty, Incremental};
use crate::{
    capture::captures,
    derive::{Derived, Owner},
    render,
    world::{World, changed},
};
use std::collections::{BTreeMap, BTreeSet};
use tombolo_model::{
    ClusterName, DnsLabel, Locality,
    id::{ClusterId, GnsId},
    intent::Cluster,
    snapshot::{ClusterResource, Resource, ResourceKey, Resources},
};

/// For each receiver, what is new and what is gone.
pub(super) type Parts = BTreeMap<ClusterId, (Resources<ClusterResource>, BTreeSet<ResourceKey>)>;

/// What receivers in one place are told of a name that none of them serves: the same, made once and held once.
#[derive(Default)]
struct Alike<'a>(BTreeMap<&'a Locality, Option<ClusterResource>>);

impl<'a> Alike<'a> {
    fn at(
        &mut self,
        receiver: &'a Cluster,
        make: impl FnOnce() -> Option<ClusterResource>,
    ) -> Option<ClusterResource> {
        self.0.entry(&receiver.locality).or_insert_with(make).clone()
    }
}

impl Incremental {
    /// Works out what is dirty, and what each receiver is told.
    pub(super) fn finish(&mut self, mut dirty: Dirty) -> Affected {
        for (id, label) in std::mem::take(&mut dirty.services) {
            self.rework(id, &label, &mut dirty);
        }
        for key in std::mem::take(&mut dirty.set.services) {
            self.rework_set(&key, &mut dirty);
        }
        if dirty.bundle {
            self.bundle = render::bundle(&self.world);
        }
        let mut parts: Parts = BTreeMap::new();
        let world = &self.world;
        for id in &dirty.gone {
            self.peers.remove(id);
            self.captures.remove(id);
        }
        for (id, names) in &dirty.names {
            let (Some(gns), Some(state)) = (world.gns.get(id), self.derived.gns.get(id)) else { continue };
            let receivers: Vec<&Cluster> =
                state.members.difference(&dirty.whole).filter_map(|id| world.clusters.get(id)).collect();
            for name in names {
                let (key, body) = (render::name_key(name), self.derived.name(name));
                let mut alike = Alike::default();
                for receiver in &receivers {
                    let (upserts, removes) = parts.entry(receiver.id).or_default();
                    let told = body.and_then(|body| {
                        let make = || render::name(world, &gns.domain, receiver, name, body);
                        if body.targets.contains_key(&receiver.id) {
                            make()
                        } else {
                            alike.at(receiver, make)
                        }
                    });
                    match told {
                        Some(resource) => drop(upserts.insert(key.clone(), resource)),
                        None => drop(removes.insert(key.clone())),
                    }
                }
            }
        }
        for id in &dirty.domains {
            let Some(state) = self.derived.gns.get(id) else { continue };
            let Some(resource) = render::domain(world, &self.derived, *id) else { continue };
            for receiver in state.members.difference(&dirty.whole) {
                parts.entry(*receiver).or_default().0.insert(resource.key(), resource.clone());
            }
        }
        if dirty.bundle {
            let resource = &self.bundle;
            for receiver in world.clusters.keys().filter(|id| !dirty.whole.contains(id)) {
                parts.entry(*receiver).or_default().0.insert(resource.key(), resource.clone());
            }
        }
        for receiver in dirty.installs.difference(&dirty.whole).filter_map(|id| world.clusters.get(id)) {
            let (upserts, removes) = parts.entry(receiver.id).or_default();
            let both = [
                (render::install(receiver), render::install_key()),
                (render::trial(receiver), render::trial_key()),
            ];
            for (resource, key) in both {
                match resource {
                    Some(resource) => drop(upserts.insert(key, resource)),
                    None => drop(removes.insert(key)),
                }
            }
        }
        self.tell_set(&dirty, &mut parts);
        self.tell_peers(&dirty, &mut parts);
        self.tell_captures(&dirty, &mut parts);

        let mut affected = Affected { standing: dirty.standing || dirty.bundle, ..Affected::default() };
        for id in &dirty.whole {
            affected.clusters.insert(*id, ClusterChange::Whole(self.snapshot(*id)));
        }
        for (id, (upserts, removes)) in parts {
            if !upserts.is_empty() || !removes.is_empty() {
                affected.clusters.insert(id, ClusterChange::Parts { upserts, removes });
            }
        }
        affected.clusters.extend(dirty.gone.iter().map(|id| (*id, ClusterChange::Gone)));
        for name in dirty.touched {
            match (self.derived.owners.contains_key(&name), self.world.vips.contains_key(&name)) {
                (true, false) => drop(affected.needed.insert(name)),
                (false, true) => drop(affected.released.insert(name)),
                _ => {}
            }
        }
        affected
    }

    /// Works out one service anew.
    fn rework(&mut self, id: GnsId, label: &DnsLabel, dirty: &mut Dirty) {
        let (Some(gns), Some(state)) = (self.world.gns.get(&id), self.derived.gns.get_mut(&id)) else {
            return;
        };
        let view = state.view(&self.world, gns, label);
        let old = state.services.remove(label).unwrap_or_default();
        for (name, now) in changed(&old.names, &view.names) {
            let owner = Owner::Gns(id, label.clone());
            match now {
                Some(_) => drop(self.derived.owners.insert(name.clone(), owner)),
                // A pod's name may have become another service's name in its cluster, in this same step.
                None if self.derived.owners.get(&name) == Some(&owner) => {
                    self.derived.owners.remove(&name);
                }
                None => {}
            }
            dirty.names.entry(id).or_default().insert(name.clone());
            dirty.touched.insert(name);
        }
        if state.sources.contains_key(label) {
            state.services.insert(label.clone(), view);
        }
    }

    /// Tells of namespaces that have another capture mode, or have one no more.
    fn tell_captures(&mut self, dirty: &Dirty, parts: &mut Parts) {
        if dirty.captures.is_empty() && dirty.whole.is_empty() {
            return;
        }
        let active = self.derived.active();
        let clusters = dirty.captures.union(&dirty.whole).filter(|id| self.world.clusters.contains_key(id));
        for id in clusters {
            let now = captures(&self.world, &active, *id);
            let was = self.captures.insert(*id, now.clone()).unwrap_or_default();
            if dirty.whole.contains(id) {
                continue;
            }
            for (namespace, capture) in changed(&was, &now) {
                let (upserts, removes) = parts.entry(*id).or_default();
                let key = render::capture_key(&namespace);
                match capture {
                    Some(capture) => drop(upserts.insert(key, ClusterResource::Capture(capture.into()))),
                    None => drop(removes.insert(key)),
                }
            }
        }
    }

    /// Tells of peers that came, went, or are different.
    fn tell_peers(&mut self, dirty: &Dirty, parts: &mut Parts) {
        let members = dirty.serving.iter().filter_map(|id| self.derived.gns.get(id)).flat_map(|s| &s.members);
        let set = dirty.set.serving.then_some(&self.derived.set.members);
        let recount: BTreeSet<ClusterId> =
            members.chain(set.into_iter().flatten()).copied().chain(dirty.whole.iter().copied()).collect();
        let mut gone: BTreeMap<ClusterId, BTreeSet<ClusterName>> = BTreeMap::new();
        let mut told: BTreeMap<ClusterId, BTreeSet<ClusterId>> = BTreeMap::new();
        for id in recount {
            let now = named_peers(&self.world, &self.derived, id);
            let was = self.peers.insert(id, now.clone()).unwrap_or_default();
            gone.insert(id, was.difference(&now).map(|(_, name)| name.clone()).collect());
            told.insert(id, now.difference(&was).map(|(id, _)| *id).collect());
        }
        let differ: Vec<(ClusterId, ClusterName)> = dirty
            .peers
            .iter()
            .filter_map(|id| Some((*id, self.world.clusters.get(id)?.name.clone())))
            .collect();
        // most changes are none of a peer: those look at nobody
        for (id, peers) in self.peers.iter().filter(|_| !differ.is_empty()) {
            let mine: Vec<ClusterId> =
                differ.iter().filter(|peer| peers.contains(*peer)).map(|(id, _)| *id).collect();
            if !mine.is_empty() {
                told.entry(*id).or_default().extend(mine);
            }
        }
        let receivers: BTreeSet<ClusterId> = gone.keys().chain(told.keys()).copied().collect();
        for receiver in receivers.difference(&dirty.whole).filter_map(|id| self.world.clusters.get(id)) {
            for name in gone.get(&receiver.id).into_iter().flatten() {
                let key = ResourceKey::new("peer", name.as_str());
                parts.entry(receiver.id).or_default().1.insert(key);
            }
            for other in told.get(&receiver.id).into_iter().flatten() {
                if let Some(peer) = render::peer(&self.world, receiver, *other) {
                    let (upserts, removes) = parts.entry(receiver.id).or_default();
                    removes.remove(&peer.key());
                    upserts.insert(peer.key(), peer);
                }
            }
        }
    }
}

/// The peers of a cluster, and what they are called.
pub(super) fn named_peers(
    world: &World,
    derived: &Derived,
    id: ClusterId,
) -> BTreeSet<(ClusterId, ClusterName)> {
    let peers = derived.peers(id).into_iter();
    peers.filter_map(|peer| Some((peer, world.clusters.get(&peer)?.name.clone()))).collect()
}
