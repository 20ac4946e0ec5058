//! Does to the world what is planned, and mends it.

use super::{Place, Sampler, rotation::Rotations};
use crate::{Load, SOON, World, certificates::addresses, kills, load::PATIENCE};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tombolo_testkit::{
    postgres,
    wait::{until, until_ok},
};
use tombolo_tests::{
    dice::Dice,
    soak::{Fault, Step, Windows},
};

/// How long connections through something that ended take to fail, where the machine does other things too.
const FAILED: Duration = Duration::from_secs(5);
/// How long it takes until everybody has heard that something ends, or is trusted no more.
const HEARD: Duration = Duration::from_secs(2);

/// What was done.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) steps: u64,
    pub(super) doubles: u64,
    /// Processes that were killed.
    pub(super) kills: u64,
    pub(super) faults: BTreeMap<String, u64>,
}

/// A fault that is there.
struct Done {
    fault: Fault,
    since: Instant,
    window: Option<usize>,
}

/// The world, and what is done to it.
pub(super) struct Stage<'a> {
    world: &'a mut World,
    load: &'a Load,
    windows: &'a Mutex<Windows>,
    sampler: &'a Sampler,
    place: &'a Place,
    dice: Dice,
    counts: Counts,
    rotations: Rotations,
    addresses: BTreeMap<String, Value>,
}

impl<'a> Stage<'a> {
    pub(super) async fn new(
        world: &'a mut World,
        load: &'a Load,
        windows: &'a Mutex<Windows>,
        sampler: &'a Sampler,
        place: &'a Place,
    ) -> Self {
        let addresses = addresses(world).await;
        let (counts, rotations) = (Counts::default(), Rotations::default());
        let dice = Dice::new(place.seed());
        Self { world, load, windows, sampler, place, dice, counts, rotations, addresses }
    }

    pub(super) fn into_counts(self) -> (Counts, Vec<Duration>) {
        (self.counts, self.rotations.took)
    }

    fn now(&self) -> Duration {
        self.place.begin().elapsed()
    }

