//! How the peers are. Each address of each peer cluster is probed all the time; a cluster that refused a name is
//! remembered for that name alone, so that one bad service never takes its cluster out for the others.

pub mod prober;
pub mod refusals;
pub mod state;

use refusals::Refusals;
use state::{AddressState, Event};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tombolo_model::{ClusterName, GlobalName};
use tombolo_wire::message::PeerState;

/// What is known of every peer.
#[derive(Debug)]
pub struct Health {
    slow_start: Duration,
    peers: Mutex<BTreeMap<ClusterName, BTreeMap<String, AddressState>>>,
    refusals: Mutex<Refusals>,
    demand: watch::Sender<u64>,
    changes: watch::Sender<u64>,
}

impl Health {
    /// Nothing known yet.
    #[must_use]
    pub fn new(slow_start: Duration) -> Self {
        Self {
            slow_start,
            peers: Mutex::default(),
            refusals: Mutex::default(),
            demand: watch::Sender::new(0),
            changes: watch::Sender::new(0),
        }
    }

    /// The addresses of a cluster that are in rotation, and the part of its weight that it takes: the largest of
    /// theirs. An address without a probe yet is taken.
    #[must_use]
    pub fn cluster(&self, cluster: &ClusterName, addresses: &[String]) -> (Vec<String>, f64) {
        let now = Instant::now();
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = peers.get(cluster);
        let mut share: f64 = 0.0;
        let mut alive = Vec::with_capacity(addresses.len());
        for address in addresses {
            let part = known
                .and_then(|known| known.get(address))
                .map_or(1.0, |state| state.share(now, self.slow_start));
            if part > 0.0 {
                share = share.max(part);
                alive.push(address.clone());
            }
        }
        (alive, share)
    }

    /// The part of its weight that one address takes: 0.0 where it is dead. One without a probe yet is taken.
    #[must_use]
    pub fn share(&self, cluster: &ClusterName, address: &str) -> f64 {
        let now = Instant::now();
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let state = peers.get(cluster).and_then(|known| known.get(address));
        state.map_or(1.0, |state| state.share(now, self.slow_start))
    }

    /// Whether a handshake was ever completed through this address, from here.
    #[must_use]
    pub fn proven(&self, cluster: &ClusterName, address: &str) -> bool {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(cluster).and_then(|known| known.get(address)).is_some_and(AddressState::proven)
    }

    /// Whether a cluster refused a name lately.
    #[must_use]
    pub fn refused(&self, cluster: &ClusterName, name: &GlobalName) -> bool {
        self.refusals().contains(cluster, name, Instant::now())
    }
    /// A cluster refused a name.
    pub fn refuse(&self, cluster: &ClusterName, name: &GlobalName) {
        self.refusals().add(cluster, name, Instant::now());
    }
    /// A cluster served a name.
    pub fn serve(&self, cluster: &ClusterName, name: &GlobalName) {
        self.refusals().clear(cluster, name);
    }

    /// Changes from now on, for [`Self::demand_change`].
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Somebody needs a peer and all are dead: has them probed at once, and waits for any to change, until `patience` is over.
    /// Says whether one did; it may have been another one.
    pub(crate) async fn demand_change(&self, changes: &mut watch::Receiver<u64>, patience: Instant) -> bool {
        self.demand.send_modify(|number| *number += 1);
        timeout_at(patience, changes.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    /// Wakes when somebody needs a peer and all are dead.
    pub(crate) fn demand(&self) -> watch::Receiver<u64> {
        self.demand.subscribe()
    }

    /// Takes in what a prober learned. Says whether the address is in rotation now, where that changed.
    pub(crate) fn on(&self, cluster: &ClusterName, address: &str, event: Event) -> Option<bool> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let state = peers.entry(cluster.clone()).or_default().entry(address.to_owned()).or_default();
        let changed = state.on(event, Instant::now()).then(|| state.alive());
        if changed.is_some() {
            self.changes.send_modify(|number| *number += 1);
        }
        changed
    }

    /// Forgets an address that is not of the cluster any more.
    pub(crate) fn forget(&self, cluster: &ClusterName, address: &str) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = peers.get_mut(cluster) {
            known.remove(address);
            if known.is_empty() {
                peers.remove(cluster);
            }
        }
    }

    /// Everything, for reports.
    #[must_use]
    pub fn report(&self) -> BTreeMap<ClusterName, BTreeMap<String, PeerState>> {
        let now = Instant::now();
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let states = |known: &BTreeMap<String, AddressState>| {
            known
                .iter()
                .map(|(address, state)| (address.clone(), state.report(now, self.slow_start)))
                .collect()
        };
        peers.iter().map(|(cluster, known)| (cluster.clone(), states(known))).collect()
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
