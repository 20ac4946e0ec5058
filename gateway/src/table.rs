//! What this gateway does with a connection, built whole from a snapshot: one immutable value behind one pointer,
//! so that the request path takes no lock and a snapshot that makes no sense changes nothing.
//!
//! [`build`] is pure. It refuses what would be dangerous (a target that another cluster's identity may answer for)
//! and what would be ambiguous (one address for two names).

use crate::reach::PEER_ADDRESSES;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tombolo_model::{
    ClusterName, GlobalName, Place, Proximity, SpiffeId, SpiffePath, TrustDomain,
    snapshot::{
        EndToEnd, EndpointSpec, ExportSpec, GatewayResource, PeerSpec, Resource as _, ResourceKey, Resources,
        RouteSpec, SelfSpec, TrustBundleSpec, WorkloadSelector, WorkloadSpec,
    },
};

#[cfg(test)]
mod tests;

/// Why a snapshot makes no table. The one in force stays.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum TableError {
    /// A resource stands under a key that is not its own.
    #[error("the resource under {key} belongs under {own}; the sender is broken, upgrade the agent")]
    Key {
        /// Where it stands.
        key: ResourceKey,
        /// Where it belongs.
        own: ResourceKey,
    },
    /// There are routes, exports or peers, but not the cluster they belong to.
    #[error("the snapshot does not say which cluster this is; upgrade the agent")]
    NoSelf,
    /// An identity of another organization.
    #[error("{holder} has the identity {id} outside the trust domain {trust_domain}")]
    ForeignIdentity {
        /// Where it stands.
        holder: ResourceKey,
        /// The identity.
        id: Box<SpiffeId>,
        /// The trust domain of this cluster.
        trust_domain: TrustDomain,
    },
    /// An identity that its cluster cannot vouch for, or that is no workload's.
    #[error("{holder} names {id}, which is no workload of cluster {cluster}")]
    WrongCluster {
        /// Where it stands.
        holder: ResourceKey,
        /// The identity.
        id: Box<SpiffeId>,
        /// The cluster that it should belong to.
        cluster: ClusterName,
    },
    /// One address stands for two names.
    #[error("{address} stands for both {first} and {second}; give each name an address of its own")]
    SharedAddress {
        /// The address.
        address: IpAddr,
        /// A name.
        first: GlobalName,
        /// Another name.
        second: GlobalName,
    },
    /// Connections for two names are taken at one port.
    #[error("port {port} is that of both {first} and {second}; upgrade the agent")]
    SharedPort {
        /// The port.
        port: u16,
        /// A name.
        first: GlobalName,
        /// Another name, or the same.
        second: GlobalName,
    },
    /// A name has two targets in one cluster.
    #[error("{name} has two targets in cluster {cluster}")]
    SameCluster {
        /// The name.
        name: GlobalName,
        /// The cluster.
        cluster: ClusterName,
    },
    /// An endpoint behind a sidecar, without an identity for the sidecar to answer as.
    #[error("endpoint {address} of {name} is behind a sidecar and has no identity")]
    NoIdentity {
        /// The name.
        name: GlobalName,
        /// The endpoint.
        address: SocketAddr,
    },
    /// The bundle of another organization.
    #[error("the trust bundle is of {bundle}, this cluster of {own}")]
    ForeignBundle {
        /// Its trust domain.
        bundle: TrustDomain,
        /// This cluster's.
        own: TrustDomain,
    },
}

/// A cluster that serves a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The cluster.
    pub cluster: ClusterName,
    /// How near.
    pub proximity: Proximity,
    /// The ports it serves.
    pub ports: BTreeSet<u16>,
    /// Ready endpoints: its weight.
    pub ready: u32,
    /// Whether its endpoints take the caller's own TLS session.
    pub end_to_end: EndToEnd,
    /// Who may answer. Shared with the TLS configurations made from it.
    pub identities: Arc<BTreeSet<SpiffeId>>,
}

