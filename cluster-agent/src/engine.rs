//! Brings together what the agent knows (the controller's snapshot, what runs here, which endpoints pass, the
//! gateways) and, at every change, works out what follows: the DNS zone, the inventory, the gateways' states.
//!
//! A process that just started knows little. What it does not know yet it does not withdraw: the zone comes from the
//! snapshot kept on disk at once, everything else waits until the manifests were read and every endpoint was checked
//! once, or a few seconds passed.

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
    synthesis::{self, Local, Synthesizer},
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

/// How long endpoints that were never checked are waited for.
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

/// What a zone was made of.
type ZoneOf = (Arc<State<ClusterResource>>, Option<Arc<Exposed>>);

/// Runs for as long as it is polled.
pub(crate) async fn run(mut inputs: Inputs, outputs: Outputs, mut ages: Register) {
    let mut set = inputs.hub.watch_set();
    let mut zone_of: Option<ZoneOf> = None;
    let mut deadline = None;
    let mut synthesizer = Synthesizer::default();
    let mut chosen = Chosen::default();
    loop {
        let snapshot = Arc::clone(&inputs.snapshot.borrow_and_update());
        let source = inputs.source.borrow_and_update().clone();
        let results = Arc::clone(&inputs.checks.results.borrow_and_update());
        set.borrow_and_update();
        let exposed = inputs.exposed.borrow_and_update().clone();
        let removed = is_removed(&snapshot.resources);
        let ending = inputs.hub.ending(removed, Instant::now());
        let mut wait = ending.map(|(until, _)| until);
        // before anybody said which namespaces take part, none is told of
        let source = source.filter(|_| snapshot.generation != Generation::ZERO);
        let takes_part = |view| match ending {
            Some(_) => chosen.ending(view, &snapshot.resources),
            None => chosen.of(view, &snapshot.resources),
        };
        if let Some(view) = source.map(takes_part) {
            let probes = view.probes();
            let known = probes.iter().all(|probe| results.contains_key(probe));
            inputs.checks.targets.send_if_modified(|targets| {
                let differs = *targets != probes;
                if differs {
                    *targets = probes;
                }
                differs
            });
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + FIRST_CHECKS);
            // Once we report, an endpoint that is new is simply not ready until it was checked.
            let reported = outputs.inventory.borrow().is_some();
            if known || reported || Instant::now() >= deadline {
                let local = (&view, &results, &exposed.clone().unwrap_or_default());
                let report = if ending.is_some() { synthesis::last_inventory } else { synthesis::inventory };
                settle(&inputs, &outputs, &snapshot, local, report, &mut ages, &mut synthesizer);
            } else {
                wait = Some(deadline);
            }
        }
        // After the gateways: an address that is answered should lead somewhere.
        if snapshot.generation != Generation::ZERO
            && zone_of.as_ref().is_none_or(|last| !Arc::ptr_eq(&last.0, &snapshot) || last.1 != exposed)
        {
            let (mode, generation) = (&inputs.mode, snapshot.generation);
            outputs.zone.set(dns::build(&snapshot.resources, generation, mode, exposed.as_deref()));
            zone_of = Some((Arc::clone(&snapshot), exposed));
        }
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
    report: fn(Local<'_>) -> (Inventory, Option<Problem>),
    ages: &mut Register,
    synthesizer: &mut Synthesizer,
) {
    let gateways = inputs.hub.gateways();
    let ages = ages.update(view, certificate::seconds(inputs.clock.now()));
    let local = Local { view, ages, passing: results, gateways: &gateways, mode: inputs.mode, exposed };
    let (inventory, left_out) = report(local);
    outputs.inventory.send_if_modified(|old| {
        let differs = old.as_deref() != Some(&inventory);
        if differs {
            *old = Some(Arc::new(inventory));
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
