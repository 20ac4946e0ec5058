//! The process of an agent.

use crate::network::Pipe;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tombolo_agent::{
    ages::Ages,
    dns,
    engine::{Engine, Inputs, Outputs, Source},
    gateways::Hub,
    health::Results,
    index::{Probe, View},
    report::{Outcome, Reporter},
    synthesis::{Local, Synthesis, synthesize},
    vip::AddressMode,
};
use tombolo_controller::publish::{FeedGuard, Telling};
use tombolo_feed::{Follower, State};
use tombolo_model::{
    Generation,
    inventory::Inventory,
    snapshot::{ClusterResource, Resources},
};
use tombolo_wire::message::InventoryUpdate;

/// A feed from a replica of the controller, in its life of that time.
pub(crate) struct Link {
    pub(crate) replica: (usize, usize),
    pub(crate) guard: FeedGuard,
    pub(crate) telling: Telling,
    pub(crate) pipe: Pipe,
}

/// A request on its way there, or its answer on its way back.
pub(crate) enum Flight {
    Going(Arc<InventoryUpdate>),
    Coming(Outcome),
}

/// The process.
pub(crate) struct Process {
    pub(crate) follower: Follower<ClusterResource>,
    pub(crate) states: watch::Sender<Arc<State<ClusterResource>>>,
    pub(crate) sources: watch::Sender<Source>,
    pub(crate) results: watch::Sender<Arc<Results>>,
    pub(crate) targets: watch::Receiver<BTreeSet<Probe>>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) engine: Engine,
    pub(crate) inputs: Inputs,
    pub(crate) outputs: Outputs,
    pub(crate) inventory: watch::Receiver<Option<Arc<Inventory>>>,
    pub(crate) reporter: Reporter,
    pub(crate) link: Option<Link>,
    pub(crate) flight: Option<Flight>,
    pub(crate) began: Instant,
    /// Whether it has neither a snapshot nor the whole set of gateways from before: then it is as on the first day.
    pub(crate) blind: bool,
    /// How long it has run.
    pub(crate) age: Duration,
}

impl Process {
    pub(crate) fn now(&self) -> Instant {
        self.began + self.age
    }

    pub(crate) fn generation(&self) -> Generation {
        self.follower.generation()
    }

    pub(crate) fn cut(&mut self, strays: &mut Vec<Arc<InventoryUpdate>>, may_arrive: bool) {
        self.link = None;
        self.lose(strays, may_arrive);
    }

    /// A request is lost, or its answer. It may arrive all the same, at any time later.
    pub(crate) fn lose(&mut self, strays: &mut Vec<Arc<InventoryUpdate>>, may_arrive: bool) {
        match self.flight.take() {
            None => return,
            Some(Flight::Going(update)) if may_arrive => strays.push(update),
            Some(Flight::Going(_) | Flight::Coming(_)) => {}
        }
        self.reporter.outcome(Outcome::Lost);
    }

    /// It reads what runs in the cluster.
    pub(crate) fn read(&self, view: &Arc<View>) {
        self.sources.send_replace(Some(Arc::clone(view)));
    }

    /// Endpoints are checked: those that are there answer.
    pub(crate) fn check(&self) {
        let found: Results = self.targets.borrow().iter().map(|probe| (probe.clone(), true)).collect();
        self.results.send_replace(Arc::new(found));
    }

    /// It works out what follows. What the gateways may be told from now on, worked out at once and from the beginning.
    pub(crate) fn turn(&mut self) -> Option<Synthesis> {
        let now = self.now();
        self.engine.turn(&mut self.inputs, &self.outputs, now);
        let state = Arc::clone(&self.states.borrow());
        if state.generation > Generation::ZERO {
            // whatever else is not known yet; a later generation with the same names may be answered under the number of the one before
            let answered = self.outputs.zone.reader().get().expect("a zone, once there is a state");
            assert!(
                answered.generation() <= state.generation,
                "{answered:?}, where {} is in force",
                state.generation
            );
            let zone = dns::build(&state.resources, answered.generation(), &AddressMode::Allocated, None);
            assert_eq!(*answered, zone, "what is answered is what is in force");
        }
        let view = self.sources.borrow().clone()?;
        self.inventory.borrow().as_ref()?;
        let passing = Arc::clone(&self.results.borrow());
        let local = Local {
            view: &view,
            ages: &Ages::new(),
            passing: &passing,
            gateways: &self.hub.gateways(),
            mode: AddressMode::Allocated,
            exposed: &Arc::default(),
        };
        synthesize(&state.resources, local)
    }
}

/// Two states are one.
pub(crate) fn same<R: PartialEq + std::fmt::Debug>(
    found: &Resources<R>,
    wanted: &Resources<R>,
    whose: impl Fn() -> String,
) {
    if found == wanted {
        return;
    }
    let keys: BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
    for key in keys.into_iter().filter(|key| found.get(*key) != wanted.get(*key)) {
        eprintln!("{key}:\n  there is   {:?}\n  should be  {:?}", found.get(key), wanted.get(key));
    }
    panic!("not what it should be: {}", whose());
}
