//! Does what the plan says, and keeps doing it.

use super::{
    cache,
    object::{Key, Kind},
    objects::{Abilities, EGRESS, INGRESS},
    plan::{Action, Asked, Found, Plan, image_of, plan},
    reading::{Reading, Troubles},
    trial,
    write::{strays, write},
};
use crate::{gateways::Hub, inject::Injection, lease::Standings, registries::Registries};
use futures::{FutureExt as _, StreamExt as _};
use ipnet::IpNet;
use kube::Client;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tombolo_feed::State;
use tombolo_model::{
    GatewayRole, Generation, NamespaceName,
    install::{InstallOrder, InstallStatus, InstallStep, StepState, TrialStatus},
    snapshot::ClusterResource,
};
use tombolo_runtime::telemetry::chain;
use tombolo_wire::message::Problem;

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often is asked what the API server can do.
const ABILITIES: Duration = Duration::from_secs(60);
/// How often is looked, when all is to go, for what lost the labels by which it is watched.
const STRAYS: Duration = Duration::from_secs(30);
/// What others show of an installation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Installed {
    /// Whether what is here is so. Before, its addresses say nothing.
    pub(crate) known: bool,
    /// How it goes; none where nothing was ordered.
    pub(crate) status: Option<InstallStatus>,
    /// What an order would do that is only tried; none while nobody tries one.
    pub(crate) trial: Option<TrialStatus>,
    /// Where peers reach the ingress gateways.
    pub(crate) addresses: BTreeSet<String>,
    /// What is wrong.
    pub(crate) problems: Vec<Problem>,
}

/// Keeps what was ordered there.
pub(crate) struct Installing {
    pub(crate) client: Client,
    pub(crate) namespace: NamespaceName,
    pub(crate) vips: Arc<[IpNet]>,
    /// The class of the gateways' pods, where it is not the system's own.
    pub(crate) priority: Option<Arc<str>>,
    /// Where egress gateways dial nobody.
    pub(crate) never_dial: Arc<[IpNet]>,
    pub(crate) snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    pub(crate) hub: Arc<Hub>,
    /// Whether this replica is the one that writes.
    pub(crate) standings: Standings,
    pub(crate) installed: watch::Sender<Installed>,
    /// Where images may come from; completed by what the agent's own Deployment says.
    pub(crate) registries: watch::Sender<Registries>,
    /// How pods get proxies; none where this agent takes no questions about pods.
    pub(crate) injection: Option<watch::Receiver<Injection>>,
    /// How much of the Multi-Cluster Services API is still to be taken out; none where the agent has nothing to do with it.
    pub(crate) multicluster: Option<watch::Receiver<Option<usize>>>,
}