/// How to reach a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name.
    pub name: GlobalName,
    /// The addresses that stand for it here.
    pub addresses: BTreeSet<IpAddr>,
    /// Its TCP ports.
    pub ports: BTreeSet<u16>,
    /// Where it is served.
    pub targets: Vec<Target>,
}

impl Route {
    /// The target in this cluster.
    #[must_use]
    pub fn target(&self, cluster: &ClusterName) -> Option<&Target> {
        self.targets.iter().find(|target| target.cluster == *cluster)
    }
}

/// An endpoint that this process stands in front of, and the names it answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The endpoint.
    pub endpoint: EndpointSpec,
    /// The exports and ports that it is an endpoint of.
    pub services: BTreeSet<(GlobalName, u16)>,
}

/// The immutable table. Made by [`build`]; empty until the first snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteTable {
    itself: Option<SelfSpec>,
    bundle: Option<TrustBundleSpec>,
    routes: HashMap<GlobalName, Arc<Route>>,
    by_address: HashMap<IpAddr, Arc<Route>>,
    captured: HashMap<u16, (Arc<Route>, u16)>,
    exports: HashMap<GlobalName, Arc<ExportSpec>>,
    served: HashMap<SocketAddr, Arc<Served>>,
    peers: BTreeMap<ClusterName, PeerSpec>,
    workloads: BTreeMap<SpiffeId, WorkloadSpec>,
    pods: HashMap<IpAddr, SpiffeId>,
    egress: Vec<SocketAddr>,
}

impl RouteTable {
    /// The cluster that this gateway belongs to.
    #[must_use]
    pub fn itself(&self) -> Option<&SelfSpec> {
        self.itself.as_ref()
    }
    /// Whom to believe.
    #[must_use]
    pub fn bundle(&self) -> Option<&TrustBundleSpec> {
        self.bundle.as_ref()
    }
    /// The route to a name.
    #[must_use]
    pub fn route(&self, name: &GlobalName) -> Option<&Arc<Route>> {
        self.routes.get(name)
    }
    /// The route that a captured connection means by its destination.
    #[must_use]
    pub fn route_to(&self, address: IpAddr) -> Option<&Arc<Route>> {
        self.by_address.get(&address)
    }
    /// The route and its port that a connection means that an egress gateway took at this port (capture mode `gateway`).
    #[must_use]
    pub fn captured(&self, at: u16) -> Option<&(Arc<Route>, u16)> {
        self.captured.get(&at)
    }
    /// Every port at which an egress gateway takes connections.
    pub fn captured_at(&self) -> impl Iterator<Item = u16> + '_ {
        self.captured.keys().copied()
    }
    /// What is served here under a name.
    #[must_use]
    pub fn export(&self, name: &GlobalName) -> Option<&Arc<ExportSpec>> {
        self.exports.get(name)
    }
    /// The endpoint with this address, where it is one of an export.
    #[must_use]
    pub fn served(&self, endpoint: SocketAddr) -> Option<&Arc<Served>> {
        self.served.get(&endpoint)
    }
    /// Other clusters, by name.
    #[must_use]
    pub fn peers(&self) -> &BTreeMap<ClusterName, PeerSpec> {
        &self.peers
    }
    /// Workloads by identity.
    #[must_use]
    pub fn workloads(&self) -> &BTreeMap<SpiffeId, WorkloadSpec> {
        &self.workloads
    }
    /// The workload of the pod with this address, on this proxy's node.
    #[must_use]
    pub fn pod(&self, address: IpAddr) -> Option<&SpiffeId> {
        self.pods.get(&address)
    }
    /// The addresses of the pods on this proxy's node, in no order.
    pub fn pods(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.pods.keys().copied()
    }
    /// The egress gateways of this cluster, in order.
    #[must_use]
    pub fn egress(&self) -> &[SocketAddr] {
        &self.egress
    }
    /// Every route, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }
    /// Every export, in no order.
    pub fn exports(&self) -> impl Iterator<Item = &Arc<ExportSpec>> {
        self.exports.values()
    }
    /// Every address and port that stands for a name: what a proxy in capture mode `explicit` binds.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
        self.routes.values().flat_map(|route| {
            route.addresses.iter().flat_map(|a| route.ports.iter().map(move |port| (*a, *port)))
        })
    }
    /// The workloads that a sidecar at `tunnel` must have certificates for: those it knows as callers, and those it
    /// stands in front of.
    #[must_use]
    pub fn wanted_identities(&self, tunnel: SocketAddr) -> BTreeSet<SpiffeId> {
        let served = self.served.values().filter(|served| stands_before(&served.endpoint, tunnel));
        let served = served.filter_map(|served| served.endpoint.identity.clone());
        self.workloads.keys().cloned().chain(served).collect()
    }
}

