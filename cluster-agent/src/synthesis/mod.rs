//! What this cluster reports, and what each of its gateways is told: functions of the controller's snapshot and of
//! what is known locally. No I/O, no clock; equal input gives equal output.
//!
//! [`Synthesizer`] does the same in steps: it works out again only what a change touches, so that one endpoint that
//! flaps among 100,000 names costs one name. A property test holds the two equal.

mod inventory;
mod node;
mod route;
mod steps;
#[cfg(test)]
mod tests;
mod told;

pub(crate) use node::captured;
pub use steps::{Changed, Synthesizer};
pub(crate) use told::may_speak_for_workload;

use crate::{
    ages::Ages,
    expose::Exposed,
    gateways::{Standing, standing},
    health::Results,
    index::{LocalEndpoint, LocalPort, Probe, View},
    vip::AddressMode,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};
use tombolo_model::{
    ClusterName, GatewayRole, Place, SpiffeId,
    snapshot::{
        ClusterResource, DomainSpec, GatewayResource, NameSpec, Resource, ResourceKey, Resources, SelfSpec,
        TrustBundleSpec, WorkloadSpec,
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
    /// Whether it is there.
    pub presence: Presence,
}

/// Whether a gateway is there: who is to be sent to one of several is sent to the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is about to end, and has said so.
    Leaving,
    /// It is not connected, but was so a moment ago, and may come back: perhaps it was its agent that went.
    Vanished,
    /// It is connected.
    Connected,
}

impl Presence {
    /// The greatest first.
    pub const ALL: [Self; 3] = [Self::Connected, Self::Vanished, Self::Leaving];

    /// Of one that has said that it leaves, or has not, and is connected, or is not.
    #[must_use]
    pub const fn of(leaving: bool, connected: bool) -> Self {
        match (leaving, connected) {
            (true, _) => Self::Leaving,
            (false, true) => Self::Connected,
            (false, false) => Self::Vanished,
        }
    }
}

/// What is known locally.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// What runs here.
    pub view: &'a Arc<View>,
    /// When each service was seen first.
    pub ages: &'a Ages,
    /// Which endpoints pass.
    pub passing: &'a Arc<Results>,
    /// The gateways.
    pub gateways: &'a Gateways,
    /// How VIPs are written here.
    pub mode: AddressMode,
    /// The names that are exposed (capture mode `gateway`).
    pub exposed: &'a Arc<Exposed>,
}

/// The controller's snapshot. `None` before the first one.
#[derive(Clone, Copy, Debug)]
struct Snapshot<'a> {
    itself: &'a SelfSpec,
    bundle: &'a TrustBundleSpec,
    resources: &'a Resources<ClusterResource>,
}

impl<'a> Snapshot<'a> {
    fn of(resources: &'a Resources<ClusterResource>) -> Option<Self> {
        let Some(ClusterResource::Itself(itself)) = resources.get(&ResourceKey::new("self", "")) else {
            return None;
        };
        let Some(ClusterResource::Bundle(bundle)) = resources.get(&ResourceKey::new("bundle", "")) else {
            return None;
        };
        Some(Self { itself, bundle, resources })
    }

    /// The clusters that may call names of each domain.
    fn members(&self) -> Members<'a> {
        let first = ResourceKey::new("domain", "");
        let domains = self.resources.range(first..).map_while(|(_, resource)| match resource {
            ClusterResource::Domain(domain) => Some(&**domain),
            _ => None,
        });
        domains.map(|DomainSpec { domain, members, .. }| (domain, members)).collect()
    }
}

type Members<'a> = BTreeMap<&'a tombolo_model::Domain, &'a BTreeSet<ClusterName>>;

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

fn is_ready(port: &LocalPort, address: Place, endpoint: LocalEndpoint, passing: &Results) -> bool {
    endpoint.ready
        && Probe::of(address.socket(), &port.check).is_none_or(|probe| passing.get(&probe) == Some(&true))
}

/// Which sidecar stands before an address. Of several that say so one that is connected, then the first by instance;
/// where there is none, the proxy of the pod's node, if it captures the pod.
#[derive(Debug, PartialEq, Eq)]
struct Sidecars(BTreeMap<IpAddr, Before>);

/// Who stands before an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Before {
    /// Where it takes tunnels.
    tunnel: Place,
    /// Whether it is a node's proxy that is about to end, and not the pod.
    leaving: bool,
}

