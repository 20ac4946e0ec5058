//! How the cluster is, told to the controller: at a change (no oftener than once a second), and every ten seconds.

use crate::{
    capture,
    gateways::{Hub, fitting},
    index::View,
    install::Installed,
    locality::{self, Nodes},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tombolo_feed::{Requests, State};
use tombolo_model::snapshot::ClusterResource;
use tombolo_mtls::Intermediate;
use tombolo_runtime::telemetry::chain;
use tombolo_wire::{
    message::{AgentStatus, Problem},
    version::Hello,
};

const PATH: &str = "/agent/v1/status";
/// The longest silence.
const MOST: Duration = Duration::from_secs(10);
/// The shortest gap: what changes meanwhile goes together.
const LEAST: Duration = Duration::from_secs(1);
/// Problems beyond this are counted, not listed.
const MAX_PROBLEMS: usize = 200;

/// What the status is made of.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// The snapshot in force.
    pub snapshot: watch::Receiver<Arc<State<ClusterResource>>>,
    /// What is wrong with the manifests.
    pub source: watch::Receiver<Vec<Problem>>,
    /// Where the nodes stand.
    pub nodes: watch::Receiver<Arc<Nodes>>,
    /// What is wrong with the Services of imported names.
    pub exposing: watch::Receiver<Vec<Problem>>,
    /// What is wrong with the objects of the cluster set.
    pub multicluster: watch::Receiver<Vec<Problem>>,
    /// What signs.
    pub signs: watch::Receiver<Arc<Intermediate>>,
    /// What the controller asked to install.
    pub(crate) installed: watch::Receiver<Installed>,
    /// What is wrong with the injection of proxies into pods.
    pub injecting: watch::Receiver<Vec<Problem>>,
    /// Names that can't be answered here.
    pub names: watch::Receiver<Vec<Problem>>,
    /// The cluster's namespaces, where they have capture modes.
    pub namespaces: Option<watch::Receiver<Arc<View>>>,
    /// What is wrong with the certificates.
    pub certificates: Arc<Mutex<Option<Problem>>>,
    /// What is wrong with what all replicas keep.
    pub state: Arc<Mutex<Option<Problem>>>,
    /// The gateways.
    pub hub: Arc<Hub>,
}

impl Reporting {
    /// The status now.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        let mut problems = self.source.borrow().clone();
        problems.extend(locality::check(&self.snapshot.borrow().resources, &self.nodes.borrow()));
        problems.extend(self.exposing.borrow().iter().cloned());
        problems.extend(self.multicluster.borrow().iter().cloned());
        let installed = self.installed.borrow().clone();
        problems.extend(installed.problems);
        problems.extend(self.injecting.borrow().iter().cloned());
        problems.extend(self.names.borrow().iter().cloned());
        problems.extend(self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone());
        problems.extend(self.state.lock().unwrap_or_else(PoisonError::into_inner).clone());
        problems.extend(self.hub.problems());
        let (gateways, left_out) = fitting(self.hub.gateway_reports());
        problems.extend(left_out);
        if let Some(view) = &self.namespaces {
            problems.extend(capture::problems(&self.snapshot.borrow().resources, &view.borrow().namespaces));
        }
        if problems.len() > MAX_PROBLEMS {
            let more = problems.len() - MAX_PROBLEMS;
            problems.truncate(MAX_PROBLEMS);
            let message = format!("{more} more are in the agent's log and on its admin port");
            problems.push(Problem { subject: "problems".to_owned(), message });
        }
        AgentStatus {
            software: Hello::current("tombolo-agent").software,
            generation: self.snapshot.borrow().generation,
            problems,
            ingress: self.hub.ingress().into_iter().chain(installed.addresses).collect(),
            // whoever has not come yet since we lost sight of all is there all the same
            ingress_unknown: !installed.known || self.hub.forgot(Instant::now()),
            gateways,
            install: installed.status,
            intermediate: Some(self.signs.borrow().fingerprint()),
            trial: installed.trial,
        }
    }

    /// Reports for as long as it is polled.
    pub async fn run(mut self, requests: Requests) {
        let (mut set, mut reports) = (self.hub.watch_set(), self.hub.watch_reports());
        // nothing in haste: in a moment its addresses are known, or why they are not
        let is_told = |installed: &Installed| installed.known || !installed.problems.is_empty();
        if self.installed.wait_for(is_told).await.is_err() {
            return;
        }
        let mut logged = Vec::new();
        let mut failed = None;
        loop {
            let held = Arc::clone(&self.snapshot.borrow_and_update().resources);
            self.source.borrow_and_update();
            self.nodes.borrow_and_update();
            self.exposing.borrow_and_update();
            self.multicluster.borrow_and_update();
            self.injecting.borrow_and_update();
            self.names.borrow_and_update();
            self.installed.borrow_and_update();
            self.signs.borrow_and_update();
            set.borrow_and_update();
            reports.borrow_and_update();
            let status = self.status();
            log_problems(&logged, &status.problems);
            logged.clone_from(&status.problems);
            if let Err(error) = requests.post::<_, ()>(PATH, &status).await {
                let text = chain(&error);
                if error.retry() {
                    tracing::debug!(error = text, "the status could not be reported; it is sent again");
                } else if failed.as_ref() != Some(&text) {
                    tracing::warn!(error = text, "the controller does not take the status; it is sent again");
                }
                failed = Some(text);
                sleep(error.wait(LEAST)).await;
                continue;
            }
            failed = None;
            sleep(LEAST).await;
            let changed = async {
                tokio::select! {
                    // a generation with another number and nothing new comes every other second, in a busy organization
                    changed = self.snapshot.wait_for(|now| !Arc::ptr_eq(&now.resources, &held)) => changed.map(drop),
                    changed = self.source.changed() => changed,
                    changed = self.nodes.changed() => changed,
                    changed = self.names.changed() => changed,
                    changed = self.installed.changed() => changed,
                    changed = set.changed() => changed,
                    changed = reports.changed() => changed,
                }
            };
            if let Ok(Err(_)) = tokio::time::timeout(MOST - LEAST, changed).await {
                return;
            }
        }
    }
}

/// Each problem is logged when it comes.
fn log_problems(before: &[Problem], now: &[Problem]) {
    for problem in now.iter().filter(|problem| !before.contains(problem)) {
        tracing::warn!(problem.subject = problem.subject, "{}", problem.message);
    }
}
