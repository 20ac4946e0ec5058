//! Does what the plan says, and keeps doing it.

use super::{
    address::Node,
    object::{COMPONENT, Key, Kind, Objects},
    objects::{AGENT, Abilities, EGRESS, INGRESS},
    plan::{Action, Asked, Dns, Found, Plan, RESTARTED_FOR, image_of, plan},
    trial,
};
use crate::{
    farewell::Farewell, gateways::Hub, inject::Injection, lease::Standings, registries::Registries,
    source::kubernetes::MANAGED_BY,
};
use futures::{
    FutureExt as _, StreamExt as _,
    stream::{BoxStream, SelectAll},
};
use ipnet::IpNet;
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, PropagationPolicy},
    core::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt as _,
        reflector::{self, Store, store::Writer},
        watcher::{self, watcher},
    },
};
use serde_json::{Value, json};
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

/// The one field manager.
const MANAGER: &str = "tombolo-agent";
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often is asked what the API server can do.
const ABILITIES: Duration = Duration::from_secs(60);
/// What a watch told: of what, and whether all is well or what is wrong with it. Nothing, where it only begins.
type Told = (&'static str, Option<Result<(), String>>);
/// What can't be read, and why.
type Troubles = BTreeMap<&'static str, String>;
/// What the watches are of, for people, beside our own kinds of objects.
const DNS_CONFIG: &str = "the ConfigMap of the cluster's DNS";
const DNS_PODS: &str = "the Deployment of the cluster's DNS";
const ITSELF: &str = "the agent's Deployment";
const ANSWERS: &str = "the Service tombolo-dns";
const NODES: &str = "Nodes";
const PODS: &str = "the ingress gateways' Pods";

/// Where the cluster's own DNS lives.
const SYSTEM: &str = "kube-system";
const COREDNS: &str = "coredns";

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
        let (reading, mut events) = self.read();
        let mut reports = self.hub.watch_reports();
        let mut failed = BTreeMap::new();
        let mut troubles = Troubles::new();
        let (mut farewell, mut set) = (Farewell::default(), self.hub.watch_set());
        let (mut again, mut ask) = (None, Instant::now());
        let mut abilities = Abilities::default();
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
            let serving = if removed { self.hub.serving() } else { 0 };
            let ending = farewell.until(removed, serving, Instant::now());
            match asked {
                Some(asked) if reading.is_complete(&troubles, asked.order) => {
                    let imports = multicluster.as_mut().map_or(Some(0), |left| *left.borrow_and_update());
                    let injection =
                        injecting.as_mut().map_or(Injection::Absent, |now| now.borrow_and_update().clone());
                    let (found, reached) = (reading.found(), self.reached());
                    let registries = self.registries(&found);
                    let serving = if ending.is_some() { serving } else { 0 };
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
            let retry = again.unwrap_or(ask).min(ask).min(ending.unwrap_or(ask));
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

    /// The watches, and what they know.
    fn read(&self) -> (Reading, SelectAll<BoxStream<'static, Told>>) {
        let mut events = SelectAll::new();
        let ours = format!("{}={},{COMPONENT} in (egress,ingress,node)", MANAGED_BY.0, MANAGED_BY.1);
        let (own, system) = (self.namespace.as_str(), SYSTEM);
        let mut watched =
            |what: &'static str, resource: &ApiResource, namespace: Option<&str>, config: watcher::Config| {
                let api = match namespace {
                    Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
                    None => Api::all_with(self.client.clone(), resource),
                };
                let writer = Writer::<DynamicObject>::new(resource.clone());
                let store = writer.as_reader();
                let told = reflector::reflector(writer, watcher(api, config.timeout(60)).default_backoff());
                events.push(told.ready_chunks(256).map(move |all| (what, heard(&all))).boxed());
                store
            };
        let core = |kind: &str, plural: &str| ApiResource {
            group: String::new(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let labelled = |labels: &str| watcher::Config::default().labels(labels);
        let (deployment, service) = (Kind::Deployment.resource(), Kind::Service.resource());
        let reading = Reading {
            objects: Kind::ALL
                .map(|kind| (kind, watched(kind.called(), &kind.resource(), Some(own), labelled(&ours))))
                .into(),
            agent: watched(ITSELF, &deployment, Some(own), named(AGENT)),
            answers: watched(ANSWERS, &service, Some(own), named("tombolo-dns")),
            config: watched(DNS_CONFIG, &core("ConfigMap", "configmaps"), Some(system), named(COREDNS)),
            deployment: watched(DNS_PODS, &deployment, Some(system), named(COREDNS)),
            nodes: watched(NODES, &core("Node", "nodes"), None, watcher::Config::default()),
            pods: watched(
                PODS,
                &core("Pod", "pods"),
                Some(own),
                labelled(&format!("app.kubernetes.io/name={INGRESS}")),
            ),
        };
        (reading, events)
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
        Some(Abilities { measures })
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
        let mut failed = BTreeMap::new();
        for (step, action) in &plan.actions {
            match self.write(action).await {
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

    async fn write(&self, action: &Action) -> Result<(), kube::Error> {
        let own = |kind: Kind| -> Api<DynamicObject> {
            Api::namespaced_with(self.client.clone(), self.namespace.as_str(), &kind.resource())
        };
        let coredns = |resource: &ApiResource| -> Api<DynamicObject> {
            Api::namespaced_with(self.client.clone(), SYSTEM, resource)
        };
        let plain = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        match action {
            Action::Apply(key, value) => {
                let (api, params) = (own(key.kind), PatchParams::apply(MANAGER).force());
                // One that the watch has not told of yet may have been scaled since it was made.
                let unread = key.kind == Kind::Deployment && value["metadata"]["resourceVersion"].is_null();
                if unread && api.get_metadata_opt(&key.name).await?.is_some() {
                    return Ok(());
                }
                api.patch(&key.name, &params, &Patch::Apply(&**value)).await.map(drop)
            }
            Action::Delete(key) => {
                let params = DeleteParams {
                    propagation_policy: Some(PropagationPolicy::Background),
                    ..DeleteParams::default()
                };
                own(key.kind).delete(&key.name, &params).await.map(drop)
            }
            Action::Scale(key, count) => {
                let patch = json!({ "spec": { "replicas": count } });
                own(key.kind).patch(&key.name, &plain, &Patch::Merge(&patch)).await.map(drop)
            }
            Action::Corefile { text, version } => {
                let resource = ApiResource {
                    group: String::new(),
                    version: "v1".to_owned(),
                    api_version: "v1".to_owned(),
                    kind: "ConfigMap".to_owned(),
                    plural: "configmaps".to_owned(),
                };
                let patch =
                    json!({ "metadata": { "resourceVersion": version }, "data": { "Corefile": text } });
                coredns(&resource).patch(COREDNS, &plain, &Patch::Merge(&patch)).await.map(drop)
            }
            Action::Restart { mark } => {
                let template = json!({ "metadata": { "annotations": { RESTARTED_FOR: mark } } });
                let patch = json!({ "spec": { "template": template } });
                coredns(&Kind::Deployment.resource())
                    .patch(COREDNS, &plain, &Patch::Merge(&patch))
                    .await
                    .map(drop)
            }
            Action::Agent { image } => {
                let containers = json!([{ "name": "agent", "image": image }]);
                let patch = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
                own(Kind::Deployment).patch(AGENT, &plain, &Patch::Strategic(&patch)).await.map(drop)
            }
        }
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
                new.status = revision.map(|revision| InstallStatus { revision, steps: vec![step()] });
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
        let status = order.map(|order| InstallStatus { revision: order.revision(), steps: plan.steps });
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

/// What the watches know.
struct Reading {
    objects: BTreeMap<Kind, Store<DynamicObject>>,
    agent: Store<DynamicObject>,
    answers: Store<DynamicObject>,
    config: Store<DynamicObject>,
    deployment: Store<DynamicObject>,
    nodes: Store<DynamicObject>,
    pods: Store<DynamicObject>,
}

impl Reading {
    /// Whether all of it was read once, but for what holds up nothing else: the cluster's DNS, and what is spare. That is to
    /// be taken out with all else, though.
    fn is_complete(&self, troubles: &Troubles, order: Option<&InstallOrder>) -> bool {
        let removes = matches!(order, Some(InstallOrder::Removed { .. }));
        let kinds = self.objects.iter().all(|(kind, store)| {
            is_read(store) || (kind.is_spare() && !removes && troubles.contains_key(kind.called()))
        });
        let own = [&self.agent, &self.answers, &self.nodes, &self.pods];
        let dns = [(DNS_CONFIG, &self.config), (DNS_PODS, &self.deployment)];
        kinds
            && own.into_iter().all(is_read)
            && dns.into_iter().all(|(what, store)| is_read(store) || troubles.contains_key(what))
    }

    fn found(&self) -> Found {
        let values = |store: &Store<DynamicObject>| store.state().into_iter().filter_map(|one| value(&one));
        let one = |store: &Store<DynamicObject>| values(store).next();
        let mut objects = Objects::new();
        for (kind, store) in &self.objects {
            // what is being deleted already is not there to be mended, and not there to be deleted again
            let living = store.state().into_iter().filter(|one| one.metadata.deletion_timestamp.is_none());
            objects.extend(living.filter_map(|one| Some((Key::new(*kind, &one.name_any()), value(&one)?))));
        }
        let answers = one(&self.answers);
        let hosts = values(&self.pods).filter_map(|pod| {
            let ready = pod["status"]["conditions"]
                .as_array()?
                .iter()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            // one that ends, or is still in a network of its own, takes nothing at its node's address
            let there = pod["spec"]["hostNetwork"] == true && pod["metadata"]["deletionTimestamp"].is_null();
            (ready && there).then(|| pod["spec"]["nodeName"].as_str().map(str::to_owned))?
        });
        let unread = self.objects.iter().filter(|(_, store)| !is_read(store)).map(|(kind, _)| *kind);
        Found {
            objects,
            unread: unread.collect(),
            agent: one(&self.agent),
            dns: Dns { config: one(&self.config), deployment: one(&self.deployment) },
            answers_at: answers.and_then(|service| service["spec"]["clusterIP"].as_str()?.parse().ok()),
            nodes: values(&self.nodes).filter_map(|node| Node::read(&node)).collect(),
            hosts: hosts.collect(),
            ..Found::default()
        }
    }
}

fn is_read(store: &Store<DynamicObject>) -> bool {
    store.wait_until_ready().now_or_never().is_some()
}

/// What a watch told at last. That it begins anew says nothing: it does so after each failure.
fn heard(events: &[Result<watcher::Event<DynamicObject>, watcher::Error>]) -> Option<Result<(), String>> {
    events.iter().rev().find_map(|event| match event {
        Ok(watcher::Event::Init) => None,
        Ok(_) => Some(Ok(())),
        Err(error) => Some(Err(chain(error))),
    })
}

fn value(object: &DynamicObject) -> Option<Value> {
    serde_json::to_value(object).ok()
}
