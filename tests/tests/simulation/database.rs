//! PostgreSQL, as far as the control path sees it: one organization's rows, each commit a generation. What is decided about them is decided by
//! the true program (`sequence::plan`, `Settle::released_at`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tombolo_agent::report::Outcome;
use tombolo_compile::{World, names_needed};
use tombolo_controller::{
    publish::Settle,
    sequence::{Mark, Plan, plan},
};
use tombolo_model::{
    Generation, GlobalName,
    id::ClusterId,
    intent::Cluster,
    inventory::Inventory,
    snapshot::{CaFingerprint, Vip},
};
use tombolo_wire::message::InventoryUpdate;

pub(crate) struct Database {
    /// The first has generation 1.
    versions: Vec<Arc<World>>,
    /// What was reported, of clusters that are out, too.
    reported: BTreeMap<ClusterId, Inventory>,
    marks: BTreeMap<ClusterId, Mark>,
    /// Clusters that were taken out.
    out: BTreeMap<ClusterId, Cluster>,
    /// For life.
    indexes: BTreeMap<GlobalName, u8>,
}

impl Database {
    pub(crate) fn new(world: World) -> Self {
        Self {
            versions: vec![Arc::new(world)],
            reported: BTreeMap::new(),
            marks: BTreeMap::new(),
            out: BTreeMap::new(),
            indexes: BTreeMap::new(),
        }
    }

    pub(crate) fn generation(&self) -> Generation {
        Generation::new(u64::try_from(self.versions.len()).unwrap())
    }

    pub(crate) fn world(&self) -> &Arc<World> {
        self.versions.last().unwrap()
    }

    /// What was stored at a generation; nothing at one that there never was.
    pub(crate) fn at(&self, generation: Generation) -> Option<&Arc<World>> {
        self.versions.get(usize::try_from(generation.get().checked_sub(1)?).unwrap())
    }

    pub(crate) fn is_out(&self, cluster: ClusterId) -> bool {
        self.out.contains_key(&cluster)
    }

    /// Whether somebody with this intermediate stands.
    fn stands(&self, cluster: ClusterId, with: &CaFingerprint) -> bool {
        self.world().clusters.get(&cluster).is_some_and(|cluster| cluster.intermediates.contains(with))
    }

    /// A transaction. One that changes nothing takes no generation.
    pub(crate) fn write(&mut self, change: impl FnOnce(&mut World)) {
        let before = Arc::clone(self.world());
        let mut world = World::clone(&before);
        change(&mut world);
        if world == *before {
            return;
        }
        let (lived, lives) = (names_needed(&before), names_needed(&world));
        for name in lived.intersection(&lives) {
            let (had, has) = (before.vips.get(name), world.vips.get(name));
            assert!(
                had.is_none() || had == has,
                "the virtual IP of {name}, which lives, was {had:?} and is {has:?}"
            );
        }
        self.versions.push(Arc::new(world));
    }

    /// An agent says what runs there.
    pub(crate) fn inventory(
        &mut self,
        cluster: ClusterId,
        with: &CaFingerprint,
        update: &InventoryUpdate,
    ) -> Outcome {
        if !self.stands(cluster, with) {
            return Outcome::Refused;
        }
        let sequence = i64::try_from(update.sequence).unwrap();
        match plan(self.marks.get(&cluster), &update.epoch, sequence, update.whole) {
            Plan::Known => return Outcome::Stored,
            Plan::Resend => return Outcome::Conflict,
            Plan::Store => {}
        }
        let mut all = self.reported.get(&cluster).cloned().unwrap_or_default();
        if update.whole {
            all = Inventory::default();
        }
        all.namespaces.extend(update.namespaces.clone());
        all.services.extend(update.services.clone());
        all.namespaces.retain(|name, _| !update.removed_namespaces.contains(name));
        all.services.retain(|key, _| !update.removed_services.contains(key));
        self.reported.insert(cluster, all.clone());
        self.marks.insert(cluster, Mark { epoch: update.epoch.clone(), sequence });
        self.write(|world| drop(world.inventories.insert(cluster, all)));
        Outcome::Stored
    }

    /// An agent says where its ingress gateways are.
    pub(crate) fn ingress(&mut self, cluster: ClusterId, with: &CaFingerprint, told: BTreeSet<String>) {
        if self.stands(cluster, with) {
            self.write(|world| {
                world.clusters.entry(cluster).and_modify(|cluster| cluster.ingress = told);
            });
        }
    }

    pub(crate) fn stored_ingress(&self, cluster: ClusterId) -> BTreeSet<String> {
        self.world().clusters.get(&cluster).map(|cluster| cluster.ingress.clone()).unwrap_or_default()
    }

    /// Gives and takes virtual IPs, as a replica worked out that it is needed.
    pub(crate) fn settle(&mut self, settle: &Settle) {
        let now = self.generation();
        let indexes = &mut self.indexes;
        let mut vips: BTreeMap<GlobalName, Option<Vip>> = BTreeMap::new();
        for name in &settle.needed {
            let next = u8::try_from(indexes.len() + 1).unwrap();
            let index = *indexes.entry(name.clone()).or_insert(next);
            let v6 = format!("fd74:6f6d:6265:6c6f::{index:x}").parse().unwrap();
            vips.insert(name.clone(), Some(Vip { v4: [240, 0, 0, index].into(), v6 }));
        }
        for name in settle.released_at(now).into_iter().flatten() {
            vips.insert(name.clone(), None);
        }
        self.write(|world| {
            for (name, vip) in vips {
                match vip {
                    Some(vip) => drop(world.vips.insert(name, vip)),
                    None => drop(world.vips.remove(&name)),
                }
            }
        });
    }

    /// A cluster is taken out: its row stays, and what it reported.
    pub(crate) fn revoke(&mut self, id: ClusterId) {
        let Some(cluster) = self.world().clusters.get(&id).cloned() else { return };
        self.out.insert(id, cluster);
        self.write(|world| {
            world.clusters.remove(&id);
            world.inventories.remove(&id);
        });
    }

    /// It joins again: what was reported before stays until the newcomer reports.
    pub(crate) fn rejoin(&mut self, id: ClusterId, with: CaFingerprint) {
        let Some(mut cluster) = self.out.remove(&id) else { return };
        cluster.intermediates = [with].into();
        self.marks.remove(&id);
        let reported = self.reported.get(&id).cloned();
        self.write(|world| {
            world.clusters.insert(id, cluster);
            world.inventories.extend(reported.map(|reported| (id, reported)));
        });
    }
}
