//! What this cluster reports, and what each of its gateways is told: functions of the controller's snapshot and of
//! what is known locally. No I/O, no clock; equal input gives equal output.

use crate::{
    ages::Ages,
    health::Results,
    index::{LocalEndpoint, LocalPort, LocalService, Probe, View},
    vip::AddressMode,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};
use tombolo_model::{
    ClusterName, GatewayRole, Proximity, SpiffeId,
    inventory::{Inventory, NamespaceRecord, PodRecord, Protocol, ServiceKey, ServiceRecord},
    snapshot::{
        ClusterResource, DomainSpec, EndpointSpec, ExportPort, ExportSpec, GatewayResource, NameKind,
        NameSpec, PeerSpec, Resource, Resources, RouteSpec, RouteTarget, SelfSpec, TrustBundleSpec,
        WorkloadSpec,
    },
};
use tombolo_wire::message::{GatewayHello, Problem};

/// The gateways of this cluster, by instance.
pub type Gateways = BTreeMap<String, Gateway>;

/// A gateway of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// What it said of itself.
    pub hello: GatewayHello,
    /// Whether it is connected; one that is not was so a moment ago, and may come back.
    pub connected: bool,
}

/// What is known locally.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// What runs here.
    pub view: &'a View,
    /// When each service was seen first.
    pub ages: &'a Ages,
    /// Which endpoints pass.
    pub passing: &'a Results,
    /// The gateways.
    pub gateways: &'a Gateways,
    /// How VIPs are written here.
    pub mode: AddressMode,
}

/// The controller's snapshot, sorted by kind. `None` before the first one.
#[derive(Clone, Copy, Debug)]
struct Snapshot<'a> {
    itself: &'a SelfSpec,
    bundle: &'a TrustBundleSpec,
    resources: &'a Resources<ClusterResource>,
}

impl<'a> Snapshot<'a> {
    fn of(resources: &'a Resources<ClusterResource>) -> Option<Self> {
        let mut itself = None;
        let mut bundle = None;
        for resource in resources.values() {
            match resource {
                ClusterResource::Itself(spec) => itself = Some(spec),
                ClusterResource::Bundle(spec) => bundle = Some(spec),
                _ => {}
            }
        }
        Some(Self { itself: itself?, bundle: bundle?, resources })
    }
    fn peers(&self) -> impl Iterator<Item = &'a PeerSpec> + use<'a> {
        self.resources.values().filter_map(|r| match r {
            ClusterResource::Peer(peer) => Some(peer),
            _ => None,
        })
    }
    fn domains(&self) -> impl Iterator<Item = &'a DomainSpec> + use<'a> {
        self.resources.values().filter_map(|r| match r {
            ClusterResource::Domain(domain) => Some(domain),
            _ => None,
        })
    }
    fn names(&self) -> impl Iterator<Item = &'a NameSpec> + use<'a> {
        self.resources.values().filter_map(|r| match r {
            ClusterResource::Name(name) => Some(name),
            _ => None,
        })
    }
}

/// Why a snapshot can't be used; a receiver refuses such a one and keeps the last.
///
/// # Errors
/// Says what is missing, or whose snapshot it is.
pub fn validate(resources: &Resources<ClusterResource>, cluster: &ClusterName) -> Result<(), String> {
    let Some(snapshot) = Snapshot::of(resources) else {
        return Err("the snapshot lacks the cluster itself or the trust bundle".to_owned());
    };
    if snapshot.itself.cluster != *cluster {
        return Err(format!("the snapshot is that of cluster {}, not {cluster}", snapshot.itself.cluster));
    }
    if snapshot.bundle.trust_domain != snapshot.itself.trust_domain {
        return Err("the trust bundle is that of another trust domain".to_owned());
    }
    Ok(())
}

/// What this cluster reports to the controller.
#[must_use]
pub fn inventory(local: Local<'_>) -> Inventory {
    let sidecars = Sidecars::of(local.gateways);
    let namespaces = local
        .view
        .namespaces
        .iter()
        .map(|(name, labels)| (name.clone(), NamespaceRecord { labels: labels.clone() }))
        .collect();
    let services = local
        .view
        .services
        .iter()
        .map(|(key, service)| {
            let created_s = local.ages.get(key).copied().or(service.created_s).unwrap_or_default();
            (key.clone(), service_record(service, created_s, local.passing, &sidecars))
        })
        .collect();
    Inventory { namespaces, services }
}