impl Installing {
    /// Runs for as long as it is polled.
    pub(crate) async fn run(mut self) {
        // what is not known yet is not told: it would take the addresses from the peers
        if self.snapshot.wait_for(|state| state.generation != Generation::ZERO).await.is_err() {
            return;
        }
        let ordered = |state: &Arc<State<ClusterResource>>| Asked::of(&state.resources).is_some();
        if !ordered(&self.snapshot.borrow()) {
            self.installed.send_modify(|installed| installed.known = true);
        }
        if self.snapshot.wait_for(ordered).await.is_err() {
            return;
        }
        let (reading, mut events) = Reading::read(&self.client, &self.namespace);
        let mut reports = self.hub.watch_reports();
        let mut failed = BTreeMap::new();
        let mut troubles = Troubles::new();
        let mut set = self.hub.watch_set();
        let (mut again, mut ask) = (None, Instant::now());
        let mut abilities = Abilities::default();
        let (mut stray, mut look) = (Vec::new(), Instant::now());
        let (mut multicluster, mut injecting) = (self.multicluster.take(), self.injection.take());
        loop {
            if Instant::now() >= ask {
                abilities = self.abilities().await.unwrap_or(abilities);
                ask = Instant::now() + ABILITIES;
            }
            let snapshot = Arc::clone(&self.snapshot.borrow_and_update());
            reports.borrow_and_update();
            set.borrow_and_update();
            let leads = self.standings.own().writes();
            let asked = Asked::of(&snapshot.resources).filter(|_| snapshot.generation != Generation::ZERO);
            let removed = asked.as_ref().is_some_and(Asked::removes);
            let ending = self.hub.ending(removed, Instant::now());
            match asked {
                Some(asked) if reading.is_complete(&troubles, asked.order) => {
                    let imports = multicluster.as_mut().map_or(Some(0), |left| *left.borrow_and_update());
                    let injection =
                        injecting.as_mut().map_or(Injection::Absent, |now| now.borrow_and_update().clone());
                    let (mut found, reached) = (reading.found(), self.reached());
                    if removed && Instant::now() >= look {
                        // where nobody answers, it is as it was
                        stray = strays(&self.client, &self.namespace, &found.objects).await.unwrap_or(stray);
                        look = Instant::now() + if stray.is_empty() { STRAYS } else { AGAIN };
                    }
                    if removed {
                        for key in &stray {
                            found.objects.entry(key.clone()).or_insert(Value::Null);
                        }
                    }
                    let registries = self.registries(&found);
                    let serving = ending.map_or(0, |(_, serving)| serving);
                    let (vips, never_dial) = (Arc::clone(&self.vips), Arc::clone(&self.never_dial));
                    let found = Found {
                        abilities,
                        failed,
                        imports,
                        injection,
                        reached,
                        registries,
                        serving,
                        vips,
                        priority: self.priority.clone(),
                        never_dial,
                        ..found
                    };
                    let plan = plan(&asked, &self.namespace, &found);
                    let tried =
                        asked.trial.map(|trial| trial::answer(&asked, trial, &self.namespace, &found));
                    failed = if leads { self.act(&plan).await } else { BTreeMap::new() };
                    again = (!failed.is_empty()).then(|| Instant::now() + AGAIN);
                    self.tell(asked.order, plan, tried, &failed, &troubles);
                }
                Some(asked) if !troubles.is_empty() => {
                    failed = BTreeMap::new();
                    self.tell_unread(asked.order, &troubles);
                }
                _ => {
                    failed = BTreeMap::new();
                    // the trial may have been all that was asked for
                    self.installed.send_if_modified(|installed| installed.trial.take().is_some());
                }
            }
            let retry = again.unwrap_or(ask).min(ask).min(ending.map_or(ask, |(until, _)| until));
            let retry = if removed { retry.min(look.max(Instant::now() + AGAIN)) } else { retry };
            tokio::select! {
                changed = self.snapshot.changed() => if changed.is_err() { return },
                () = self.standings.changed() => {}
                changed = reports.changed() => if changed.is_err() { return },
                changed = set.changed() => if changed.is_err() { return },
                () = changed(multicluster.as_mut()) => {}
                () = changed(injecting.as_mut()) => {}
                Some(told) = events.next() => {
                    // all that is told already: a plan of half of it does again what was done
                    let mut next = Some(told);
                    while let Some((what, heard)) = next {
                        match heard {
                            Some(Err(why)) => drop(troubles.insert(what, why)),
                            Some(Ok(())) => drop(troubles.remove(what)),
                            None => {}
                        }
                        next = events.next().now_or_never().flatten();
                    }
                }
                () = sleep_until(retry) => {}
            }
        }
    }

    /// Where images may come from and what runs, also for others to know.
    fn registries(&self, found: &Found) -> Registries {
        let gateways = [EGRESS, INGRESS].map(|name| {
            let deployment = found.objects.get(&Key::new(Kind::Deployment, name));
            deployment.and_then(|deployment| image_of(deployment, "gateway"))
        });
        let agent = found.agent.as_ref().and_then(|agent| image_of(agent, "agent"));
        let registries = self.registries.borrow().with_running(gateways.into_iter().flatten().chain(agent));
        self.registries.send_if_modified(|old| {
            let differs = *old != registries;
            old.clone_from(&registries);
            differs
        });
        registries
    }

    /// What the API server can do, where it says so.
    async fn abilities(&self) -> Option<Abilities> {
        let groups = self.client.list_api_groups().await.ok()?;
        let measures = groups.groups.iter().any(|group| group.name == "metrics.k8s.io");
        let caches = cache::is_there(&self.client).await.unwrap_or_default();
        Some(Abilities { measures, caches })
    }

    /// The peers' gateways that our egress gateways got through to.
    fn reached(&self) -> BTreeMap<tombolo_model::ClusterName, BTreeSet<String>> {
        let mut all: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
        for report in
            self.hub.gateway_reports().into_iter().filter(|report| report.role == GatewayRole::Egress)
        {
            for (cluster, addresses) in report.status.peers {
                let through =
                    addresses.into_iter().filter(|(_, state)| state.handshake).map(|(address, _)| address);
                all.entry(cluster).or_default().extend(through);
            }
        }
        all
    }

