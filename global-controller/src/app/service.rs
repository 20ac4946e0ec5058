//! Global services: every name, its virtual IPs, and where it is served. Nothing of this is stored; it is what the
//! compiler makes of the global namespaces and of what the clusters report.

use super::{
    Deps,
    caller::Scope,
    error::{Kind, Refusal, Result},
    page::{List, Page},
};
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tombolo_compile::{Conflict, Incremental, Reason, World};
use tombolo_model::{
    DnsLabel, Domain, Generation,
    id::{ClusterId, OrgId},
    inventory::Protocol,
    mcs::ExportConflict,
    snapshot::{ClusterResource, EndToEnd, NameKind, NameSpec, TargetSpec},
};
use utoipa::ToSchema;

/// A global name, its addresses, and where it is served.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Service {
    /// The full name.
    #[schema(example = "catalog.acme.example.com")]
    pub(crate) name: String,
    /// The global namespace that it is of; `clusterset` for a service that Kubernetes clusters export (KEP-1645).
    #[schema(example = "acme")]
    pub(crate) gns: String,
    /// What it stands for: `service` wherever it runs, `service_in_cluster` in one cluster, one `pod` of it.
    pub(crate) kind: ServiceKind,
    /// Its addresses, the same in every cluster for as long as it lives.
    pub(crate) vip: VirtualIp,
    /// Whether it is headless: its pods have names of their own.
    pub(crate) headless: bool,
    /// Its ports, merged over the clusters.
    pub(crate) ports: Vec<Port>,
    /// Where it is served.
    pub(crate) targets: Vec<Target>,
    /// What could not be given as the clusters have it, and why.
    pub(crate) conflicts: Vec<ServiceConflict>,
}

/// What a global name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServiceKind {
    /// `<service>.<domain>`.
    Service,
    /// `<service>.<cluster>.<domain>`.
    ServiceInCluster,
    /// `<pod>.<service>.<domain>`.
    Pod,
}

/// Virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct VirtualIp {
    /// IPv4.
    #[schema(value_type = String, example = "240.0.0.7")]
    pub(crate) v4: Ipv4Addr,
    /// IPv6.
    #[schema(value_type = String, example = "fd74:6f6d:6265:6c6f::7")]
    pub(crate) v6: Ipv6Addr,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Port {
    /// The number that clients use.
    #[schema(example = 8082)]
    pub(crate) port: u16,
    /// `TCP` or `UDP`.
    #[schema(example = "TCP")]
    pub(crate) protocol: String,
    /// Its name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// `appProtocol` of the Kubernetes Service, where it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_protocol: Option<String>,
}

/// A cluster that serves a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Target {
    /// The cluster.
    #[schema(example = "cluster-2")]
    pub(crate) cluster: String,
    /// Endpoints that are ready.
    pub(crate) ready: u32,
    /// Endpoints in all.
    pub(crate) total: u32,
    /// Whether its endpoints take a workload's own TLS session: `all`, `some` or `none`.
    #[schema(example = "all")]
    pub(crate) end_to_end: String,
    /// The services behind it, as `namespace/name`.
    pub(crate) services: Vec<String>,
}

/// Something that could not be given as a cluster has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ServiceConflict {
    /// Why, as a word for programs.
    #[schema(example = "protocol")]
    pub(crate) reason: String,
    /// Why, in words.
    pub(crate) message: String,
    /// The port it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Whose word stands: `cluster/namespace/service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) winner: Option<String>,
    /// Whose does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) loser: Option<String>,
}

/// What the cluster set (KEP-1645) is called where global namespaces are.
const CLUSTER_SET: &str = "clusterset";

impl ServiceConflict {
    fn of_export(conflict: &ExportConflict) -> Self {
        let (reason, message) = (conflict.reason.to_string(), conflict.message.clone());
        Self { reason, message, port: None, winner: None, loser: None }
    }

