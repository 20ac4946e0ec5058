//! What every part of the process shares, and the one way by which a new snapshot comes into force.

use crate::{
    accesslog::{AccessLog, Record},
    budget::Budget,
    config::{Config, Way},
    conns::Conns,
    credentials::CredentialSet,
    error,
    health::{Health, newcomers, prober},
    load::Loads,
    metrics::Metrics,
    pool::{Key, Pool},
    reason::Reason,
    table::{self, RouteTable, TableError},
    tunnel::Dialer,
};
use arc_swap::ArcSwap;
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tombolo_model::{
    ClusterName, GatewayRole, Generation, SpiffeId,
    snapshot::{GatewayResource, Resources},
};
use tombolo_mtls::{BundleStore, TrustBundle};
use tombolo_runtime::{clock::Clock, task};
use tombolo_wire::message::{CaptureWay, GatewayStatus, NodeCapture};

/// Why a snapshot was refused whole.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It makes no table.
    #[error("the snapshot makes no route table")]
    Table(#[from] TableError),
    /// It has no trust bundle, so nobody could be believed.
    #[error("the snapshot has no trust bundle; upgrade the agent")]
    NoBundle,
    /// Its trust bundle can't be read.
    #[error("the snapshot's trust bundle can't be used")]
    Bundle(#[from] tombolo_mtls::Error),
}

/// Builds what a snapshot brings, without putting it into force.
///
/// # Errors
/// [`ApplyError`].
pub fn prepare(
    resources: &Resources<GatewayResource>,
) -> Result<(RouteTable, Option<TrustBundle>), ApplyError> {
    let table = table::build(resources)?;
    let bundle = match table.bundle() {
        Some(spec) => Some(TrustBundle::from_spec(spec)?),
        None if resources.is_empty() => None,
        None => return Err(ApplyError::NoBundle),
    };
    Ok((table, bundle))
}

/// Shared by everything in the process.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Config,
    /// The table in force. Load it once for each connection.
    pub table: ArcSwap<RouteTable>,
    /// Whom to believe.
    pub bundle: BundleStore,
    /// Which identities this process can show.
    pub credentials: CredentialSet,
    /// Open connections.
    pub conns: Conns,
    /// The peers' health.
    pub health: Health,
    /// The health of this cluster's own egress gateways, where they are used.
    pub egress_health: Health,
    /// What waits here for those who do not read.
    pub budget: Budget,
    /// Tunnels to others.
    pub pool: Pool,
    /// Counters.
    pub metrics: Metrics,
    /// The access log.
    pub log: AccessLog,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Connections by cluster that serves them.
    pub cluster_loads: Loads<ClusterName>,
    /// Connections by address of a peer's or an own gateway.
    pub gateway_loads: Loads<Arc<str>>,
    /// Connections by the peer that brought them.
    pub peer_loads: Loads<SpiffeId>,
    /// Tunnels by the peer that dialled them.
    pub tunnel_loads: Loads<SpiffeId>,
    /// Connections by endpoint.
    pub endpoint_loads: Loads<SocketAddr>,
    tunnel: OnceLock<SocketAddr>,
    leaving: AtomicBool,
    /// How connections of a node's pods come.
    capture: Mutex<Option<NodeCapture>>,
    changed: watch::Sender<u64>,
    calls: watch::Sender<Instant>,
    probers: Mutex<HashMap<Key, CancellationToken>>,
    /// Whether addresses wait to be dialled, until there have been fewer new ones.
    waits: AtomicBool,
    began: Instant,
}

/// How long after its start a process may be told of things later than others are told of it.
const NEW: Duration = Duration::from_secs(10);

impl Shared {
    /// A process that knows nothing yet: it refuses every connection until the first snapshot.
    #[must_use]
    pub fn new(config: Config, metrics: Metrics, log: AccessLog, clock: Arc<dyn Clock>) -> Arc<Self> {
        let bundle = BundleStore::new();
        let conns = Conns::new(config.limits.connections);
        let (limits, timing) = (config.limits, config.timing);
        let loopback = config.dials_loopback();
        let budget = Budget::new(limits.buffers, limits.stream_window);
        let dialer = Dialer {
            limits,
            timing,
            conns: conns.clone(),
            bundle: bundle.clone(),
            loopback,
            never: config.never_dial.as_slice().into(),
            budget: budget.clone(),
        };
        Arc::new(Self {
            table: ArcSwap::default(),
            bundle,
            credentials: CredentialSet::new(),
            conns,
            health: Health::new(timing.slow_start),
            egress_health: Health::new(timing.slow_start),
            budget,
            pool: Pool::new(dialer, config.lanes.count()),
            metrics,
            log,
            clock,
            cluster_loads: Loads::default(),
            gateway_loads: Loads::default(),
            peer_loads: Loads::default(),
            tunnel_loads: Loads::default(),
            endpoint_loads: Loads::default(),
            tunnel: OnceLock::new(),
            leaving: AtomicBool::new(false),
            capture: Mutex::default(),
            changed: watch::Sender::new(0),
            calls: watch::Sender::new(Instant::now()),
            probers: Mutex::default(),
            waits: AtomicBool::new(false),
            began: Instant::now(),
            config,
        })
    }

    /// Puts a snapshot into force, whole, and ends the connections that lose their right by it.
    ///
    /// # Errors
    /// [`ApplyError`]; then everything stays as it was.
    pub fn apply(self: &Arc<Self>, resources: &Resources<GatewayResource>) -> Result<(), ApplyError> {
        let (table, bundle) = prepare(resources)?;
        if let Some(bundle) = bundle {
            self.bundle.set(bundle);
        }
        let table = Arc::new(table);
        self.table.store(table.clone());
        // After the swap: see `conns` for why none slips through.
        let ended = self.conns.recheck(&table, self.bundle.get().as_deref());
        if ended > 0 {
            tracing::info!(connections.count = ended, "connections lost their right by the new snapshot");
        }
        if self.config.role != GatewayRole::Ingress {
            self.retarget(&table);
        }
        self.changed.send_modify(|number| *number += 1);
        Ok(())
    }

