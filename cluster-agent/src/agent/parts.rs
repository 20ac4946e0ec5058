//! All parts of an agent, and their start.

use super::{
    ready::ready,
    source::{Reader, Told, read_source},
    tasks::Tasks,
};
use crate::{
    admin::Shown,
    certificate::{Authority, Renewal},
    dns,
    engine::{self, Engine, Inputs, Outputs, Source},
    expose::apply::Exposing,
    gateways::{self, Doorkeeper, Hub, Listener, PodListener, Siblings},
    health::Checker,
    index::View,
    inject::Injector,
    install,
    lease::Standings,
    locality,
    mcs::apply::Multicluster,
    pod::{Following, snapshot::Keeping},
    report::{Reporter, new_epoch},
    source::McsVersion,
    state::{Lock, Membership},
    status::Reporting,
};
use std::sync::Arc;
use tokio::{net::TcpListener, sync::watch};
use tombolo_feed::{Client, Requests, Running, TlsConnector};
use tombolo_model::snapshot::ClusterResource;
use tombolo_runtime::{
    admin::{self, Readiness},
    drain::Drain,
    metrics::Metrics,
    task,
};
use tombolo_wire::message::Problem;

/// What runs.
pub(super) struct Parts {
    pub(super) feed: Client<ClusterResource>,
    pub(super) running: Running<ClusterResource, TlsConnector>,
    pub(super) renewal: Renewal,
    pub(super) reader: Reader,
    pub(super) exposing: Option<Exposing>,
    pub(super) multicluster: Option<Multicluster>,
    pub(super) mcs: watch::Sender<Option<McsVersion>>,
    pub(super) installing: install::Task,
    pub(super) injector: Option<Injector>,
    pub(super) standings: Standings,
    pub(super) writes: watch::Sender<bool>,
    pub(super) siblings: Option<Siblings>,
    pub(super) following: Option<Following>,
    pub(super) keeping: Option<Keeping>,
    pub(super) source: watch::Sender<Source>,
    pub(super) source_problems: watch::Sender<Vec<Problem>>,
    pub(super) nodes: watch::Sender<Arc<locality::Nodes>>,
    pub(super) checker: Checker,
    pub(super) inputs: Inputs,
    pub(super) outputs: Outputs,
    pub(super) engine: Engine,
    pub(super) hub: Arc<Hub>,
    pub(super) authority: Arc<Authority>,
    pub(super) listener: Option<Listener>,
    pub(super) pods: Option<(PodListener, Doorkeeper)>,
    pub(super) dns: Option<dns::Server>,
    pub(super) admin: Option<TcpListener>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shown: Shown,
    pub(super) view: watch::Sender<Arc<View>>,
    pub(super) lock: Lock,
}

impl Parts {
    pub(super) fn start(self, membership: &Arc<Membership>, drain: &Drain) -> (Tasks, Lock) {
        let mut tasks = Tasks(Vec::new());
        let requests = self.feed.requests();
        // These two end in order once the draining begins, and hold it up until then.
        if let Some(dns) = self.dns {
            let stop = drain.watch();
            tasks.spawn("dns", async move { dns.run(stop.signaled()).await });
        }
        let context = gateways::Context {
            hub: Arc::clone(&self.hub),
            authority: Arc::clone(&self.authority),
            membership: Arc::clone(membership),
            view: self.view.subscribe(),
            snapshot: self.feed.state(),
            standings: self.standings.clone(),
            reading: gateways::Reading::default(),
            stop: drain.watch(),
        };
        if let Some((listener, keeper)) = self.pods {
            tasks.spawn("gateways in pods", listener.run(context.clone(), keeper));
        }
        if let Some(listener) = self.listener {
            tasks.spawn("gateways", listener.run(context));
        } else {
            drop(context);
        }
        let readiness = Readiness::new();
        if let Some(listener) = self.admin {
            let routes = self.shown.routes();
            task::spawn(
                "admin",
                admin::serve(listener, self.metrics, readiness.clone(), routes, drain.watch()),
            );
        }
        tasks.spawn("feed", self.running.run());
        let snapshot = self.feed.state();
        tasks.spawn("certificates", {
            let (requests, snapshot) = (requests.clone(), snapshot.clone());
            let resources = move || Arc::clone(&snapshot.borrow().resources);
            self.renewal.run(requests, resources, self.standings.clone())
        });
        tasks.spawn("gateway expiry", Arc::clone(&self.hub).expire(self.view.subscribe()));
        let told = Told {
            source: self.source,
            view: self.view,
            problems: self.source_problems,
            nodes: self.nodes,
            mcs: self.mcs,
        };
        tasks.spawn("source", read_source(self.reader, told));
        if let Some(exposing) = self.exposing {
            tasks.spawn("exposing", exposing.run(self.standings.clone()));
        }
        if let Some(multicluster) = self.multicluster {
            let work = move || multicluster.clone().run();
            tasks.spawn("multicluster", self.standings.clone().while_writing(work));
        }
        tasks.spawn("installing", self.installing.run());
        if let Some(injector) = self.injector {
            let stop = drain.watch();
            tasks.spawn("injector", async move { injector.run(stop).await });
        }
        tasks.spawn("health", self.checker.run());
        tasks.spawn("standing", self.standings.clone().tell(self.writes));
        if let Some(siblings) = self.siblings {
            tasks.spawn("replicas", siblings.run());
        }
        if let Some(following) = self.following {
            tasks.spawn("membership", following.run());
        }
        if let Some(keeping) = self.keeping {
            let work = self.standings.clone().while_writing(move || keeping.clone().run());
            tasks.spawn("kept snapshot", work);
        }
        report(&mut tasks, &requests, &self.outputs, self.shown.reporting, &self.standings);
        tasks.spawn("engine", engine::run(self.inputs, self.outputs, self.engine));
        tasks.spawn("readiness", ready(readiness, snapshot, self.feed.status()));
        (tasks, self.lock)
    }
}

fn report(
    tasks: &mut Tasks,
    requests: &Requests,
    outputs: &Outputs,
    reporting: Reporting,
    standings: &Standings,
) {
    let (to, inventory) = (requests.clone(), outputs.inventory.subscribe());
    // Whoever begins to speak begins with all of it.
    let whole = move || Reporter::new(new_epoch(&mut rand::rng())).run(to.clone(), inventory.clone());
    tasks.spawn("inventory", standings.clone().while_speaking(whole));
    let to = requests.clone();
    tasks.spawn("status", standings.clone().while_speaking(move || reporting.clone().run(to.clone())));
}