    /// What failed, by step.
    async fn act(&self, plan: &Plan) -> BTreeMap<&'static str, String> {
        each(&plan.actions, |action| write(&self.client, &self.namespace, action)).await
    }

    /// Says why nothing can be done yet. Where the agent has done something already, that stands.
    fn tell_unread(&self, order: Option<&InstallOrder>, troubles: &Troubles) {
        let step = || InstallStep {
            step: "agent".to_owned(),
            state: StepState::Waiting,
            message: troubles
                .iter()
                .map(|(what, why)| format!("{what} can't be read: {why}"))
                .collect::<Vec<_>>()
                .join("; "),
        };
        self.installed.send_if_modified(|old| {
            let mut new = Installed { trial: None, problems: unread(troubles).collect(), ..old.clone() };
            let revision = order.map(InstallOrder::revision);
            if !old.known || old.status.as_ref().map(|status| status.revision) != revision {
                new.status = order.map(|order| InstallStatus::of(order, vec![step()]));
            }
            let differs = *old != new;
            *old = new;
            differs
        });
    }

    fn tell(
        &self,
        order: Option<&InstallOrder>,
        plan: Plan,
        trial: Option<TrialStatus>,
        failed: &BTreeMap<&'static str, String>,
        troubles: &Troubles,
    ) {
        let problem = |(subject, message): (String, String)| Problem { subject, message };
        let mut problems: Vec<Problem> = plan.problems.into_iter().map(problem).collect();
        problems.extend(failed.iter().map(|(step, why)| Problem {
            subject: format!("installation, {step}"),
            message: format!("{why}; it is tried again"),
        }));
        problems.extend(unread(troubles));
        let status = order.map(|order| InstallStatus::of(order, plan.steps));
        self.installed.send_if_modified(|old| {
            // where calls are under way, peers are not told that the way is gone
            let addresses = if plan.ends_calls { old.addresses.clone() } else { plan.addresses };
            let new = Installed { known: true, status, trial, addresses, problems };
            let differs = *old != new;
            *old = new;
            differs
        });
    }
}

/// Writes one after the other, and says what failed, by step.
async fn each<'a, F>(
    actions: &'a [(&'static str, Action)],
    write: impl Fn(&'a Action) -> F,
) -> BTreeMap<&'static str, String>
where
    F: Future<Output = Result<(), kube::Error>>,
{
    let (mut failed, mut unwritten) = (BTreeMap::new(), false);
    for (step, action) in actions {
        // pods that are replaced read what is there, which is not ours then
        if unwritten && matches!(action, Action::Restart { .. }) {
            continue;
        }
        let written = write(action).await;
        unwritten |= written.is_err() && matches!(action, Action::Corefile { .. });
        match written {
            Ok(()) => {}
            // somebody was faster; what is there now is being told
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {}
            Err(kube::Error::Api(status)) => {
                failed
                    .entry(*step)
                    .or_insert_with(|| format!("the API server refuses it: {}", status.message));
            }
            Err(error) => {
                failed
                    .entry(*step)
                    .or_insert_with(|| format!("the API server does not answer: {}", chain(&error)));
            }
        }
    }
    failed
}

/// What can't be read, for people.
fn unread(troubles: &Troubles) -> impl Iterator<Item = Problem> {
    troubles.iter().map(|(what, why)| Problem {
        subject: format!("installation, {what}"),
        message: format!(
            "can't be read: {why}; what it is for stays as it was when it could; let the agent's role get, list and watch it, as \
             its manifest does"
        ),
    })
}

/// Waits for another value. Where there is nobody to tell one, for ever.
async fn changed<T>(told: Option<&mut watch::Receiver<T>>) {
    let told = match told {
        Some(told) => told.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::RefCell, future::ready};

    #[tokio::test]
    async fn no_pod_is_replaced_for_a_corefile_that_was_not_written() {
        let (text, version) = ("new".to_owned(), "7".to_owned());
        let agent = Action::Agent { image: "r.example.com/t/agent:1".to_owned() };
        let [corefile, restart] =
            [Action::Corefile { text, version }, Action::Restart { mark: Some("block-1".to_owned()) }];
        let all = [("dns", corefile), ("dns", restart), ("agent", agent)];
        for (code, fails) in [(200, false), (409, false), (404, false), (403, true), (500, true)] {
            let done = RefCell::new(Vec::new());
            let failed = each(&all, |action| {
                done.borrow_mut().push(action);
                let refused = matches!(action, Action::Corefile { .. }) && code != 200;
                let status = || kube::core::Status::failure("no", "No").with_code(code).boxed();
                ready(if refused { Err(kube::Error::Api(status())) } else { Ok(()) })
            })
            .await;
            let of = |index: &[usize]| index.iter().map(|i| &all[*i].1).collect::<Vec<_>>();
            let expected = if code == 200 { of(&[0, 1, 2]) } else { of(&[0, 2]) };
            assert_eq!(*done.borrow(), expected, "{code}");
            assert_eq!(failed.contains_key("dns"), fails, "{code}: {failed:?}");
        }
        // the file was as it should be
        let done = RefCell::new(0);
        let count = |_: &Action| {
            *done.borrow_mut() += 1;
            ready(Ok(()))
        };
        assert!(each(&all[1..], count).await.is_empty() && *done.borrow() == 2);
    }
}
