//! What the controller asks for is there: gateways with their Service, addresses for peers, the cluster's DNS.
//!
//! [`plan`] decides, from the order, the snapshot and what was read: a function. [`apply`] writes it by server-side apply
//! under one field manager, and does so again when somebody else changes or deletes it, because all of it is watched.
//! Objects that are in no plan any more are taken out. Nothing is done before an order came, and nothing is taken out
//! without one that says so.

mod address;
pub(crate) mod apply;
mod cache;
mod corefile;
mod object;
mod objects;
mod plan;
mod reading;
mod steps;
#[cfg(test)]
mod tests;
mod trial;
mod words;
mod write;

pub(crate) use apply::{Installed, Installing};
pub(crate) use object::COMPONENT;
pub(crate) use objects::image;

use std::sync::Arc;
use tokio::sync::watch;
use tombolo_feed::State;
use tombolo_model::{
    install::{InstallOrder, InstallStatus, InstallStep, StepState, Trial, TrialStatus},
    snapshot::{ClusterResource, ResourceKey, Resources},
};

/// What a snapshot orders; none where nobody ever ordered anything.
pub(crate) fn order(resources: &Resources<ClusterResource>) -> Option<&InstallOrder> {
    match resources.get(&ResourceKey::new("install", "")) {
        Some(ClusterResource::Install(order)) => Some(order),
        _ => None,
    }
}

/// What a snapshot asks to try.
fn trial(resources: &Resources<ClusterResource>) -> Option<&Trial> {
    match resources.get(&ResourceKey::new("trial", "")) {
        Some(ClusterResource::Trial(trial)) => Some(trial),
        _ => None,
    }
}

/// Whether nothing of the agent's is to be there any more.
pub(crate) fn is_removed(resources: &Resources<ClusterResource>) -> bool {
    matches!(order(resources), Some(InstallOrder::Removed { .. }))
}

/// Does what is ordered, or says why it can't.
pub(crate) enum Task {
    /// Of a Kubernetes cluster.
    Kubernetes(Box<Installing>),
    /// Of machines, where nobody can install anything: the snapshot, and where to say it.
    Machine(watch::Receiver<Arc<State<ClusterResource>>>, watch::Sender<Installed>),
}

impl Task {
    /// Runs for as long as it is polled.
    pub(crate) async fn run(self) {
        let (mut snapshot, installed) = match self {
            Self::Kubernetes(installing) => return installing.run().await,
            Self::Machine(snapshot, installed) => (snapshot, installed),
        };
        loop {
            let resources = Arc::clone(&snapshot.borrow_and_update().resources);
            let message =
                || "this agent does not read Kubernetes (--kubernetes): it can install nothing".to_owned();
            let failed =
                || InstallStep { step: "agent".to_owned(), state: StepState::Failed, message: message() };
            let status = order(&resources).map(|order| InstallStatus::of(order, vec![failed()]));
            let trial = trial(&resources).map(|trial| TrialStatus {
                number: trial.number,
                problems: vec![message()],
                ..TrialStatus::default()
            });
            installed.send_if_modified(|old| {
                let differs = !old.known || old.status != status || old.trial != trial;
                (old.known, old.status, old.trial) = (true, status, trial);
                differs
            });
            if snapshot.changed().await.is_err() {
                return;
            }
        }
    }
}
