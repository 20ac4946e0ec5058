//! Who may hold a connection. Places are shared out so that strangers cannot keep agents away: those who are shaking
//! hands and those who showed no agent's certificate together take at most half of them, and few from one address.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tombolo_model::{ClusterName, SpiffePath, TrustDomain};
use tombolo_mtls::Peer;
use tombolo_runtime::places::Source;

/// Connections of one cluster's agent: one, and a few that nobody has seen die yet.
const PER_CLUSTER: usize = 32;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At a time.
    pub connections: usize,
    /// Of these, from one address (IPv6: from one /64) without an agent's certificate.
    pub per_source: usize,
    /// A connection without a request under way is closed after this long.
    pub idle: Duration,
}

impl Limits {
    /// Those who are shaking hands, at a time.
    pub(crate) const fn handshakes(self) -> usize {
        self.connections / 8
    }

    /// Those without an agent's certificate, at a time; with the handshakes they are half of all.
    const fn strangers(self) -> usize {
        self.connections / 2 - self.handshakes()
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Too many from this address.
    Source,
    /// Too many strangers.
    Strangers,
    /// Too many of this cluster.
    Cluster,
    /// Too many.
    All,
}

impl Full {
    /// For the metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Strangers => "strangers",
            Self::Cluster => "cluster",
            Self::All => "all",
        }
    }
}

/// Of one address. The two are apart, so that an agent finds a door beside a neighbour who sits on all it can get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct OfSource {
    handshakes: usize,
    strangers: usize,
}

#[derive(Debug, Default)]
struct Taken {
    sources: HashMap<Source, OfSource>,
    strangers: usize,
    clusters: HashMap<(TrustDomain, ClusterName), usize>,
    agents: usize,
}

/// The places. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    limits: Limits,
    taken: Arc<Mutex<Taken>>,
}

impl Places {
    /// All free.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, taken: Arc::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody knocks; who, is not known yet. How many shake hands in all is not counted here.
    pub(crate) fn knock(&self, source: Source) -> Result<Place, Full> {
        let mut taken = self.lock();
        let of = taken.sources.entry(source).or_default();
        if of.handshakes >= self.limits.per_source {
            return Err(Full::Source);
        }
        of.handshakes += 1;
        Ok(Place { places: self.clone(), source, held: Held::Handshake })
    }
}

#[derive(Debug)]
enum Held {
    Handshake,
    Stranger,
    Agent((TrustDomain, ClusterName)),
    /// The handshake is over, and there was no place.
    Nothing,
}

/// A place; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    source: Source,
    held: Held,
}

impl Place {
    /// The handshake is over. An agent takes a place of its own kind, and does not count for its address; a workload
    /// that shows its certificate is a stranger here.
    pub(crate) fn settle(&mut self, peer: Option<&Peer>) -> Result<(), Full> {
        let limits = self.places.limits;
        let mut taken = self.places.lock();
        let taken = &mut *taken;
        release(taken, self.source, std::mem::replace(&mut self.held, Held::Nothing));
        match peer.filter(|peer| peer.id.path == SpiffePath::Agent) {
            None => {
                let of = taken.sources.entry(self.source).or_default();
                if of.strangers >= limits.per_source {
                    return Err(Full::Source);
                }
                if taken.strangers >= limits.strangers() {
                    forget_empty(taken, self.source);
                    return Err(Full::Strangers);
                }
                of.strangers += 1;
                taken.strangers += 1;
                self.held = Held::Stranger;
            }
            Some(peer) => {
                if taken.agents + taken.strangers >= limits.connections - limits.handshakes() {
                    return Err(Full::All);
                }
                let key = (peer.id.trust_domain.clone(), peer.id.cluster.clone());
                let count = taken.clusters.entry(key.clone()).or_default();
                if *count >= PER_CLUSTER {
                    return Err(Full::Cluster);
                }
                *count += 1;
                taken.agents += 1;
                self.held = Held::Agent(key);
            }
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let held = std::mem::replace(&mut self.held, Held::Nothing);
        release(&mut self.places.lock(), self.source, held);
    }
}

fn release(taken: &mut Taken, source: Source, held: Held) {
    match held {
        Held::Nothing => {}
        Held::Handshake => {
            taken.sources.entry(source).or_default().handshakes -= 1;
            forget_empty(taken, source);
        }
        Held::Stranger => {
            taken.strangers -= 1;
            taken.sources.entry(source).or_default().strangers -= 1;
            forget_empty(taken, source);
        }
        Held::Agent(key) => {
            taken.agents -= 1;
            if let Some(count) = taken.clusters.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    taken.clusters.remove(&key);
                }
            }
        }
    }
}

