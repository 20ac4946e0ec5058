//! Open connections and the rights they stand on. When a right ends (an intermediate leaves the bundle, a cluster
//! leaves a service's callers) the connection ends, and its log line says why.
//!
//! A connection first says what it relies on and then checks it: whoever changes the rights first swaps them and then
//! looks here. So either the connection sees the new rights, or the change sees the connection.

use crate::{error::Refusal, reason::Reason, table::RouteTable};
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tombolo_model::{ClusterName, GlobalName, SpiffeId};
use tombolo_mtls::{Peer, TrustBundle};

/// What a ticket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A connection of an application: counted, bounded, and ended before the tunnels below.
    Connection,
    /// A tunnel.
    Tunnel,
}

#[derive(Debug, Default)]
struct Facts {
    peers: Vec<Peer>,
    claimed: Option<ClusterName>,
    grant: Option<(GlobalName, ClusterName)>,
    label: Label,
}

/// From where to where something goes, for people: put into words when somebody asks.
#[derive(Debug, Default)]
enum Label {
    #[default]
    None,
    Text(String),
    Way(Way),
}

/// The way of a connection, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) source: Option<SpiffeId>,
    pub(crate) name: Option<GlobalName>,
    pub(crate) port: Option<u16>,
    pub(crate) cluster: Option<ClusterName>,
    pub(crate) upstream: Option<String>,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn known<T: fmt::Display>(f: &mut fmt::Formatter<'_>, value: Option<&T>) -> fmt::Result {
            match value {
                Some(value) => value.fmt(f),
                None => f.write_str("?"),
            }
        }
        let Way { source, name, port, cluster, upstream } = match self {
            Self::None => return Ok(()),
            Self::Text(text) => return f.write_str(text),
            Self::Way(way) => way,
        };
        known(f, source.as_ref())?;
        f.write_str(" → ")?;
        known(f, name.as_ref())?;
        f.write_str(":")?;
        known(f, port.as_ref())?;
        f.write_str(" in ")?;
        known(f, cluster.as_ref())?;
        f.write_str(" by ")?;
        known(f, upstream.as_ref())
    }
}

/// An open connection, for people to look at.
#[derive(Clone, Debug)]
pub struct Open {
    /// Its number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// When it began.
    pub since: Instant,
    /// The identities that it relies on.
    pub peers: Vec<SpiffeId>,
    /// The name called, and the cluster that may.
    pub grant: Option<(GlobalName, ClusterName)>,
    /// From where to where.
    pub label: String,
}

#[derive(Debug)]
struct Entry {
    kind: Kind,
    since: Instant,
    facts: Mutex<Facts>,
    /// With `ended`, or when it is to end once it is quiet. Bytes that move look at this alone.
    told: CancellationToken,
    ended: CancellationToken,
    reason: OnceLock<Reason>,
}

impl Entry {
    fn end(&self, reason: Reason) {
        let _ = self.reason.set(reason);
        self.ended.cancel();
        self.told.cancel();
    }

    fn lost(&self, table: &RouteTable, bundle: Option<&TrustBundle>) -> Option<Reason> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let stands = |peer: &Peer| bundle.is_some_and(|bundle| bundle.stands(peer));
        if !facts.peers.iter().all(stands) {
            return Some(Reason::Revoked);
        }
        let listed = |cluster: &ClusterName| table.bundle().is_some_and(|b| b.clusters.contains_key(cluster));
        if facts.claimed.as_ref().is_some_and(|cluster| !listed(cluster)) {
            return Some(Reason::Revoked);
        }
        let (name, caller) = facts.grant.as_ref()?;
        match table.export(name) {
            None => Some(Reason::NotExported),
            Some(export) if !export.callers.contains(caller) => Some(Reason::NotACaller),
            Some(_) => None,
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    open: Mutex<HashMap<u64, Arc<Entry>>>,
    next: AtomicU64,
    connections: AtomicUsize,
    limit: usize,
}

/// The registry. Clones share it.
#[derive(Clone, Debug)]
pub struct Conns(Arc<Inner>);

impl Conns {
    /// A registry that admits this many connections at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit, ..Inner::default() }))
    }

