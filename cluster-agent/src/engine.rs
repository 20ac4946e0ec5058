//! Brings together what the agent knows (the controller's snapshot, what runs here, which endpoints pass, the
//! gateways) and, at every change, works out what follows: the DNS zone, the inventory, the gateways' states.
//!
//! A process that just started knows little. What it does not know yet it does not withdraw: the zone comes from the
//! snapshot kept on disk at once, everything else waits until the manifests were read and every endpoint was checked
//! once, or a few seconds passed; and where the set of gateways is lost, a few seconds for them to come, for without
//! their sidecars the endpoints here would look as if they had none.

use crate::{
    ages::Register,
    certificate,
    chosen::Chosen,
    dns::{self, ZoneWriter},
    expose::Exposed,
    gateways::Hub,
    health::{Checks, Results},
    index::View,
    install::is_removed,
    readiness,
    state::DataDir,
    synthesis::{Local, Synthesizer},
    vip::AddressMode,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tombolo_feed::State;
use tombolo_model::{Generation, inventory::Inventory, snapshot::ClusterResource};
use tombolo_runtime::clock::Clock;
use tombolo_wire::message::Problem;

/// How long endpoints that were never checked are waited for, and gateways that may have been there before.
const FIRST_CHECKS: Duration = Duration::from_secs(3);

/// What runs here, and what is wrong with its description. None until it was read.
pub type Source = Option<Arc<View>>;

/// What the engine reads.
#[derive(Debug)]
pub struct Inputs {
    /// The controller's snapshot.
    pub snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    /// What runs here.
    pub source: watch::Receiver<Source>,
    /// Which endpoints pass.
    pub checks: Checks,
    /// The gateways.
    pub hub: Arc<Hub>,
    /// How VIPs are written here.
    pub mode: AddressMode,
    /// The names that are exposed; none in other modes than `gateway`.
    pub exposed: watch::Receiver<Option<Arc<Exposed>>>,
    /// For the ages of services.
    pub clock: Arc<dyn Clock>,
}

/// What the engine writes; the gateways' states go to the hub.
#[derive(Debug)]
pub struct Outputs {
    /// The zone.
    pub zone: ZoneWriter,
    /// What the cluster reports. None until it is known.
    pub inventory: watch::Sender<Option<Arc<Inventory>>>,
    /// What of the inventory was left out, and names that can't be answered here.
    pub problems: watch::Sender<Vec<Problem>>,
}

/// What a zone was made of, or would be made of the same.
type ZoneOf = (Arc<State<ClusterResource>>, Option<Arc<Exposed>>);

/// Works out what follows from what is read, step by step and without waiting: [`run`] says when, and so does the
/// simulation (`tests/tests/simulation`).
#[derive(Debug)]
pub struct Engine {
    ages: Register,
    /// Whether it began with a snapshot from before.
    resumed: Option<bool>,
    zone_of: Option<ZoneOf>,
    /// Until when the first results of the checks are waited for.
    deadline: Option<Instant>,
    synthesizer: Synthesizer,
    chosen: Chosen,
}

impl Engine {
    /// One that has worked out nothing yet; what is kept of services is in `data`.
    #[must_use]
    pub fn new(data: DataDir) -> Self {
        Self {
            ages: Register::open(data),
            resumed: None,
            zone_of: None,
            deadline: None,
            synthesizer: Synthesizer::default(),
            chosen: Chosen::default(),
        }
    }

    /// Reads everything anew and works out what follows. It is to be called again when an input changes; at the latest at
    /// the time it gives.
    pub fn turn(&mut self, inputs: &mut Inputs, outputs: &Outputs, now: Instant) -> Option<Instant> {
        let snapshot = Arc::clone(&inputs.snapshot.borrow_and_update());
        let source = inputs.source.borrow_and_update().clone();
        let results = Arc::clone(&inputs.checks.results.borrow_and_update());
        let exposed = inputs.exposed.borrow_and_update().clone();
        let removed = is_removed(&snapshot.resources);
        let ending = inputs.hub.ending(removed, now);
        let mut wait = ending.map(|(until, _)| until);
        // on the first day nobody was there before
        let resumed = *self.resumed.get_or_insert(snapshot.generation != Generation::ZERO);
        // before anybody said which namespaces take part, none is told of
        let source = source.filter(|_| snapshot.generation != Generation::ZERO);
        let takes_part = |view| match ending {
            Some(_) => self.chosen.ending(view, &snapshot.resources),
            None => self.chosen.of(view, &snapshot.resources),
        };
        if let Some(view) = source.map(takes_part) {
            let probes = view.probes();
            let checked = probes.iter().all(|probe| results.contains_key(probe));
            let known = checked && !(resumed && inputs.hub.forgot(now));
            inputs.checks.targets.send_if_modified(|targets| {
                let differs = *targets != probes;
                if differs {
                    *targets = probes;
                }
                differs
            });
            let deadline = *self.deadline.get_or_insert(now + FIRST_CHECKS);
            // Once we report, an endpoint that is new is simply not ready until it was checked.
            let reported = outputs.inventory.borrow().is_some();
            if known || reported || now >= deadline {
                let local = (&view, &results, &exposed.clone().unwrap_or_default());
                let takes_calls = ending.is_none();
                settle(inputs, outputs, &snapshot, local, takes_calls, &mut self.ages, &mut self.synthesizer);
            } else {
                wait = Some(deadline);
            }
        }
        // After the gateways: an address that is answered should lead somewhere.
        let same = |(of, with): &ZoneOf| *with == exposed && readiness::at_most(of, &snapshot);
        if snapshot.generation != Generation::ZERO {
            if !self.zone_of.as_ref().is_some_and(same) {
                let (mode, generation) = (&inputs.mode, snapshot.generation);
                outputs.zone.set(dns::build(&snapshot.resources, generation, mode, exposed.as_deref()));
            }
            self.zone_of = Some((snapshot, exposed));
        }
        wait
    }
}

/// Runs for as long as it is polled.
pub(crate) async fn run(mut inputs: Inputs, outputs: Outputs, mut engine: Engine) {
    let mut set = inputs.hub.watch_set();
    loop {
        set.borrow_and_update();
        let wait = engine.turn(&mut inputs, &outputs, Instant::now());
        let pause = async {
            match wait {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            changed = inputs.snapshot.changed() => changed.is_err(),
            changed = inputs.source.changed() => changed.is_err(),
            changed = inputs.checks.results.changed() => changed.is_err(),
            changed = set.changed() => changed.is_err(),
            // Nobody writes it in other modes than `gateway`.
            Ok(()) = inputs.exposed.changed() => false,
            () = pause => false,
        };
        if ended {
            return;
        }
    }
}

/// Works out everything that follows.
fn settle(
    inputs: &Inputs,
    outputs: &Outputs,
    snapshot: &State<ClusterResource>,
    (view, results, exposed): (&Arc<View>, &Arc<Results>, &Arc<Exposed>),
    takes_calls: bool,
    ages: &mut Register,
    synthesizer: &mut Synthesizer,
) {
    let gateways = inputs.hub.gateways();
    let ages = ages.update(view, certificate::seconds(inputs.clock.now()));
    let local = Local { view, ages, passing: results, gateways: &gateways, mode: inputs.mode, exposed };
    let (inventory, left_out) = synthesizer.report(local, takes_calls);
    outputs.inventory.send_if_modified(|old| {
        let differs = old.as_ref() != Some(&inventory);
        if differs {
            *old = Some(inventory);
        }
        differs
    });
    if let Some(changed) = synthesizer.step(snapshot, local) {
        inputs.hub.publish(synthesizer.synthesis(), &changed, snapshot.generation);
    }
    outputs.problems.send_if_modified(|old| {
        let problems = || left_out.iter().chain(synthesizer.synthesis().problems());
        let differs = !problems().eq(old.iter());
        if differs {
            *old = problems().cloned().collect();
        }
        differs
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateways::HubConfig;
    use tombolo_model::{GatewayRole, snapshot::Resources};
    use tombolo_wire::{message::GatewayHello, version::Hello};

    /// Until when an engine waits that begins with this generation, and whether it tells what runs then.
    fn begins(data: &DataDir, generation: u64) -> (bool, bool) {
        let hub = Hub::new(HubConfig::default(), data.clone(), Generation::new(1));
        let (snapshots, snapshot) = watch::channel(Arc::new(State {
            generation: Generation::new(generation),
            resources: Arc::new(Resources::new()),
            ..State::default()
        }));
        let (_, results) = watch::channel(Arc::default());
        let (inventory, told) = watch::channel(None);
        let mut inputs = Inputs {
            snapshot,
            source: watch::channel(Some(Arc::default())).1,
            checks: Checks { targets: watch::channel(Default::default()).0, results },
            hub,
            mode: AddressMode::Allocated,
            exposed: watch::channel(None).1,
            clock: Arc::new(tombolo_testkit::clock::manual()),
        };
        let outputs = Outputs { zone: ZoneWriter::new(), inventory, problems: watch::channel(Vec::new()).0 };
        let (mut engine, now) = (Engine::new(data.clone()), Instant::now());
        engine.turn(&mut inputs, &outputs, now);
        let first = Arc::new(State { generation: Generation::new(7), ..State::default() });
        snapshots.send_replace(first);
        let wait = engine.turn(&mut inputs, &outputs, now);
        let at_once = told.borrow().is_some();
        assert_eq!(wait.is_none(), at_once, "it says until when");
        engine.turn(&mut inputs, &outputs, now + FIRST_CHECKS);
        let later = told.borrow().is_some();
        (at_once, later)
    }

    #[test]
    fn gateways_that_were_lost_sight_of_are_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::create(dir.path()).unwrap();
        assert_eq!(begins(&data, 0), (true, true), "the first day");
        assert_eq!(begins(&data, 5), (false, true), "who was there before?");
        let patient = HubConfig { grace: Duration::ZERO, ..HubConfig::default() };
        let hub = Hub::new(patient, data.clone(), Generation::new(1));
        let hello = Hello::current("tombolo-gateway");
        let at = ([127, 0, 0, 1], 1).into();
        hub.hello(GatewayHello::new(hello, "i".to_owned(), GatewayRole::Ingress, at)).unwrap();
        assert_eq!(begins(&data, 5), (true, true), "the set is known");
    }
}
