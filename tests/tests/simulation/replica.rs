//! A replica of the controller: what it holds of every organization, and how it follows the database.

use crate::{database::Database, dice::Dice, process::same};
use tombolo_compile::{names_needed, snapshot};
use tombolo_controller::publish::{Settle, View};
use tombolo_model::{
    Generation,
    id::{ClusterId, OrgId},
};
use tombolo_mtls::Peer;

pub(crate) struct Replica {
    pub(crate) view: View,
    /// It is a process: with its life its feeds end.
    pub(crate) life: usize,
    /// What it worked out and did not tell the database yet.
    pub(crate) settles: Vec<Option<Settle>>,
}

impl Replica {
    pub(crate) fn new(tenants: usize) -> Self {
        Self { view: View::new(), life: 0, settles: vec![None; tenants] }
    }

    pub(crate) fn generation(&self, org: OrgId) -> Generation {
        self.view.state(org).map_or(Generation::ZERO, |state| state.generation)
    }

    /// Reads what is newer than what it holds: what changed, or (where the log of changes does not go back so far) everything.
    pub(crate) fn catch_up(&mut self, tenant: usize, database: &Database, dice: &mut Dice) {
        let world = database.world();
        let (org, newest) = (world.organization.id, database.generation());
        let held = self.generation(org);
        if held < newest {
            match database.at(held).filter(|_| dice.chance(80)) {
                Some(before) => self.view.apply(org, before.changes_to(world), newest).unwrap(),
                None => self.view.put((**world).clone(), newest).unwrap(),
            };
        }
        self.settles[tenant] = self.view.settle(org);
    }

    /// What it got to change by change is what follows from what was stored at its generation: who of these stands; and, where it is looked
    /// at as a whole, what clusters are told, and which names want or have virtual IPs.
    pub(crate) fn holds(
        &self,
        database: &Database,
        peers: impl Iterator<Item = (ClusterId, Peer)>,
        whole: bool,
    ) {
        let org = database.world().organization.id;
        let Some(state) = self.view.state(org) else { return };
        let generation = state.generation;
        let world = database.at(generation).expect("a generation that was");
        for (id, peer) in peers {
            let stood =
                world.clusters.get(&id).is_some_and(|found| found.intermediates.contains(&peer.intermediate));
            assert_eq!(
                state.stands(&peer),
                stood.then_some(id),
                "whether {} with {:?} stands at generation {generation}",
                peer.id,
                peer.intermediate
            );
        }
        if !whole {
            return;
        }
        self.view.with(org, |compiled, _| {
            for id in world.clusters.keys() {
                same(&compiled.snapshot(*id), &snapshot(world, *id), || {
                    format!("compiled for {id} at generation {generation}")
                });
            }
        });
        let names = names_needed(world);
        let settle = self.view.settle(org).unwrap_or_default();
        let needed = names.iter().filter(|name| !world.vips.contains_key(*name));
        let released = world.vips.keys().filter(|name| !names.contains(*name));
        assert!(needed.eq(&settle.needed), "who wants a virtual IP at generation {generation}: {settle:?}");
        assert!(released.eq(&settle.released), "whose is to be taken at generation {generation}: {settle:?}");
    }
}