    /// A number of its own for a new connection, whether it is admitted or not.
    pub fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lets a connection in.
    ///
    /// # Errors
    /// [`Reason::Overloaded`] where the bound is reached.
    pub fn admit(&self, kind: Kind, number: u64) -> Result<Ticket, Refusal> {
        if kind == Kind::Connection {
            let limit = self.0.limit;
            let one_more = |count: usize| (count < limit).then_some(count + 1);
            if self.0.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
                return Err(Refusal::new(Reason::Overloaded, format!("{limit} connections are open")));
            }
        }
        let entry = Arc::new(Entry {
            kind,
            since: Instant::now(),
            facts: Mutex::default(),
            told: CancellationToken::new(),
            ended: CancellationToken::new(),
            reason: OnceLock::new(),
        });
        self.lock().insert(number, entry.clone());
        Ok(Ticket { number, entry, conns: self.clone() })
    }

    /// Connections of applications that are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.connections.load(Ordering::Relaxed)
    }
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is open, by number, at most this many.
    #[must_use]
    pub fn list(&self, most: usize) -> Vec<Open> {
        let mut open: Vec<(u64, Arc<Entry>)> =
            self.lock().iter().map(|(number, entry)| (*number, entry.clone())).collect();
        open.sort_unstable_by_key(|(number, _)| *number);
        open.truncate(most);
        let describe = |(number, entry): (u64, Arc<Entry>)| {
            let facts = entry.facts.lock().unwrap_or_else(PoisonError::into_inner);
            Open {
                number,
                kind: entry.kind,
                since: entry.since,
                peers: facts.peers.iter().map(|peer| peer.id.clone()).collect(),
                grant: facts.grant.clone(),
                label: facts.label.to_string(),
            }
        };
        open.into_iter().map(describe).collect()
    }

    /// Ends whatever lost its right. Call it after the new table and bundle are in force. Says how many.
    pub fn recheck(&self, table: &RouteTable, bundle: Option<&TrustBundle>) -> usize {
        self.end_where(|entry| entry.lost(table, bundle))
    }

    /// Ends everything.
    pub fn end_all(&self, reason: Reason) -> usize {
        self.end_where(|_| Some(reason))
    }

    /// Each connection is to end in order, once it is quiet.
    pub fn end_quiet(&self) {
        let open: Vec<Arc<Entry>> = self.lock().values().cloned().collect();
        open.iter().for_each(|entry| entry.told.cancel());
    }

    fn end_where(&self, why: impl Fn(&Entry) -> Option<Reason>) -> usize {
        let open: Vec<Arc<Entry>> = self.lock().values().cloned().collect();
        let losing: Vec<(Arc<Entry>, Reason)> =
            open.into_iter().filter_map(|entry| why(&entry).map(|reason| (entry, reason))).collect();
        // A stream must learn the true reason before the tunnel below takes it down.
        for kind in [Kind::Connection, Kind::Tunnel] {
            losing.iter().filter(|(entry, _)| entry.kind == kind).for_each(|(entry, why)| entry.end(*why));
        }
        losing.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends one connection.
#[derive(Clone, Debug)]
pub(crate) struct Cut(Arc<Entry>);

impl Cut {
    /// Ends it, for this reason.
    pub(crate) fn end(&self, reason: Reason) {
        self.0.end(reason);
    }
}

/// A connection's place in the registry, until it is dropped.
pub struct Ticket {
    number: u64,
    entry: Arc<Entry>,
    conns: Conns,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.number)
    }
}

impl Ticket {
    /// The connection lives as long as the bundle lists the intermediate that vouched for this peer.
    ///
    /// # Errors
    /// [`Reason::Revoked`] where it is not listed any more.
    pub fn relies_on(&self, peer: &Peer, bundle: Option<&TrustBundle>) -> Result<(), Refusal> {
        self.facts().peers.push(peer.clone());
        if bundle.is_some_and(|bundle| bundle.stands(peer)) {
            Ok(())
        } else {
            Err(Refusal::new(Reason::Revoked, format!("{} is not in the trust bundle", peer.id)))
        }
    }

    /// The connection lives as long as this cluster stands, for which a peer speaks.
    pub fn relies_on_cluster(&self, cluster: &ClusterName) {
        self.facts().claimed = Some(cluster.clone());
    }

    /// The connection lives as long as `caller` may call `name`.
    pub fn relies_on_grant(&self, name: &GlobalName, caller: &ClusterName) {
        self.facts().grant = Some((name.clone(), caller.clone()));
    }

    /// Looks whether everything that the connection relies on stands.
    ///
    /// # Errors
    /// The reason why it does not.
    pub fn check(&self, table: &RouteTable, bundle: Option<&TrustBundle>) -> Result<(), Refusal> {
        match self.entry.lost(table, bundle) {
            None => Ok(()),
            Some(reason) => Err(Refusal::new(reason, "a right was taken away while the path opened")),
        }
    }

    /// Says from where to where it goes, for people.
    pub fn describe(&self, label: String) {
        self.facts().label = Label::Text(label);
    }

    /// The same, of a connection.
    pub(crate) fn goes(&self, way: Way) {
        self.facts().label = Label::Way(way);
    }

    /// Its number.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// What ends it.
    pub(crate) fn cut(&self) -> Cut {
        Cut(Arc::clone(&self.entry))
    }

    /// Waits until the connection has to end, or is to end once it is quiet. Cancel-safe.
    pub async fn told(&self) {
        self.entry.told.cancelled().await;
    }

    /// Waits until the connection has to end, and says why. Cancel-safe.
    pub async fn ended(&self) -> Reason {
        self.entry.ended.cancelled().await;
        self.entry.reason.get().copied().unwrap_or(Reason::Draining)
    }

    fn facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.entry.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.conns.lock().remove(&self.number);
        if self.entry.kind == Kind::Connection {
            self.conns.0.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
