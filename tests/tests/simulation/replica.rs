//! A replica of the controller: what it holds of every organization, and how it follows the database.

use crate::{database::Database, dice::Dice};
use tombolo_controller::publish::{Settle, View};
use tombolo_model::{Generation, id::OrgId};

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
}