impl Sidecars {
    fn of(gateways: &Gateways, view: &View) -> Self {
        let mut tunnels = BTreeMap::new();
        for wanted in Presence::ALL {
            let sidecars =
                gateways.values().filter(|g| g.presence == wanted && g.hello.role == GatewayRole::Sidecar);
            for Gateway { hello, .. } in sidecars {
                // a pod that is gone stands before nobody, least of all before whoever has its address now
                let pod = match standing(hello, &view.pods) {
                    Standing::Gone => continue,
                    Standing::There(pod) => Some(pod),
                    Standing::Unknown => None,
                };
                for address in
                    hello.serves.iter().filter(|at| pod.is_none_or(|pod| pod.addresses.contains(*at)))
                {
                    let tunnel = hello.tunnel.into();
                    tunnels.entry(*address).or_insert(Before { tunnel, leaving: false });
                }
            }
        }
        let nodes = node::proxies(gateways);
        for pod in view.pods.values().filter(|_| !nodes.is_empty()) {
            let Some(proxy) = pod.node.as_ref().and_then(|node| nodes.get(node.as_str())) else { continue };
            if !captured(&view.capture, view, pod) {
                continue;
            }
            for address in &pod.addresses {
                let before = Before { tunnel: proxy.tunnel.into(), leaving: proxy.leaving };
                tunnels.entry(*address).or_insert(before);
            }
        }
        Self(tunnels)
    }
    fn before(&self, address: IpAddr) -> Option<Before> {
        self.0.get(&address).copied()
    }
    /// The tunnel to an address that callers may rely on.
    fn tunnel(&self, address: IpAddr) -> Option<Place> {
        self.before(address).filter(|before| !before.leaving).map(|before| before.tunnel)
    }
}

/// All that the gateways of this cluster are told; [`Synthesis::for_gateway`] gives each its part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Synthesis {
    resources: Resources<GatewayResource>,
    /// The workloads of each node that has a proxy.
    nodes: node::Workloads,
    /// Where the nodes' proxies take tunnels.
    node_tunnels: BTreeSet<SocketAddr>,
    /// Names that have no address here, and why; by the key of their route.
    problems: BTreeMap<ResourceKey, Problem>,
}

/// Works out what the gateways are told; `None` before the first snapshot.
#[must_use]
pub fn synthesize(resources: &Resources<ClusterResource>, local: Local<'_>) -> Option<Synthesis> {
    let snapshot = Snapshot::of(resources)?;
    let (members, sidecars) = (snapshot.members(), Sidecars::of(local.gateways, local.view));
    let mut known = route::Known::default();
    let mut all = Synthesis {
        nodes: node::workloads(snapshot.itself, local.view, local.gateways),
        node_tunnels: node::proxies(local.gateways).into_values().map(|proxy| proxy.tunnel).collect(),
        ..Synthesis::default()
    };
    for resource in resources.values() {
        match resource {
            ClusterResource::Itself(spec) => all.put(GatewayResource::Itself(spec.clone())),
            ClusterResource::Bundle(spec) => all.put(GatewayResource::Bundle(spec.clone())),
            ClusterResource::Peer(spec) => all.put(GatewayResource::Peer(spec.clone())),
            ClusterResource::Domain(_)
            | ClusterResource::Import(_)
            | ClusterResource::Capture(_)
            | ClusterResource::Install(_)
            | ClusterResource::Trial(_) => {}
            ClusterResource::Name(name) => {
                all.name(&snapshot, name, &members, local, &sidecars, &mut known);
            }
        }
    }
    for workload in workloads(snapshot.itself, local.view) {
        all.put(workload);
    }
    let egress = local.gateways.values().filter(|gateway| gateway.hello.role == GatewayRole::Egress);
    all.put(GatewayResource::Gateways {
        egress: egress.map(|gateway| gateway.hello.tunnel).collect::<BTreeSet<_>>().into(),
    });
    Some(all)
}

fn workloads(own: &SelfSpec, view: &View) -> impl Iterator<Item = GatewayResource> {
    view.workloads.iter().map(|((namespace, account), selectors)| {
        let identity = SpiffeId::workload(&own.trust_domain, &own.cluster, namespace, account);
        GatewayResource::Workload(WorkloadSpec { identity, selectors: selectors.clone() }.into())
    })
}

impl Synthesis {
    /// Names that have no address here, and why.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.values()
    }

    fn put(&mut self, resource: GatewayResource) {
        self.resources.insert(resource.key(), resource);
    }

    /// Adds what follows from a name.
    fn name<'a>(
        &mut self,
        snapshot: &Snapshot<'_>,
        name: &'a NameSpec,
        members: &Members<'_>,
        local: Local<'_>,
        sidecars: &Sidecars,
        known: &mut route::Known<'a>,
    ) {
        match local.mode.addresses(&name.vip) {
            Ok(addresses) => {
                let exposure = local.exposed.get(&name.name);
                let captured_at = exposure.map(|exposure| exposure.ports.clone()).unwrap_or_default();
                let route =
                    route::route(snapshot.itself, name, addresses, captured_at, &mut known.identities);
                self.put(GatewayResource::Route(route.into()));
            }
            Err(no_room) => {
                let problem = Problem { subject: name.name.to_string(), message: no_room.to_string() };
                self.problems.insert(ResourceKey::of_name("route", &name.name), problem);
            }
        }
        let nobody = BTreeSet::new();
        let callers = members.get(&name.domain).copied().unwrap_or(&nobody);
        if let Some(export) = route::export(snapshot.itself, name, callers, local, sidecars, known) {
            self.put(GatewayResource::Export(export.into()));
        }
    }
}