    fn show(conflict: &Conflict) -> Self {
        let reason = match conflict.reason {
            Reason::Protocol => "protocol",
            Reason::AppProtocol => "app_protocol",
            Reason::PortName(_) => "port_name",
            Reason::Headless => "headless",
            Reason::PodNames(_) => "pod_names",
            Reason::TooLong(_) => "too_long",
            Reason::Overlap(_) => "overlap",
        };
        Self {
            reason: reason.to_owned(),
            message: conflict.to_string(),
            port: conflict.port,
            winner: conflict.winner.as_ref().map(ToString::to_string),
            loser: conflict.loser.as_ref().map(ToString::to_string),
        }
    }
}

/// All services of an organization at a generation, by name. Worked out when somebody asks, kept until the generation
/// is another.
#[derive(Debug, Default)]
pub(crate) struct Catalogs(Mutex<HashMap<OrgId, Kept>>);

type Kept = (Generation, Arc<Vec<Service>>);

/// Organizations whose services are kept.
const MOST_KEPT: usize = 64;

/// How long a reading waits for this replica to have made what was changed just before.
const PATIENCE: Duration = Duration::from_secs(2);

impl Catalogs {
    async fn of(&self, deps: &Deps, scope: &Scope) -> Result<Arc<Vec<Service>>> {
        let org = scope.org.id;
        if !deps.view.wait_for(org, scope.org.generation, PATIENCE).await {
            let detail = "This controller has not caught up yet; try again.";
            return Err(Refusal::new(Kind::Unavailable, detail).retry_after(1));
        }
        let read = |compiled: &Incremental, generation: Generation| {
            let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&org).cloned();
            match kept {
                Some((at, services)) if at == generation => (generation, services),
                _ => (generation, Arc::new(catalog(compiled))),
            }
        };
        let (generation, services) = deps
            .view
            .with(org, read)
            .ok_or_else(|| Refusal::not_found("organization", scope.org.name.as_str()))?;
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST_KEPT && !kept.contains_key(&org) {
            kept.clear();
        }
        kept.insert(org, (generation, Arc::clone(&services)));
        Ok(services)
    }
}

/// Every name with addresses, by name. A name is the same in the snapshot of every member of its global namespace, but
/// for how near its targets are; so one member of each is enough.
fn catalog(compiled: &Incremental) -> Vec<Service> {
    let world = compiled.world();
    let clusters: BTreeMap<_, ClusterId> =
        world.clusters.values().map(|cluster| (&cluster.name, cluster.id)).collect();
    let mut conflicts = BTreeMap::<(DnsLabel, DnsLabel), Vec<ServiceConflict>>::new();
    for conflict in compiled.conflicts() {
        if let Some(service) = &conflict.service {
            let key = (conflict.gns.clone(), service.clone());
            conflicts.entry(key).or_default().push(ServiceConflict::show(&conflict));
        }
    }
    let mut seen = BTreeSet::<Domain>::new();
    let mut services = BTreeMap::new();
    for cluster in world.clusters.values().filter(|cluster| !cluster.intermediates.is_empty()) {
        let chosen = |gns: &&tombolo_model::intent::GlobalNamespace| {
            gns.rules.iter().any(|rule| rule.cluster.matches(&cluster.name, &cluster.labels))
        };
        if world.gns.values().filter(chosen).all(|gns| seen.contains(&gns.domain)) {
            continue;
        }
        let snapshot = compiled.snapshot(cluster.id);
        let domains: BTreeMap<&Domain, &DnsLabel> = snapshot
            .values()
            .filter_map(|resource| match resource {
                ClusterResource::Domain(spec) if !seen.contains(&spec.domain) => {
                    Some((&spec.domain, &spec.gns))
                }
                _ => None,
            })
            .collect();
        for resource in snapshot.values() {
            let ClusterResource::Name(name) = resource else { continue };
            let Some(gns) = domains.get(&name.domain) else { continue };
            let service = show(world, &clusters, &conflicts, gns, name);
            services.insert(service.name.clone(), service);
        }
        seen.extend(domains.into_keys().cloned());
        // a global namespace whose domain is not in force has no names, in no snapshot
        seen.extend(world.gns.values().filter(chosen).map(|gns| gns.domain.clone()));
    }
    if let Ok(set) = DnsLabel::parse(CLUSTER_SET) {
        for (name, conflicts) in compiled.set_names() {
            let mut service = show(world, &clusters, &BTreeMap::new(), &set, &name);
            service.conflicts = conflicts.iter().map(ServiceConflict::of_export).collect();
            services.insert(service.name.clone(), service);
        }
    }
    services.into_values().collect()
}