    /// Whether this process began a moment ago.
    pub(crate) fn is_new(&self) -> bool {
        self.began.elapsed() < NEW
    }

    /// Wakes at each table that came into force.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A call through an egress gateway begins.
    pub(crate) fn call(&self) {
        self.calls.send_replace(Instant::now());
    }
    /// When the last call through an egress gateway began.
    pub(crate) fn calls(&self) -> watch::Receiver<Instant> {
        self.calls.subscribe()
    }

    /// The health of gateways of this role, which this process uses.
    pub(crate) fn health_of(&self, role: GatewayRole) -> &Health {
        match role {
            GatewayRole::Egress => &self.egress_health,
            GatewayRole::Ingress | GatewayRole::Sidecar | GatewayRole::Node => &self.health,
        }
    }

    /// Where this process takes tunnels, once it is bound.
    #[must_use]
    pub fn tunnel(&self) -> Option<SocketAddr> {
        self.tunnel.get().copied()
    }

    /// Says where this process takes tunnels. The first word counts.
    pub fn set_tunnel(&self, address: SocketAddr) {
        let _ = self.tunnel.set(address);
    }

    /// How this hop names itself to others.
    #[must_use]
    pub fn hop(&self) -> String {
        error::hop(self.config.role, self.table.load().itself().map(|itself| &itself.cluster))
    }

    /// A connection ended.
    pub fn observe(&self, record: &Record) {
        self.log.write(record);
        self.metrics.observe(record);
    }

    /// How this process is, for its agent.
    #[must_use]
    pub fn status(&self, generation: Generation) -> GatewayStatus {
        GatewayStatus {
            generation,
            leaving: self.leaves(),
            connections: self.conns.len() as u64,
            peers: self.health.told(),
            edges: self.metrics.edges(),
            capture: self.capture.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..GatewayStatus::default()
        }
    }

    /// Connections of this node's pods come by this way from now on; and why not by the better one, where there was a choice.
    pub(crate) fn captures(&self, way: Way, why: Option<String>) {
        self.metrics.node_capture(way);
        let way = match way {
            Way::Lookup => CaptureWay::Lookup,
            Way::Redirect => CaptureWay::Redirect,
        };
        *self.capture.lock().unwrap_or_else(PoisonError::into_inner) = Some(NodeCapture { way, why });
    }

    /// Says that the process is about to end. It goes on as before.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to end.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Ends what the process does on its own, and every connection.
    pub fn stop(&self) {
        self.probers().drain().for_each(|(_, stop)| stop.cancel());
        self.conns.end_all(Reason::Draining);
    }

    /// One prober for each address that this gateway dials: an egress gateway the ingress gateways of each peer, a sidecar and
    /// a node's proxy the egress gateways of its cluster.
    fn retarget(self: &Arc<Self>, table: &RouteTable) {
        let Some(itself) = table.itself() else { return };
        let identity = SpiffeId::gateway(&itself.trust_domain, &itself.cluster, self.config.role);
        let mut wanted = HashSet::new();
        if self.config.role.is_beside_applications() {
            let key = |address: &SocketAddr| egress_key(&identity, &itself.cluster, *address);
            wanted.extend(table.egress().iter().map(key));
        } else {
            let mut newcomers = self.pool.pace().newcomers();
            let (now, mut late) = (Instant::now(), 0);
            newcomers.keep(|cluster| table.peers().contains_key(cluster), now);
            for peer in table.peers().values() {
                for address in &peer.ingress {
                    if newcomers.admit(&peer.cluster, address, now) {
                        wanted.insert(peer_key(&identity, &peer.cluster, address));
                    } else {
                        late += 1;
                    }
                }
            }
            drop(newcomers);
            if late > 0 && !self.waits.swap(true, Ordering::SeqCst) {
                tracing::warn!(
                    addresses.count = late,
                    "a peer has named many new addresses; these wait to be dialled"
                );
                let shared = Arc::clone(self);
                task::spawn("newcomers", async move {
                    sleep(newcomers::PACE).await;
                    shared.waits.store(false, Ordering::SeqCst);
                    shared.retarget(&shared.table.load_full());
                });
            }
        }
        let mut probers = self.probers();
        probers.retain(|key, stop| {
            let keep = wanted.contains(key);
            if !keep {
                stop.cancel();
                self.pool.retire(&key.address);
            }
            keep
        });
        for key in wanted {
            if let Entry::Vacant(free) = probers.entry(key.clone()) {
                let stop = CancellationToken::new();
                task::spawn("probe", prober::run(self.clone(), key, stop.clone()));
                free.insert(stop);
            }
        }
    }

    fn probers(&self) -> std::sync::MutexGuard<'_, HashMap<Key, CancellationToken>> {
        self.probers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pool's key for an egress gateway of this cluster.
pub(crate) fn egress_key(identity: &SpiffeId, cluster: &ClusterName, address: SocketAddr) -> Key {
    Key {
        identity: identity.clone(),
        address: Arc::from(address.to_string()),
        cluster: cluster.clone(),
        role: GatewayRole::Egress,
    }
}

/// The pool's key for an ingress gateway of a peer.
pub(crate) fn peer_key(identity: &SpiffeId, cluster: &ClusterName, address: &str) -> Key {
    Key {
        identity: identity.clone(),
        address: Arc::from(address),
        cluster: cluster.clone(),
        role: GatewayRole::Ingress,
    }
}