fn service_record(
    service: &LocalService,
    created_s: i64,
    passing: &Results,
    sidecars: &Sidecars,
) -> ServiceRecord {
    // An endpoint counts where any TCP port of it takes requests: which port, its ingress gateway knows.
    let ready: BTreeSet<IpAddr> = service
        .ports
        .iter()
        .filter(|port| port.spec.protocol == Protocol::Tcp)
        .flat_map(|port| &port.endpoints)
        .filter(|(address, endpoint)| is_ready(**address, endpoint, passing))
        .map(|(address, _)| address.ip())
        .collect();
    let mut pods: BTreeMap<_, PodRecord> = BTreeMap::new();
    if service.headless {
        for (address, hostname) in &service.endpoints {
            let Some(hostname) = hostname else { continue };
            let pod = pods.entry(hostname.clone()).or_insert(PodRecord { ready: false, tunnelled: true });
            pod.ready |= ready.contains(address);
            pod.tunnelled &= sidecars.tunnel(*address).is_some();
        }
    }
    ServiceRecord {
        created_s,
        ports: service.ports.iter().map(|port| port.spec.clone()).collect(),
        headless: service.headless,
        ready: count(ready.len()),
        total: count(service.endpoints.len()),
        tunnelled: count(ready.iter().filter(|address| sidecars.tunnel(**address).is_some()).count()),
        accounts: BTreeSet::from([service.account.clone()]),
        pods,
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn is_ready(address: SocketAddr, endpoint: &LocalEndpoint, passing: &Results) -> bool {
    endpoint.ready
        && Probe::of(address, &endpoint.check).is_none_or(|probe| passing.get(&probe) == Some(&true))
}

/// Which sidecar stands before an address. Of several that say so one that is connected, then the first by instance.
struct Sidecars(BTreeMap<IpAddr, SocketAddr>);

impl Sidecars {
    fn of(gateways: &Gateways) -> Self {
        let mut tunnels = BTreeMap::new();
        for wanted in [true, false] {
            let sidecars =
                gateways.values().filter(|g| g.connected == wanted && g.hello.role == GatewayRole::Sidecar);
            for Gateway { hello, .. } in sidecars {
                for address in &hello.serves {
                    tunnels.entry(*address).or_insert(hello.tunnel);
                }
            }
        }
        Self(tunnels)
    }
    fn tunnel(&self, address: IpAddr) -> Option<SocketAddr> {
        self.0.get(&address).copied()
    }
}

/// What the gateways of this cluster are told. The parts that all gateways of a role share are worked out once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Synthesis {
    common: Resources<GatewayResource>,
    peers: Resources<GatewayResource>,
    routes: Resources<GatewayResource>,
    exports: Resources<GatewayResource>,
    workloads: Resources<GatewayResource>,
    egress: BTreeSet<SocketAddr>,
    /// Names that have no address here, and why.
    pub problems: Vec<Problem>,
}

/// Works out what the gateways are told; `None` before the first snapshot.
#[must_use]
pub fn synthesize(resources: &Resources<ClusterResource>, local: Local<'_>) -> Option<Synthesis> {
    let snapshot = Snapshot::of(resources)?;
    let mut all = Synthesis::default();
    let put = |map: &mut Resources<GatewayResource>, resource: GatewayResource| {
        map.insert(resource.key(), resource);
    };
    put(&mut all.common, GatewayResource::Itself(snapshot.itself.clone()));
    put(&mut all.common, GatewayResource::Bundle(snapshot.bundle.clone()));
    for peer in snapshot.peers() {
        put(&mut all.peers, GatewayResource::Peer(peer.clone()));
    }
    let members: BTreeMap<_, &BTreeSet<ClusterName>> =
        snapshot.domains().map(|domain| (&domain.domain, &domain.members)).collect();
    let sidecars = Sidecars::of(local.gateways);
    let nobody = BTreeSet::new();
    for name in snapshot.names() {
        match local.mode.addresses(&name.vip) {
            Ok(addresses) => put(&mut all.routes, GatewayResource::Route(route(&snapshot, name, addresses))),
            Err(no_room) => {
                all.problems.push(Problem { subject: name.name.to_string(), message: no_room.to_string() });
            }
        }
        let callers = members.get(&name.domain).copied().unwrap_or(&nobody);
        if let Some(export) = export(&snapshot, name, callers, local, &sidecars) {
            put(&mut all.exports, GatewayResource::Export(export));
        }
    }
    for ((namespace, account), selectors) in &local.view.workloads {
        let own = snapshot.itself;
        let identity = SpiffeId::workload(&own.trust_domain, &own.cluster, namespace, account);
        let workload = WorkloadSpec { identity, selectors: selectors.clone() };
        put(&mut all.workloads, GatewayResource::Workload(workload));
    }
    all.egress = local
        .gateways
        .values()
        .filter(|gateway| gateway.hello.role == GatewayRole::Egress)
        .map(|gateway| gateway.hello.tunnel)
        .collect();
    Some(all)
}

fn route(snapshot: &Snapshot<'_>, name: &NameSpec, addresses: BTreeSet<IpAddr>) -> RouteSpec {
    let own = snapshot.itself;
    let mut targets: Vec<RouteTarget> = name
        .targets
        .iter()
        .map(|target| {
            let here = target.cluster == own.cluster;
            let identities = target
                .accounts
                .iter()
                .map(|(ns, sa)| SpiffeId::workload(&own.trust_domain, &target.cluster, ns, sa))
                .collect();
            RouteTarget {
                cluster: target.cluster.clone(),
                proximity: if here { Proximity::Cluster } else { target.proximity },
                ports: target.ports.clone(),
                ready: target.ready,
                end_to_end: target.end_to_end,
                identities,
            }
        })
        .collect();
    targets.sort_by(|a, b| (a.proximity, &a.cluster).cmp(&(b.proximity, &b.cluster)));
    RouteSpec { name: name.name.clone(), addresses, ports: name.ports.clone(), targets }
}

/// What this cluster serves under a name; none where it serves nothing. Which services stand behind the name says
/// the controller; which endpoints, this cluster alone knows.
fn export(
    snapshot: &Snapshot<'_>,
    name: &NameSpec,
    callers: &BTreeSet<ClusterName>,
    local: Local<'_>,
    sidecars: &Sidecars,
) -> Option<ExportSpec> {
    let own = snapshot.itself;
    let target = name.targets.iter().find(|target| target.cluster == own.cluster)?;
    let mut ports: BTreeMap<u16, BTreeMap<SocketAddr, EndpointSpec>> = BTreeMap::new();
    for key in &target.services {
        let Some(service) = local.view.services.get(key) else { continue };
        for port in service.ports.iter().filter(|port| port.spec.protocol == Protocol::Tcp) {
            if !target.ports.contains(&port.spec.port) {
                continue;
            }
            let known = ports.entry(port.spec.port).or_default();
            for endpoint in endpoints(own, name, key, service, port, local.passing, sidecars) {
                known.entry(endpoint.address).or_insert(endpoint);
            }
        }
    }
    let ports = ports
        .into_iter()
        .map(|(port, endpoints)| ExportPort { port, endpoints: endpoints.into_values().collect() })
        .collect();
    Some(ExportSpec { name: name.name.clone(), callers: callers.clone(), ports })
}

fn endpoints(
    own: &SelfSpec,
    name: &NameSpec,
    key: &ServiceKey,
    service: &LocalService,
    port: &LocalPort,
    passing: &Results,
    sidecars: &Sidecars,
) -> Vec<EndpointSpec> {
    let wanted = |address: IpAddr| match (name.kind, &name.pod) {
        (NameKind::Pod, Some(pod)) => {
            service.endpoints.get(&address).is_some_and(|h| h.as_ref() == Some(pod))
        }
        (NameKind::Pod, None) => false,
        _ => true,
    };
    port.endpoints
        .iter()
        .filter(|(address, _)| wanted(address.ip()))
        .map(|(address, endpoint)| EndpointSpec {
            address: *address,
            ready: is_ready(*address, endpoint, passing),
            tunnel: sidecars.tunnel(address.ip()),
            identity: Some(SpiffeId::workload(
                &own.trust_domain,
                &own.cluster,
                &key.namespace,
                &service.account,
            )),
        })
        .collect()
}

impl Synthesis {
    /// What this gateway is told: what its role needs, and no more.
    #[must_use]
    pub fn for_gateway(&self, hello: &GatewayHello) -> Resources<GatewayResource> {
        let mut all = self.common.clone();
        let mut add = |map: &Resources<GatewayResource>| {
            all.extend(map.iter().map(|(key, value)| (key.clone(), value.clone())));
        };
        match hello.role {
            GatewayRole::Egress => {
                add(&self.peers);
                add(&self.routes);
                add(&self.exports);
            }
            GatewayRole::Ingress => add(&self.exports),
            GatewayRole::Sidecar => {
                add(&self.routes);
                for resource in self.exports.values().filter_map(|r| behind(r, hello)) {
                    all.insert(resource.key(), resource);
                }
                let workloads = self.workloads.values().filter(|r| may_speak_for(r, hello));
                all.extend(workloads.map(|resource| (resource.key(), resource.clone())));
                let gateways = GatewayResource::Gateways { egress: self.egress.clone() };
                all.insert(gateways.key(), gateways);
            }
        }
        all
    }
}

/// The part of an export that this sidecar stands before.
fn behind(resource: &GatewayResource, hello: &GatewayHello) -> Option<GatewayResource> {
    let GatewayResource::Export(export) = resource else { return None };
    let ports: Vec<ExportPort> = export
        .ports
        .iter()
        .map(|port| ExportPort {
            port: port.port,
            endpoints: port.endpoints.iter().filter(|e| e.tunnel == Some(hello.tunnel)).cloned().collect(),
        })
        .filter(|port| !port.endpoints.is_empty())
        .collect();
    if ports.is_empty() {
        return None;
    }
    Some(GatewayResource::Export(ExportSpec { ports, ..export.clone() }))
}

fn may_speak_for(resource: &GatewayResource, hello: &GatewayHello) -> bool {
    let GatewayResource::Workload(workload) = resource else { return false };
    may_speak_for_workload(&workload.identity, !workload.selectors.is_empty(), hello)
}

/// Whether a sidecar speaks for a workload that calls: its own, or on a machine all that can be told apart.
pub(crate) fn may_speak_for_workload(identity: &SpiffeId, has_selectors: bool, hello: &GatewayHello) -> bool {
    let tombolo_model::SpiffePath::Workload { namespace, account } = &identity.path else { return false };
    (hello.explicit && has_selectors) || hello.workloads.contains(&(namespace.clone(), account.clone()))
}

#[cfg(test)]
mod tests;
