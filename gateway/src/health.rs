//! How the peers are. Each address of each peer cluster is probed all the time; a cluster that refused a name is
//! remembered for that name alone, so that one bad service never takes its cluster out for the others.

pub mod newcomers;
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

/// The addresses of a cluster, by what their probes tell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rotation {
    /// Those in rotation: a handshake through each was completed, and it answers.
    pub alive: Vec<String>,
    /// Those that answered once and do not now.
    pub lost: Vec<String>,
    /// Whether one of those was in rotation a moment ago. Behind one address there may be several gateways, of which one has just ended:
    /// who comes again reaches another.
    pub just_lost: bool,
    /// The part of its weight that the cluster takes: the largest of its addresses'; 0.0 where none is in rotation.
    pub share: f64,
    /// Whether an address's first probe is still under way.
    pub unknown: bool,
}

/// How long an address that went out of rotation is waited for where there is no other.
pub(crate) const COMEBACK: Duration = Duration::from_secs(2);

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

    /// How a cluster can be reached, by its addresses. An address without a probe yet is not known to be its own.
    #[must_use]
    pub fn cluster(&self, cluster: &ClusterName, addresses: impl IntoIterator<Item: AsRef<str>>) -> Rotation {
        let now = Instant::now();
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = peers.get(cluster);
        let mut rotation = Rotation::default();
        for address in addresses {
            let address = address.as_ref();
            let Some(state) = known.and_then(|known| known.get(address)) else {
                rotation.unknown = true;
                continue;
            };
            rotation.unknown |= state.unknown();
            if state.alive() {
                rotation.share = rotation.share.max(state.share(now, self.slow_start));
                rotation.alive.push(address.to_owned());
            } else if state.lost() {
                rotation.just_lost |= state.lost_within(COMEBACK, now);
                rotation.lost.push(address.to_owned());
            }
        }
        rotation
    }

    /// The part of its weight that one address of this cluster's own takes: 0.0 where it is dead. One without a probe yet
    /// is taken: the agent that named it feeds this process, too.
    #[must_use]
    pub fn share(&self, cluster: &ClusterName, address: &str) -> f64 {
        let now = Instant::now();
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let state = peers.get(cluster).and_then(|known| known.get(address));
        state.filter(|state| !state.unknown()).map_or(1.0, |state| state.share(now, self.slow_start))
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

    /// Takes in what a prober learned. Says whether the address is in rotation now, where that changed or its first
    /// probe is over.
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

    /// Everything, for people of this cluster.
    #[must_use]
    pub fn report(&self) -> BTreeMap<ClusterName, BTreeMap<String, PeerState>> {
        self.states(AddressState::report)
    }

    /// What everybody else may know.
    #[must_use]
    pub fn told(&self) -> BTreeMap<ClusterName, BTreeMap<String, PeerState>> {
        self.states(AddressState::told)
    }

    fn states(
        &self,
        one: impl Fn(&AddressState, Instant, Duration) -> PeerState,
    ) -> BTreeMap<ClusterName, BTreeMap<String, PeerState>> {
        let now = Instant::now();
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let states = |known: &BTreeMap<String, AddressState>| {
            known.iter().map(|(address, state)| (address.clone(), one(state, now, self.slow_start))).collect()
        };
        peers.iter().map(|(cluster, known)| (cluster.clone(), states(known))).collect()
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