fn show(
    world: &World,
    clusters: &BTreeMap<&tombolo_model::ClusterName, ClusterId>,
    conflicts: &BTreeMap<(DnsLabel, DnsLabel), Vec<ServiceConflict>>,
    gns: &DnsLabel,
    name: &NameSpec,
) -> Service {
    let target = |target: &TargetSpec| {
        let inventory = clusters.get(&target.cluster).and_then(|id| world.inventories.get(id));
        let records = target.services.iter().filter_map(|key| inventory?.services.get(key));
        let total = match name.kind {
            NameKind::Pod => 1,
            _ => records.map(|record| record.total).fold(0, u32::saturating_add),
        };
        Target {
            cluster: target.cluster.to_string(),
            ready: target.ready,
            total: total.max(target.ready),
            end_to_end: match target.end_to_end {
                EndToEnd::All => "all",
                EndToEnd::Some => "some",
                EndToEnd::None => "none",
            }
            .to_owned(),
            services: target.services.iter().map(ToString::to_string).collect(),
        }
    };
    let ports = name.ports.iter().map(|port| Port {
        port: port.port,
        protocol: match port.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
        .to_owned(),
        name: port.name.as_ref().map(ToString::to_string),
        app_protocol: port.app_protocol.clone(),
    });
    // the service's label is the one before the domain, and before the cluster
    let rest = name.name.as_str().strip_suffix(name.domain.as_str()).unwrap_or_default();
    let mut labels = rest.split('.').filter(|label| !label.is_empty());
    let label = match name.kind {
        NameKind::Service | NameKind::ServiceInCluster => labels.next(),
        NameKind::Pod => labels.nth(1),
    };
    let key = label.and_then(|label| DnsLabel::parse(label).ok()).map(|label| (gns.clone(), label));
    Service {
        name: name.name.to_string(),
        gns: gns.to_string(),
        kind: match name.kind {
            NameKind::Service => ServiceKind::Service,
            NameKind::ServiceInCluster => ServiceKind::ServiceInCluster,
            NameKind::Pod => ServiceKind::Pod,
        },
        vip: VirtualIp { v4: name.vip.v4, v6: name.vip.v6 },
        headless: name.headless,
        ports: ports.collect(),
        targets: name.targets.iter().map(target).collect(),
        conflicts: key.and_then(|key| conflicts.get(&key)).cloned().unwrap_or_default(),
    }
}

/// Which services are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServiceFilter {
    /// Of this global namespace.
    pub(crate) gns: Option<String>,
    /// Served by this cluster.
    pub(crate) cluster: Option<String>,
}

/// Services by name.
///
/// # Errors
/// [`Kind::Unavailable`] where this replica is behind.
pub(crate) async fn list(
    deps: &Deps,
    scope: &Scope,
    filter: &ServiceFilter,
    page: &Page,
) -> Result<List<Service>> {
    let all = deps.catalogs.of(deps, scope).await?;
    let begin = page.after().map_or(0, |after| all.partition_point(|service| service.name.as_str() <= after));
    let wanted = all[begin..].iter().filter(|service| {
        filter.gns.as_ref().is_none_or(|gns| service.gns == *gns)
            && filter.cluster.as_ref().is_none_or(|c| service.targets.iter().any(|t| t.cluster == *c))
    });
    let count = usize::try_from(page.fetch()).unwrap_or(usize::MAX);
    Ok(page.list(wanted.take(count).cloned().collect(), |service| service.name.clone()))
}

/// One service.
///
/// # Errors
/// [`Kind::NotFound`].
pub(crate) async fn get(deps: &Deps, scope: &Scope, name: &str) -> Result<Service> {
    let all = deps.catalogs.of(deps, scope).await?;
    let found = all.binary_search_by(|service| service.name.as_str().cmp(name)).ok();
    found.map(|n| all[n].clone()).ok_or_else(|| Refusal::not_found("service", name))
}
