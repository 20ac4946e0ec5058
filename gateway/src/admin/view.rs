//! What this gateway knows and does, as one value: `/state` gives it as JSON, `/table` as text.

use crate::table::RouteTable;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};
use tombolo_feed::Status;
use tombolo_model::{
    ClusterName, GatewayRole, Generation, GlobalName, Proximity, SpiffeId, TrustDomain,
    snapshot::{EndToEnd, ExportPort, WorkloadSelector},
};
use tombolo_wire::message::{GatewayStatus, PeerState, Problem};

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// What this process is.
    pub role: GatewayRole,
    /// Its name.
    pub instance: String,
    /// The cluster, once the agent has said it.
    pub cluster: Option<ClusterName>,
    /// The trust domain, once the agent has said it.
    pub trust_domain: Option<TrustDomain>,
    /// The table in force.
    pub generation: Generation,
    /// The feed from the agent.
    pub feed: Feed,
    /// Connections that are open.
    pub connections: u64,
    /// Tunnels that are open.
    pub tunnels: usize,
    /// What names it reaches.
    pub routes: Vec<Route>,
    /// What names it serves.
    pub exports: Vec<Export>,
    /// Other clusters' ingress gateways.
    pub peers: BTreeMap<ClusterName, BTreeMap<String, PeerState>>,
    /// The egress gateways a sidecar uses.
    pub egress: Vec<SocketAddr>,
    /// The workloads it knows as callers.
    pub workloads: Vec<Workload>,
    /// The certificates it shows.
    pub certificates: Vec<Certificate>,
    /// What does not work here.
    pub problems: Vec<Problem>,
}

/// The feed from the agent.
#[derive(Clone, Debug, Serialize)]
pub struct Feed {
    /// Whether the agent is there.
    pub connected: bool,
    /// The agent's software.
    pub agent: Option<String>,
    /// Generations behind it.
    pub lag: u64,
    /// Whether the table came from disk and was not confirmed since.
    pub from_cache: bool,
    /// What went wrong last.
    pub error: Option<String>,
}

/// How a name is reached.
#[derive(Clone, Debug, Serialize)]
pub struct Route {
    /// The name.
    pub name: GlobalName,
    /// The addresses that stand for it here.
    pub addresses: BTreeSet<IpAddr>,
    /// Its ports.
    pub ports: BTreeSet<u16>,
    /// Where it is served, the nearest first.
    pub targets: Vec<Target>,
}

/// A cluster that serves a name.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// The cluster.
    pub cluster: ClusterName,
    /// How near.
    pub proximity: Proximity,
    /// The ports it serves.
    pub ports: BTreeSet<u16>,
    /// Ready endpoints.
    pub ready: u32,
    /// Whether the caller's own TLS session reaches its endpoints.
    pub end_to_end: EndToEnd,
    /// Who may answer.
    pub identities: BTreeSet<SpiffeId>,
    /// Addresses of its ingress gateways that are in rotation, of all that are known; none where this gateway does
    /// not dial them itself.
    pub alive: Option<(usize, usize)>,
}

/// What is served under a name.
#[derive(Clone, Debug, Serialize)]
pub struct Export {
    /// The name.
    pub name: GlobalName,
    /// Who may call it.
    pub callers: BTreeSet<ClusterName>,
    /// Its ports and endpoints.
    pub ports: Vec<ExportPort>,
}

/// A workload and how it is recognised.
#[derive(Clone, Debug, Serialize)]
pub struct Workload {
    /// Its identity.
    pub identity: SpiffeId,
    /// Its selectors.
    pub selectors: BTreeSet<WorkloadSelector>,
}

/// A certificate in use.
#[derive(Clone, Debug, Serialize)]
pub struct Certificate {
    /// Whose.
    pub identity: SpiffeId,
    /// Its end, seconds since 1970.
    pub not_after_s: u64,
}

/// What is not in the table.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What this process is.
    pub role: GatewayRole,
    /// Its name.
    pub instance: String,
    /// Tunnels that are open.
    pub tunnels: usize,
    /// The status as the agent gets it.
    pub status: GatewayStatus,
    /// The feed.
    pub feed: Status,
    /// Certificates in use and their ends.
    pub certificates: Vec<(SpiffeId, SystemTime)>,
}

impl View {
    /// The view of a table and its surroundings; of one name only, where one is given.
    #[must_use]
    pub fn of(table: &RouteTable, facts: Facts, only: Option<&str>) -> Self {
        let chosen = |name: &GlobalName| only.is_none_or(|only| only == name.as_str());
        let mut routes: Vec<Route> = table
            .routes()
            .filter(|route| chosen(&route.name))
            .map(|route| {
                let mut targets: Vec<Target> =
                    route.targets.iter().map(|target| self::target(table, &facts, target)).collect();
                targets.sort_by(|a, b| (a.proximity, &a.cluster).cmp(&(b.proximity, &b.cluster)));
                Route {
                    name: route.name.clone(),
                    addresses: route.addresses.clone(),
                    ports: route.ports.clone(),
                    targets,
                }
            })
            .collect();
        routes.sort_by(|a, b| a.name.cmp(&b.name));
        let mut exports: Vec<Export> = table
            .exports()
            .filter(|export| chosen(&export.name))
            .map(|e| Export {
                name: e.name.clone(),
                callers: e.callers.iter().cloned().collect(),
                ports: e.ports.to_vec(),
            })
            .collect();
        exports.sort_by(|a, b| a.name.cmp(&b.name));
        let workload = |w: &tombolo_model::snapshot::WorkloadSpec| Workload {
            identity: w.identity.clone(),
            selectors: w.selectors.clone(),
        };
        let certificates = facts.certificates.into_iter().map(|(identity, end)| Certificate {
            identity,
            not_after_s: end.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        });
        Self {
            role: facts.role,
            instance: facts.instance,
            cluster: table.itself().map(|itself| itself.cluster.clone()),
            trust_domain: table.itself().map(|itself| itself.trust_domain.clone()),
            generation: facts.status.generation,
            feed: Feed {
                connected: facts.feed.connected,
                agent: facts.feed.sender.as_ref().map(|hello| hello.software.clone()),
                lag: facts.feed.lag(),
                from_cache: facts.feed.from_cache,
                error: facts.feed.error,
            },
            connections: facts.status.connections,
            tunnels: facts.tunnels,
            routes,
            exports,
            peers: facts.status.peers,
            egress: table.egress().to_vec(),
            workloads: table.workloads().values().map(workload).collect(),
            certificates: certificates.collect(),
            problems: facts.status.problems,
        }
    }
}

fn target(table: &RouteTable, facts: &Facts, target: &crate::table::Target) -> Target {
    use tombolo_model::health::Health;
    let alive = facts.status.peers.get(&target.cluster).map(|addresses| {
        let alive = |peer: &&PeerState| !matches!(peer.health, Health::Dead | Health::Unknown);
        (addresses.values().filter(alive).count(), addresses.len())
    });
    let dialled = table.peers().contains_key(&target.cluster);
    Target {
        cluster: target.cluster.clone(),
        proximity: target.proximity,
        ports: target.ports.clone(),
        ready: target.ready,
        end_to_end: target.end_to_end,
        identities: (*target.identities).clone(),
        alive: if dialled { Some(alive.unwrap_or((0, 0))) } else { None },
    }
}