/// What counts nothing takes no memory.
fn forget_empty(taken: &mut Taken, source: Source) {
    if taken.sources.get(&source) == Some(&OfSource::default()) {
        taken.sources.remove(&source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tombolo_model::SpiffeId;
    use tombolo_testkit::build::name;

    const LIMITS: Limits = Limits { connections: 16, per_source: 4, idle: Duration::from_secs(30) };

    fn agent(cluster: &str) -> Peer {
        let id = SpiffeId::agent(&name("acme.tombolo.internal"), &name(cluster));
        Peer { id, intermediate: tombolo_model::snapshot::CaFingerprint::new([7; 32]) }
    }

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    fn settled(places: &Places, from: &str, peer: Option<&Peer>) -> Result<Place, Full> {
        let mut place = places.knock(source(from))?;
        place.settle(peer).map(|()| place)
    }

    #[test]
    fn one_address_has_its_share() {
        let places = Places::new(LIMITS);
        let mut knocking: Vec<_> = (0..4).map(|_| places.knock(source("192.0.2.1")).unwrap()).collect();
        assert_eq!(places.knock(source("192.0.2.1")).unwrap_err(), Full::Source);
        assert!(places.knock(source("192.0.2.2")).is_ok());
        knocking.pop();
        assert!(places.knock(source("192.0.2.1")).is_ok());
        knocking.clear();

        let mut held: Vec<_> = (0..4).map(|_| settled(&places, "192.0.2.1", None).unwrap()).collect();
        assert_eq!(settled(&places, "192.0.2.1", None).unwrap_err(), Full::Source);
        // an agent at the same address does not suffer from that
        held.push(settled(&places, "192.0.2.1", Some(&agent("cluster-1"))).unwrap());
        drop(held);
        let taken = places.lock();
        assert!(taken.sources.is_empty() && taken.clusters.is_empty(), "{taken:?}");
        assert_eq!((taken.strangers, taken.agents), (0, 0));
    }

    #[test]
    fn strangers_leave_places_for_agents() {
        let places = Places::new(LIMITS);
        let mut held = Vec::new();
        for n in 0..LIMITS.strangers() {
            held.push(settled(&places, &format!("192.0.2.{n}"), None).unwrap());
        }
        assert_eq!(settled(&places, "192.0.2.99", None).unwrap_err(), Full::Strangers);
        // a workload's certificate opens no agents' place
        let mut workload = agent("cluster-1");
        workload.id.path = SpiffePath::Workload { namespace: name("a"), account: name("b") };
        assert_eq!(settled(&places, "192.0.2.99", Some(&workload)).unwrap_err(), Full::Strangers);
        let agents = LIMITS.connections - LIMITS.handshakes() - LIMITS.strangers();
        assert!(agents >= LIMITS.connections / 2);
        for n in 0..agents {
            held.push(settled(&places, "192.0.2.99", Some(&agent(&format!("cluster-{n}")))).unwrap());
        }
        assert_eq!(settled(&places, "192.0.2.99", Some(&agent("late"))).unwrap_err(), Full::All);
    }

    #[test]
    fn one_cluster_does_not_take_all() {
        let places = Places::new(Limits { connections: 8192, ..LIMITS });
        let held: Vec<_> =
            (0..PER_CLUSTER).map(|_| settled(&places, "192.0.2.1", Some(&agent("one"))).unwrap()).collect();
        assert_eq!(settled(&places, "192.0.2.1", Some(&agent("one"))).unwrap_err(), Full::Cluster);
        assert!(settled(&places, "192.0.2.1", Some(&agent("two"))).is_ok());
        drop(held);
        assert!(settled(&places, "192.0.2.1", Some(&agent("one"))).is_ok());
    }
}