/// Whether the sidecar that takes tunnels at `tunnel` is the one in front of this endpoint. A sidecar bound to every
/// address is known by its port.
#[must_use]
pub fn stands_before(endpoint: &EndpointSpec, tunnel: SocketAddr) -> bool {
    endpoint
        .tunnel
        .map(Place::socket)
        .is_some_and(|at| at == tunnel || (tunnel.ip().is_unspecified() && at.port() == tunnel.port()))
}

/// Builds the table of a snapshot.
///
/// # Errors
/// A [`TableError`] for a snapshot that contradicts itself or breaks a rule of trust; the caller keeps its table.
pub fn build(resources: &Resources<GatewayResource>) -> Result<RouteTable, TableError> {
    let mut table = RouteTable::default();
    for (key, resource) in resources {
        let own = resource.key();
        if *key != own {
            return Err(TableError::Key { key: key.clone(), own });
        }
        match resource {
            GatewayResource::Itself(itself) => table.itself = Some(SelfSpec::clone(itself)),
            GatewayResource::Bundle(bundle) => table.bundle = Some(TrustBundleSpec::clone(bundle)),
            GatewayResource::Peer(peer) => {
                // A snapshot with a greedy peer is a good one for all others.
                let mut peer = PeerSpec::clone(peer);
                peer.ingress = peer.ingress.into_iter().take(PEER_ADDRESSES).collect();
                table.peers.insert(peer.cluster.clone(), peer);
            }
            GatewayResource::Gateways { egress } => table.egress = egress.iter().copied().collect(),
            GatewayResource::Route(_) | GatewayResource::Export(_) | GatewayResource::Workload(_) => {}
        }
    }
    let Some(itself) = table.itself.clone() else {
        return if resources.is_empty() { Ok(table) } else { Err(TableError::NoSelf) };
    };
    if let Some(bundle) = table.bundle.as_ref().filter(|b| b.trust_domain != itself.trust_domain) {
        let own = itself.trust_domain.clone();
        return Err(TableError::ForeignBundle { bundle: bundle.trust_domain.clone(), own });
    }
    // A snapshot may name this cluster as its own peer; nobody dials home through the front door.
    table.peers.remove(&itself.cluster);
    let mut served: HashMap<SocketAddr, Served> = HashMap::new();
    for (key, resource) in resources {
        match resource {
            GatewayResource::Route(spec) => add_route(&mut table, &itself, key, spec)?,
            GatewayResource::Export(spec) => add_export(&mut table, &mut served, &itself, key, spec)?,
            GatewayResource::Workload(workload) => {
                check_workload(&itself.trust_domain, &itself.cluster, key, &workload.identity)?;
                table.workloads.insert(workload.identity.clone(), WorkloadSpec::clone(workload));
            }
            _ => {}
        }
    }
    table.pods = pods(&table.workloads);
    table.served = served.into_iter().map(|(address, served)| (address, Arc::new(served))).collect();
    Ok(table)
}

