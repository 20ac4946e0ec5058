//! All organizations in this replica.

use super::{
    channel::FeedGuard,
    org::{Org, OrgState, Settle},
};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::{broadcast, watch};
use tombolo_compile::{Change, Incremental, World};
use tombolo_model::{
    Generation, TrustDomain,
    id::{ClusterId, OrgId},
};
use tombolo_mtls::{BundleLookup, TrustBundle};

/// How many events a reader may be behind before it misses some, and must read again.
const BEHIND: usize = 1024;

/// Something is different in an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The organization.
    pub org: OrgId,
    /// What.
    pub news: News,
}

/// What is different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It came to another generation.
    Generation(Generation),
    /// Something that takes no generation: which clusters are connected, what their agents say.
    Status,
    /// It is no more.
    Gone,
}

/// Why a cluster is not fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// There is no state for it here, or none that may be published.
    NoState,
    /// It has too many feeds open.
    TooMany,
}

#[derive(Default)]
struct Orgs {
    by_id: HashMap<OrgId, Arc<Org>>,
    by_domain: HashMap<TrustDomain, Arc<Org>>,
}

struct Shared {
    orgs: RwLock<Orgs>,
    events: broadcast::Sender<Event>,
}

/// The read handle. Clones share it.
#[derive(Clone)]
pub struct View(Arc<Shared>);

impl Default for View {
    fn default() -> Self {
        Self::new()
    }
}

impl View {
    /// A view without organizations.
    pub fn new() -> Self {
        Self(Arc::new(Shared { orgs: RwLock::default(), events: broadcast::Sender::new(BEHIND) }))
    }

    fn org(&self, org: OrgId) -> Option<Arc<Org>> {
        self.0.orgs.read().unwrap_or_else(PoisonError::into_inner).by_id.get(&org).cloned()
    }

    /// The organizations held here, and the generation of each.
    pub fn generations(&self) -> HashMap<OrgId, Generation> {
        let orgs = self.0.orgs.read().unwrap_or_else(PoisonError::into_inner);
        orgs.by_id.iter().map(|(id, org)| (*id, org.generation())).collect()
    }

    /// An organization's small state.
    pub fn state(&self, org: OrgId) -> Option<Arc<OrgState>> {
        Some(self.org(org)?.state())
    }

    /// The small state of the organization with this trust domain.
    pub fn state_of(&self, trust_domain: &TrustDomain) -> Option<Arc<OrgState>> {
        let orgs = self.0.orgs.read().unwrap_or_else(PoisonError::into_inner);
        Some(orgs.by_domain.get(trust_domain)?.state())
    }

    /// Tells of each new state of an organization in which other clusters may stand; the sender is gone once the organization is.
    pub fn watch(&self, org: OrgId) -> Option<watch::Receiver<Arc<OrgState>>> {
        Some(self.org(org)?.watch())
    }

    /// Reads what was compiled of an organization. Do it quickly: its next generation waits.
    pub fn with<T>(&self, org: OrgId, read: impl FnOnce(&Incremental, Generation) -> T) -> Option<T> {
        Some(self.org(org)?.with(read))
    }

    /// Registers a feed of a cluster.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&self, org: OrgId, cluster: ClusterId) -> Result<FeedGuard, AttachError> {
        let channel = self.org(org).and_then(|org| org.channel(cluster)).ok_or(AttachError::NoState)?;
        channel.attach().ok_or(AttachError::TooMany)
    }

    /// Everything held, for people who look for a fault.
    pub fn dump(&self) -> serde_json::Value {
        let orgs = self.0.orgs.read().unwrap_or_else(PoisonError::into_inner);
        orgs.by_id.values().map(|org| org.dump()).collect()
    }

    /// Tells of every change of every organization. A reader that missed some reads what it wants anew.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Waits until this replica holds `generation` of the organization; whether it does in time. Cancel-safe.
    pub async fn wait_for(&self, org: OrgId, generation: Generation, limit: Duration) -> bool {
        let mut events = self.subscribe();
        let reached = async {
            loop {
                if self.state(org).is_some_and(|state| state.generation >= generation) {
                    return;
                }
                // an error means that events were missed, which is as good a reason to look again
                let _ = events.recv().await;
            }
        };
        tokio::time::timeout(limit, reached).await.is_ok()
    }

    /// Takes a whole organization. The clusters fed here that have something new.
    pub fn put(&self, world: World, generation: Generation) -> Result<Vec<ClusterId>, tombolo_mtls::Error> {
        let (id, domain) = (world.organization.id, world.organization.trust_domain.clone());
        let told = match self.org(id) {
            Some(org) => org.replace(&world, generation)?,
            None => {
                let org = Arc::new(Org::new(world, generation)?);
                let mut orgs = self.0.orgs.write().unwrap_or_else(PoisonError::into_inner);
                orgs.by_id.insert(id, Arc::clone(&org));
                orgs.by_domain.insert(domain, org);
                Vec::new()
            }
        };
        self.tell(id, News::Generation(generation));
        Ok(told)
    }

    /// Takes changes of an organization that is held. The clusters fed here that have something new.
    pub fn apply(
        &self,
        org: OrgId,
        changes: Vec<Change>,
        generation: Generation,
    ) -> Result<Vec<ClusterId>, tombolo_mtls::Error> {
        let Some(held) = self.org(org) else { return Ok(Vec::new()) };
        let told = held.apply(changes, generation)?;
        self.tell(org, News::Generation(generation));
        Ok(told)
    }

    /// Forgets an organization. Its feeds end.
    pub fn remove(&self, org: OrgId) {
        {
            let mut orgs = self.0.orgs.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(held) = orgs.by_id.remove(&org) {
                orgs.by_domain.remove(&held.state().trust_domain);
            }
        }
        self.tell(org, News::Gone);
    }

    /// What the database is to be told of an organization's names; `None` where it knows.
    pub fn settle(&self, org: OrgId) -> Option<Settle> {
        self.org(org)?.settle()
    }

    /// Tells that something is different that takes no generation.
    pub fn status(&self, org: OrgId) {
        self.tell(org, News::Status);
    }

    fn tell(&self, org: OrgId, news: News) {
        // nobody may be listening
        let _ = self.0.events.send(Event { org, news });
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&self.generations()).finish()
    }
}

impl BundleLookup for View {
    fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<TrustBundle>> {
        Some(Arc::clone(&self.state_of(trust_domain)?.bundle))
    }
}