    fn windows(&self) -> MutexGuard<'a, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&mut self, fault: &Fault) {
        *self.counts.faults.entry(fault.kind()).or_default() += 1;
    }

    /// One step of the plan, until all is well again.
    pub(super) async fn step(&mut self, step: &Step) {
        let second = step.second.map(|(_, fault)| fault);
        let faults: Vec<Fault> = [Some(step.first), second].into_iter().flatten().collect();
        if faults.iter().any(Fault::hits_near) {
            self.world.all_go_near().await;
        }
        sleep(step.rest).await;
        let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
        self.place.is_at(&format!("{}, for {:.1} s", shown.join(", and "), step.hold.as_secs_f64()));
        self.counts.steps += 1;
        self.counts.doubles += u64::from(second.is_some());
        let mut done = vec![self.inject(step.first).await];
        if let Some((after, fault)) = step.second {
            sleep(after).await;
            done.push(self.inject(fault).await);
        }
        sleep(step.hold).await;
        done.sort_by_key(|done| !done.fault.hits_an_agent());
        for one in done {
            self.mend(one).await;
        }
        self.whole().await;
    }

    /// So many kills of the control plane.
    pub(super) async fn strike(&mut self, count: u64) {
        self.place.is_at(&Fault::Strikes(count).to_string());
        self.inject(Fault::Strikes(count)).await;
    }

    /// Begins a rotation of the root, where none goes on.
    pub(super) async fn rotate(&mut self) {
        if self.rotations.begin(self.world).await {
            self.place.is_at(&Fault::Rotate.to_string());
            self.count(&Fault::Rotate);
        }
    }

    async fn inject(&mut self, fault: Fault) -> Done {
        self.count(&fault);
        // told to end, it ends what is under way in good order: nothing is cut before it is killed
        let window = (fault.cuts() && !matches!(fault, Fault::End(_))).then(|| self.open(&fault));
        let since = Instant::now();
        match fault {
            Fault::Kill(names) => {
                self.counts.kills += names.len() as u64;
                names.iter().for_each(|name| self.world.kill(name));
                self.over(window);
            }
            Fault::Hang(name) => {
                self.world.program(name).signal(Signal::SIGSTOP);
                window.iter().for_each(|number| self.windows().settle(*number, self.now()));
            }
            Fault::End(name) => self.world.program(name).signal(Signal::SIGTERM),
            Fault::Postgres => {
                self.counts.kills += 1;
                tokio::task::spawn_blocking(postgres::crash).await.unwrap();
            }
            Fault::Strikes(count) => {
                for _ in 0..count {
                    let victim = kills::strike(self.world, &mut self.dice).await;
                    self.counts.kills += if victim == "both replicas" { 2 } else { 1 };
                    self.sampler.follow(self.world.pids());
                    sleep(Duration::from_millis(self.dice.below(300))).await;
                }
            }
            Fault::Rotate => {
                self.rotations.begin(self.world).await;
            }
            Fault::Join(cluster) => {
                self.world.join(cluster).await;
                sleep(HEARD).await;
                self.over(window);
            }
            Fault::Revoke(cluster) => {
                let name = format!("cluster-{cluster}");
                self.world.revoke(cluster).await;
                for gateway in ["cluster-1-egress", "cluster-1-egress-b"] {
                    let gone = || self.world.peers(gateway);
                    until("it is no peer any more", SOON, gone, |peers| !peers.contains(&name)).await;
                }
                sleep(HEARD).await;
                self.over(window);
            }
        }
        Done { fault, since, window }
    }

    fn open(&self, fault: &Fault) -> usize {
        self.windows().open(fault.kind(), self.now())
    }

    /// Nothing that begins from now on goes through what was hit, and soon the last of what did has failed.
    fn over(&self, window: Option<usize>) {
        if let Some(number) = window {
            let now = self.now();
            self.windows().settle(number, now);
            self.windows().close(number, now + FAILED);
        }
    }

    async fn mend(&mut self, done: Done) {
        match done.fault {
            Fault::Kill(names) => {
                for name in names {
                    self.world.restart(name).await;
                }
            }
            Fault::Hang(name) => {
                self.world.program(name).signal(Signal::SIGCONT);
                let over = self.now() + PATIENCE;
                done.window.iter().for_each(|number| self.windows().close(*number, over));
            }
            // The long-lived connections would keep it for as long as it waits. When it is killed, none is cut that began after it was told.
            Fault::End(name) if done.fault.cuts() => {
                let (number, now) = (self.open(&done.fault), self.now());
                self.windows().settle(number, now.saturating_sub(done.since.elapsed()) + HEARD);
                self.world.kill(name);
                self.windows().close(number, self.now() + FAILED);
                self.world.restart(name).await;
            }
            Fault::End(name) => {
                let status = self.world.program_mut(name).wait(SOON).await;
                assert!(status.success(), "{name}: {status}");
                self.world.restart(name).await;
            }
            Fault::Revoke(cluster) => self.world.admit(cluster).await,
            Fault::Postgres | Fault::Strikes(_) | Fault::Rotate | Fault::Join(_) => {}
        }
    }

    /// Until all is well again; nothing ended that nobody ended, and nothing panicked.
    pub(super) async fn whole(&mut self) {
        self.load.whole().await;
        let clusters = || async {
            let path = "/organizations/acme/clusters";
            match self.world.api.exchange(Method::GET, path, None, SOON).await {
                Ok((StatusCode::OK, _, body)) if all_connected(&body) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        };
        until_ok("all clusters are connected", SOON, clusters).await;
        let broken = self.world.broken();
        assert!(broken.is_empty(), "{broken:#?}");
        self.rotations.look(self.world).await;
        self.world.rotate_logs();
        self.sampler.follow(self.world.pids());
        self.load.forget(Instant::now());
    }

    /// Waits for what goes on by itself.
    pub(super) async fn end(&mut self) {
        self.place.is_at("the last rotation, where one goes on");
        self.rotations.end(self.world).await;
        self.whole().await;
        let look = || addresses(self.world);
        until("names have the addresses that they had", SOON, look, |now| *now == self.addresses).await;
    }
}

fn all_connected(clusters: &Value) -> bool {
    let states =
        clusters["items"].as_array().into_iter().flatten().map(|cluster| cluster["state"] == "connected");
    let states: Vec<bool> = states.collect();
    states.len() == 3 && states.into_iter().all(|connected| connected)
}