/// Whose the addresses are. One that two workloads are said to have is nobody's.
fn pods(workloads: &BTreeMap<SpiffeId, WorkloadSpec>) -> HashMap<IpAddr, SpiffeId> {
    let mut found: HashMap<IpAddr, Option<&SpiffeId>> = HashMap::new();
    for workload in workloads.values() {
        for selector in &workload.selectors {
            if let WorkloadSelector::Address(address) = selector {
                let of = found.entry(*address).or_insert(Some(&workload.identity));
                of.take_if(|other| **other != workload.identity);
            }
        }
    }
    found.into_iter().filter_map(|(address, id)| Some((address, id?.clone()))).collect()
}

fn add_route(
    table: &mut RouteTable,
    itself: &SelfSpec,
    key: &ResourceKey,
    spec: &RouteSpec,
) -> Result<(), TableError> {
    let mut targets: Vec<Target> = Vec::with_capacity(spec.targets.len());
    for target in &spec.targets {
        if targets.iter().any(|other| other.cluster == target.cluster) {
            return Err(TableError::SameCluster { name: spec.name.clone(), cluster: target.cluster.clone() });
        }
        for id in &target.identities {
            check_workload(&itself.trust_domain, &target.cluster, key, id)?;
        }
        targets.push(Target {
            cluster: target.cluster.clone(),
            proximity: target.proximity,
            ports: target.ports.iter().copied().collect(),
            ready: target.ready,
            end_to_end: target.end_to_end,
            identities: Arc::new(target.identities.iter().cloned().collect()),
        });
    }
    let tcp =
        |port: &&tombolo_model::inventory::PortSpec| port.protocol == tombolo_model::inventory::Protocol::Tcp;
    let route = Arc::new(Route {
        name: spec.name.clone(),
        addresses: spec.addresses.iter().copied().collect(),
        ports: spec.ports.iter().filter(tcp).map(|port| port.port).collect(),
        targets,
    });
    for address in &spec.addresses {
        if let Some(first) = table.by_address.insert(*address, route.clone()) {
            let (first, second) = (first.name.clone(), spec.name.clone());
            return Err(TableError::SharedAddress { address: *address, first, second });
        }
    }
    for (port, at) in spec.captured_at.iter().filter(|(port, _)| route.ports.contains(port)) {
        if let Some((first, _)) = table.captured.insert(*at, (route.clone(), *port)) {
            let (first, second) = (first.name.clone(), spec.name.clone());
            return Err(TableError::SharedPort { port: *at, first, second });
        }
    }
    table.routes.insert(spec.name.clone(), route);
    Ok(())
}

fn add_export(
    table: &mut RouteTable,
    served: &mut HashMap<SocketAddr, Served>,
    itself: &SelfSpec,
    key: &ResourceKey,
    spec: &ExportSpec,
) -> Result<(), TableError> {
    for port in spec.ports.iter() {
        for endpoint in &port.endpoints {
            if endpoint.tunnel.is_some() && endpoint.identity.is_none() {
                return Err(TableError::NoIdentity {
                    name: spec.name.clone(),
                    address: endpoint.address.socket(),
                });
            }
            if let Some(id) = &endpoint.identity {
                check_workload(&itself.trust_domain, &itself.cluster, key, id)?;
            }
            let entry = served
                .entry(endpoint.address.socket())
                .or_insert_with(|| Served { endpoint: endpoint.clone(), services: BTreeSet::new() });
            entry.services.insert((spec.name.clone(), port.port));
        }
    }
    table.exports.insert(spec.name.clone(), Arc::new(spec.clone()));
    Ok(())
}

fn check_workload(
    domain: &TrustDomain,
    cluster: &ClusterName,
    holder: &ResourceKey,
    id: &SpiffeId,
) -> Result<(), TableError> {
    if id.trust_domain != *domain {
        let (id, trust_domain) = (Box::new(id.clone()), domain.clone());
        return Err(TableError::ForeignIdentity { holder: holder.clone(), id, trust_domain });
    }
    if id.cluster != *cluster || !matches!(id.path, SpiffePath::Workload { .. }) {
        let (id, cluster) = (Box::new(id.clone()), cluster.clone());
        return Err(TableError::WrongCluster { holder: holder.clone(), id, cluster });
    }
    Ok(())
}
