//! The same work in steps: what a change does not touch is not worked out again.

use super::{
    Gateways, Local, Sidecars, Snapshot, Synthesis, inventory::Reported, node, route, synthesize, workloads,
};
use crate::{
    expose::Exposed,
    health::Results,
    index::{LocalService, View},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};
use tombolo_feed::State;
use tombolo_model::{
    Few, Generation, GlobalName,
    inventory::{Inventory, ServiceKey},
    snapshot::{ClusterResource, GatewayResource, NameSpec, Resource, ResourceKey, Resources},
};
use tombolo_wire::message::Problem;

/// What may be different from the step before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Anything.
    Everything,
    /// What stands, or stood, under these keys.
    Keys(BTreeSet<ResourceKey>),
}

/// What the last step was made of.
#[derive(Debug)]
struct Seen {
    generation: Generation,
    view: Arc<View>,
    passing: Arc<Results>,
    gateways: Gateways,
    exposed: Arc<Exposed>,
    sidecars: Arc<Sidecars>,
}

/// Works out what the gateways are told, step by step.
#[derive(Debug, Default)]
pub struct Synthesizer {
    synthesis: Synthesis,
    seen: Option<Seen>,
    /// The names (keys of the controller's snapshot) that a service of this cluster stands behind, or once did.
    names_of: BTreeMap<ServiceKey, Few<ResourceKey>>,
    reported: Reported,
}

impl Synthesizer {
    /// What was worked out last.
    #[must_use]
    pub const fn synthesis(&self) -> &Synthesis {
        &self.synthesis
    }

    /// What the cluster reports to the controller, and what of it was left out. What is ended takes no calls, whatever it serves still.
    pub fn report(&mut self, local: Local<'_>, takes_calls: bool) -> (Arc<Inventory>, Option<Problem>) {
        let sidecars = self.sidecars(local);
        self.reported.next(local, &sidecars, takes_calls)
    }

    /// Takes the next step; none before the first snapshot.
    pub fn step(&mut self, state: &State<ClusterResource>, local: Local<'_>) -> Option<Changed> {
        let snapshot = Snapshot::of(&state.resources)?;
        let sidecars = self.sidecars(local);
        let changed = match self.touched(state, local, &sidecars) {
            Some(names) => self.redo(&snapshot, state, names, local, &sidecars),
            None => {
                self.synthesis = synthesize(&state.resources, local)?;
                self.names_of.clear();
                for (key, resource) in state.resources.iter() {
                    if let ClusterResource::Name(name) = resource {
                        self.remember(&snapshot, key, name);
                    }
                }
                Changed::Everything
            }
        };
        self.seen = Some(Seen {
            generation: state.generation,
            view: Arc::clone(local.view),
            passing: Arc::clone(local.passing),
            gateways: local.gateways.clone(),
            exposed: Arc::clone(local.exposed),
            sidecars,
        });
        Some(changed)
    }

    /// Who stands before which address: as in the last step where nothing changed that it depends on.
    fn sidecars(&self, local: Local<'_>) -> Arc<Sidecars> {
        let same = |seen: &&Seen| {
            seen.gateways == *local.gateways
                && Arc::ptr_eq(&seen.view.pods, &local.view.pods)
                && seen.view.namespaces == local.view.namespaces
                && seen.view.capture == local.view.capture
        };
        self.seen.as_ref().filter(same).map_or_else(
            || Arc::new(Sidecars::of(local.gateways, local.view)),
            |seen| Arc::clone(&seen.sidecars),
        )
    }

    /// The names that have to be worked out again; none where anything may be different.
    fn touched(
        &self,
        state: &State<ClusterResource>,
        local: Local<'_>,
        sidecars: &Sidecars,
    ) -> Option<BTreeSet<ResourceKey>> {
        let seen = self.seen.as_ref()?;
        let mut names = BTreeSet::new();
        if state.generation != seen.generation {
            if state.previous != seen.generation {
                return None;
            }
            for key in state.changes.upserted.iter().chain(&state.changes.removed) {
                match key.kind() {
                    "name" => names.insert(key.clone()),
                    // These are taken over as they are.
                    "peer" | "bundle" => true,
                    // No gateway is told of these; which pods are captured, the view says.
                    "import" | "capture" => true,
                    _ => return None,
                };
            }
        }
        if *local.gateways != seen.gateways {
            return None;
        }
        if !Arc::ptr_eq(&seen.exposed, local.exposed) {
            let (before, now) = (&*seen.exposed, &**local.exposed);
            let ports = |exposed: &Exposed, name: &GlobalName| {
                exposed.get(name).map(|exposure| exposure.ports.clone())
            };
            let differs = |name: &&GlobalName| ports(before, name) != ports(now, name);
            let changed = before.keys().chain(now.keys()).filter(differs);
            names.extend(changed.map(|name| ResourceKey::of_name("name", name)));
        }
        for service in self.services(seen, local, sidecars) {
            names.extend(self.names_of.get(service).into_iter().flatten().cloned());
        }
        Some(names)
    }

