//! From a global name to how gateways reach it, and to what this cluster serves under it.

use super::{Local, Sidecars, is_ready};
use crate::{
    health::Results,
    index::{LocalPort, LocalService},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use tombolo_model::{
    AccountName, ClusterName, DnsLabel, Few, Held, NamespaceName, Place, Proximity, SpiffeId, TrustDomain,
    inventory::{Protocol, ServiceKey},
    snapshot::{
        EndpointSpec, ExportPort, ExportSpec, NameKind, NameSpec, RouteSpec, RouteTarget, SelfSpec,
        TargetSpec,
    },
};

pub(super) fn route(
    own: &SelfSpec,
    name: &NameSpec,
    addresses: Few<IpAddr>,
    captured_at: Few<(u16, u16)>,
    identities: &mut Identities,
) -> RouteSpec {
    let mut targets: Vec<RouteTarget> = name
        .targets
        .iter()
        .map(|target| {
            let here = target.cluster == own.cluster;
            let identities = target
                .accounts
                .iter()
                .map(|(ns, sa)| identities.workload(&own.trust_domain, &target.cluster, ns, sa))
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
    RouteSpec { name: name.name.clone(), addresses, ports: name.ports.clone(), captured_at, targets }
}

/// What stands behind a name of this cluster: services, ports of them, and for a pod's name which pod.
type Behind<'a> = (&'a [ServiceKey], &'a [u16], NameKind, Option<&'a DnsLabel>);

/// What was worked out already. A service and the same service in this cluster are two names with the same endpoints, and identities.
#[derive(Default)]
pub(super) struct Known<'a> {
    exported: BTreeMap<Behind<'a>, Held<Vec<ExportPort>>>,
    pub(super) identities: Identities,
}

/// Identities of workloads: each is one value, wherever it stands.
#[derive(Default)]
pub(super) struct Identities(BTreeMap<(ClusterName, NamespaceName, AccountName), SpiffeId>);

impl Identities {
    fn workload(
        &mut self,
        domain: &TrustDomain,
        cluster: &ClusterName,
        namespace: &NamespaceName,
        account: &AccountName,
    ) -> SpiffeId {
        let key = (cluster.clone(), namespace.clone(), account.clone());
        let new = || SpiffeId::workload(domain, cluster, namespace, account);
        self.0.entry(key).or_insert_with(new).clone()
    }
}

/// What this cluster serves under a name; none where it serves nothing. Which services stand behind the name says
/// the controller; which endpoints, this cluster alone knows.
pub(super) fn export<'a>(
    own: &SelfSpec,
    name: &'a NameSpec,
    callers: &BTreeSet<ClusterName>,
    local: Local<'_>,
    sidecars: &Sidecars,
    known: &mut Known<'a>,
) -> Option<ExportSpec> {
    let target = name.targets.iter().find(|target| target.cluster == own.cluster)?;
    let kind = if name.kind == NameKind::Pod { NameKind::Pod } else { NameKind::Service };
    let Known { exported, identities } = known;
    let ports = exported
        .entry((&target.services, &target.ports, kind, name.pod.as_ref()))
        .or_insert_with(|| ports(own, name, target, local, sidecars, identities).into());
    Some(ExportSpec { name: name.name.clone(), callers: callers.into(), ports: ports.clone() })
}

fn ports(
    own: &SelfSpec,
    name: &NameSpec,
    target: &TargetSpec,
    local: Local<'_>,
    sidecars: &Sidecars,
    identities: &mut Identities,
) -> Vec<ExportPort> {
    let mut ports: BTreeMap<u16, BTreeMap<Place, EndpointSpec>> = BTreeMap::new();
    for key in &target.services {
        let Some(service) = local.view.services.get(key) else { continue };
        let by_account: Vec<SpiffeId> = service
            .accounts
            .iter()
            .map(|account| identities.workload(&own.trust_domain, &own.cluster, &key.namespace, account))
            .collect();
        for port in service.ports.iter().filter(|port| port.spec.protocol == Protocol::Tcp) {
            if !target.ports.contains(&port.spec.port) {
                continue;
            }
            let known = ports.entry(port.spec.port).or_default();
            for endpoint in endpoints(name, service, &by_account, port, local.passing, sidecars) {
                known.entry(endpoint.address).or_insert(endpoint);
            }
        }
    }
    ports
        .into_iter()
        .map(|(port, endpoints)| ExportPort { port, endpoints: endpoints.into_values().collect() })
        .collect()
}

/// `by_account` has the identity of each of the service's accounts.
fn endpoints(
    name: &NameSpec,
    service: &LocalService,
    by_account: &[SpiffeId],
    port: &LocalPort,
    passing: &Results,
    sidecars: &Sidecars,
) -> Vec<EndpointSpec> {
    let wanted = |address: IpAddr| match (name.kind, &name.pod) {
        (NameKind::Pod, Some(pod)) => {
            service.endpoints.get(&address).is_some_and(|known| known.hostname.as_deref() == Some(pod))
        }
        (NameKind::Pod, None) => false,
        _ => true,
    };
    let identity = |address: IpAddr| service.endpoints.get(&address)?.account_in(by_account).cloned();
    let mut all: Vec<(EndpointSpec, bool)> = port
        .endpoints
        .iter()
        .filter(|(address, _)| wanted(address.ip()))
        .map(|(address, endpoint)| {
            let identity = identity(address.ip());
            // A sidecar whose workload is not known can't be asked for it.
            let before = identity.as_ref().and_then(|_| sidecars.before(address.ip()));
            let spec = EndpointSpec {
                address: *address,
                ready: is_ready(port, *address, *endpoint, passing),
                tunnel: before.map(|before| before.tunnel),
                leaving: before.is_some_and(|before| before.leaving),
                identity,
            };
            (spec, endpoint.draining)
        })
        .collect();
    // The last ones answer until they are gone, as in kube-proxy: peers that have not heard of it yet still come.
    // What the cluster reports as ready is without them, so that others are preferred.
    if !all.iter().any(|(spec, _)| spec.ready) {
        all.iter_mut().for_each(|(spec, draining)| spec.ready = *draining);
    }
    all.into_iter().map(|(spec, _)| spec).collect()
}
