//! The identities that this process may show: its own, and those of the workloads it stands beside.

use arc_swap::{ArcSwap, ArcSwapOption};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;
use tombolo_model::SpiffeId;
use tombolo_mtls::Credentials;

/// Live credentials by identity. Filled by the feed's side, read by the data path.
#[derive(Debug, Default)]
pub struct CredentialSet {
    own: ArcSwapOption<Credentials>,
    workloads: ArcSwap<BTreeMap<SpiffeId, Credentials>>,
    /// Rises when some are added.
    added: watch::Sender<u64>,
}

impl CredentialSet {
    /// Nobody's yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// The gateway's own.
    pub fn own(&self) -> Option<Credentials> {
        self.own.load().as_deref().cloned()
    }
    /// Sets the gateway's own.
    pub fn set_own(&self, credentials: Credentials) {
        self.own.store(Some(Arc::new(credentials)));
        self.added.send_modify(|count| *count += 1);
    }
    /// The gateway's own, once they are there. Cancel-safe.
    pub async fn wait_own(&self) -> Option<Credentials> {
        self.wait_for(Self::own).await
    }
    /// Those of a workload.
    pub fn get(&self, id: &SpiffeId) -> Option<Credentials> {
        self.workloads.load().get(id).cloned()
    }
    /// Those of a workload, once they are there. Cancel-safe.
    pub async fn wait(&self, id: &SpiffeId) -> Option<Credentials> {
        self.wait_for(|all| all.get(id)).await
    }
    async fn wait_for(&self, find: impl Fn(&Self) -> Option<Credentials>) -> Option<Credentials> {
        let mut added = self.added.subscribe();
        loop {
            if let Some(credentials) = find(self) {
                return Some(credentials);
            }
            added.changed().await.ok()?;
        }
    }
    /// Those of one of the workloads that has a certificate.
    pub fn any(&self) -> Option<Credentials> {
        self.workloads.load().values().find(|credentials| credentials.ready()).cloned()
    }
    /// Adds those of a workload, or replaces them.
    pub fn insert(&self, credentials: Credentials) {
        self.workloads.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.insert(credentials.id().clone(), credentials.clone());
            all
        });
        self.added.send_modify(|count| *count += 1);
    }
    /// Forgets those of a workload.
    pub fn remove(&self, id: &SpiffeId) {
        self.workloads.rcu(|all| {
            let mut all = BTreeMap::clone(all);
            all.remove(id);
            all
        });
    }
    /// Whose there are.
    pub fn ids(&self) -> Vec<SpiffeId> {
        self.workloads.load().keys().cloned().collect()
    }
}