    /// The services of this cluster that are different, or whose endpoints pass or fail now.
    fn services<'a>(
        &self,
        seen: &'a Seen,
        local: Local<'a>,
        sidecars: &Sidecars,
    ) -> BTreeSet<&'a ServiceKey> {
        let mut services = BTreeSet::new();
        let (old, new) = (&seen.view.services, &local.view.services);
        if !Arc::ptr_eq(&seen.view, local.view) {
            let same = |a: &Arc<LocalService>, b: &Arc<LocalService>| Arc::ptr_eq(a, b) || a == b;
            let differs = |key: &ServiceKey| match (old.get(key), new.get(key)) {
                (Some(a), Some(b)) => !same(a, b),
                _ => true,
            };
            services.extend(old.keys().chain(new.keys()).filter(|key| differs(key)));
        }
        if !Arc::ptr_eq(&seen.passing, local.passing) {
            let (before, now) = (&*seen.passing, &**local.passing);
            let flapped: BTreeSet<SocketAddr> = before
                .keys()
                .chain(now.keys())
                .filter(|probe| before.get(*probe) != now.get(*probe))
                .map(|probe| probe.address)
                .collect();
            let has = |service: &LocalService| {
                service
                    .ports
                    .iter()
                    .flat_map(|port| port.endpoints.keys())
                    .any(|at| flapped.contains(&at.socket()))
            };
            services.extend(new.iter().filter(|(_, service)| has(service)).map(|(key, _)| key));
        }
        if *seen.sidecars != *sidecars {
            let moved = |address| seen.sidecars.before(address) != sidecars.before(address);
            let has = |service: &LocalService| service.endpoints.keys().any(|address| moved(*address));
            services.extend(new.iter().filter(|(_, service)| has(service)).map(|(key, _)| key));
        }
        services
    }

    fn redo(
        &mut self,
        snapshot: &Snapshot<'_>,
        state: &State<ClusterResource>,
        names: BTreeSet<ResourceKey>,
        local: Local<'_>,
        sidecars: &Arc<Sidecars>,
    ) -> Changed {
        let mut keys = BTreeSet::new();
        let mut part = Synthesis::default();
        let (members, mut known) = (snapshot.members(), route::Known::default());
        for key in names {
            keys.extend([key.beside("route"), key.beside("export")]);
            if let Some(ClusterResource::Name(name)) = state.resources.get(&key) {
                part.name(snapshot, name, &members, local, sidecars, &mut known);
                self.remember(snapshot, &key, name);
            }
        }
        if self.seen.as_ref().is_some_and(|seen| seen.generation != state.generation) {
            for key in state.changes.upserted.iter().chain(&state.changes.removed) {
                match state.resources.get(key) {
                    Some(ClusterResource::Peer(peer)) => part.put(GatewayResource::Peer(peer.clone())),
                    Some(ClusterResource::Bundle(bundle)) => {
                        part.put(GatewayResource::Bundle(bundle.clone()))
                    }
                    Some(_) => continue,
                    None if key.kind() == "peer" => {}
                    None => continue,
                }
                keys.insert(key.clone());
            }
        }
        if self.seen.as_ref().is_some_and(|seen| seen.view.workloads != local.view.workloads) {
            let new: Resources<GatewayResource> =
                workloads(snapshot.itself, local.view).map(|resource| (resource.key(), resource)).collect();
            keys.extend(self.synthesis.resources.keys().filter(|key| is_workload(key)).cloned());
            keys.extend(new.keys().cloned());
            part.resources.extend(new);
        }
        let mut moved = BTreeSet::new();
        if self.seen.as_ref().is_some_and(|seen| !Arc::ptr_eq(&seen.sidecars, sidecars)) {
            let new = node::workloads(snapshot.itself, local.view, local.gateways);
            moved = node::differing(&self.synthesis.nodes, &new);
            self.synthesis.nodes = new;
        }
        let Changed::Keys(mut changed) = self.merge(keys, part) else { return Changed::Everything };
        changed.append(&mut moved);
        Changed::Keys(changed)
    }

    /// Puts `part` in the place of what stood under `keys`; gives the keys under which it is different.
    fn merge(&mut self, keys: BTreeSet<ResourceKey>, mut part: Synthesis) -> Changed {
        let mut changed = BTreeSet::new();
        for key in keys {
            match part.problems.remove(&key) {
                Some(problem) => self.synthesis.problems.insert(key.clone(), problem),
                None => self.synthesis.problems.remove(&key),
            };
            let old = self.synthesis.resources.get(&key);
            match part.resources.remove(&key) {
                new if new.as_ref() == old => continue,
                Some(new) => self.synthesis.resources.insert(key.clone(), new),
                None => self.synthesis.resources.remove(&key),
            };
            changed.insert(key);
        }
        Changed::Keys(changed)
    }

    fn remember(&mut self, snapshot: &Snapshot<'_>, key: &ResourceKey, name: &NameSpec) {
        let own = name.targets.iter().filter(|target| target.cluster == snapshot.itself.cluster);
        for service in own.flat_map(|target| &target.services) {
            self.names_of.entry(service.clone()).or_default().insert(key.clone());
        }
    }
}

fn is_workload(key: &ResourceKey) -> bool {
    key.kind() == "workload"
}
